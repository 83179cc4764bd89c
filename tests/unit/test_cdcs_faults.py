"""CDCS while things go wrong: whatever happens to whichever request, in the end there is one record, and whole."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cdcs_parts import ALICE, Cdcs, nexus, receipt_of
from tests.servers.cdcs import CdcsServer

from labrelay.context import ExportContext
from labrelay.errors import (
    DeliveryError,
    Misconfigured,
    OutcomeUnknown,
    RateLimited,
    Rejected,
    Transient,
    Unavailable,
)
from labrelay.results import ExportResult, Receipt
from labrelay_worker.conformance.faults import Fault
from labrelay_worker.conformance.serving import ServerThread

Build = Callable[..., ExportContext]

FAULTS = {
    "the request is lost": Fault("close"),
    "its answer is lost": Fault("close", after=True),
    "half of its answer arrives": Fault("half", after=True),
    "it is answered 429": Fault("status", status=429, headers={"Retry-After": "1"}),
    "it is answered 500": Fault("status", status=500, body="<html>Server Error</html>"),
    "it is carried out and answered 500": Fault("status", status=500, body="<html>Server Error</html>", after=True),
    "it is answered 503": Fault("status", status=503),
    "it is carried out and answered 503": Fault("status", status=503, after=True),
    "it is carried out and answered 504": Fault("status", status=504, after=True),
    "its database is away": Fault("status", status=500, body='{"message": "connection to server was lost"}'),
}


def plain(server: CdcsServer) -> dict[str, Any]:
    return {}


def owned_and_assigned(server: CdcsServer) -> dict[str, Any]:
    server.workspace_in_body = "ignored"
    return {"assign_owner": True}


def with_pids(server: CdcsServer) -> dict[str, Any]:
    server.pids.automatic = True
    return {"assign_owner": True}


VARIANTS = [plain, owned_and_assigned, with_pids]


@pytest.fixture
def fresh(tmp_path: Path, make_context: Build) -> Iterator[Callable[[], Cdcs]]:
    """Return a function that starts a new server."""
    threads = []

    def start() -> Cdcs:
        server = CdcsServer()
        threads.append(ServerThread(server.app()).start())
        return Cdcs(server, threads[-1].url, tmp_path, make_context)

    yield start
    for thread in threads:
        thread.close()


def until_delivered(
    cdcs: Cdcs, context: ExportContext, receipt: Receipt | None, options: dict[str, Any]
) -> tuple[ExportResult, int]:
    """Do as the engine does: ask after an unknown outcome, send again, until it is delivered."""
    for attempt in range(1, 6):
        try:
            if attempt > 1 and (found := cdcs.find(context, **options)) is not None:
                return found, attempt
            return cdcs.send(context, receipt, **options), attempt
        except (Rejected, Misconfigured):
            raise
        except DeliveryError:
            continue
    pytest.fail("not delivered in five attempts")


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("revision", [1, 2])
def test_whichever_request_it_happens_to_there_is_one_whole_record(
    fresh: Callable[[], Cdcs], variant: Callable[[CdcsServer], dict[str, Any]], fault: Fault, revision: int
) -> None:
    nth, hurt = 1, True
    while hurt:
        # Given a server, and the first revision on it if a second one is to be sent
        cdcs = fresh()
        options = variant(cdcs.server)
        receipt, context = None, cdcs.session(reservation_event=ALICE)
        if revision > 1:
            receipt = receipt_of(cdcs.send(context, **options))
            context = cdcs.session(record=nexus("new"), reservation_event=ALICE).of_revision(2, {"cdcs": receipt})

        # When its nth request is hurt
        cdcs.server.faults.clear()
        cdcs.server.faults.plan(replace(fault, nth=nth))
        result, _ = until_delivered(cdcs, context, receipt, options)
        hurt = any(one.fault for one in cdcs.server.faults.seen)
        cdcs.server.faults.clear()

        # Then one record is there, whole, public, with one owner
        (record,) = cdcs.server.records
        assert (record.workspace, result.record_id) == (cdcs.server.workspace.id, str(record.id))
        assert ("new" if revision > 1 else "Å 1") in record.xml_content
        owners = [str(user.id) for user in cdcs.server.store.users.values() if user.username == "alice"]
        assert owners == ([record.user_id] if options else [])
        assert cdcs.find(context, **options) is not None
        nth += 1
    assert nth > 6  # every request of a delivery was hurt once


@pytest.mark.parametrize(
    ("fault", "kind", "text"),
    [
        (Fault("status", status=429, headers={"Retry-After": "7"}), RateLimited, "429"),
        (Fault("status", status=503, headers={"Retry-After": "7"}), Unavailable, "503"),
        (Fault("status", status=500), OutcomeUnknown, "500"),
        (Fault("status", status=500, body='{"message": "Element \'x\': not expected"}'), Rejected, "not expected"),
        (Fault("status", status=500, body='{"message": "could not connect to server"}'), OutcomeUnknown, "connect"),
        (Fault("status", status=413, body="<html/>"), Rejected, "proxy before CDCS"),
        (Fault("status", status=301, headers={"Location": "/rest/data/"}), Misconfigured, "redirects"),
        (Fault("status", status=403, body='{"detail": "Invalid token."}'), Misconfigured, "option token"),
        (Fault("status", status=201, body="<html>login</html>"), OutcomeUnknown, "without a record"),
        (Fault("close"), OutcomeUnknown, "lost"),
    ],
)
def test_an_answer_to_the_new_record_means_what_the_server_means(
    cdcs: Cdcs, fault: Fault, kind: type[DeliveryError], text: str
) -> None:
    cdcs.server.faults.plan(replace(fault, method="POST", path="^/rest/data/$"))
    with pytest.raises(kind, match=text) as caught:
        cdcs.send(cdcs.session())
    if fault.headers.get("Retry-After"):
        assert caught.value.retry_after == 7


def test_a_silent_server_is_given_up_in_time(cdcs: Cdcs) -> None:
    cdcs.server.faults.plan(Fault("hang", method="POST"))
    with pytest.raises(OutcomeUnknown, match="lost"):
        cdcs.send(cdcs.session(), timeout=0.3)
    cdcs.server.faults.release()


def test_no_server_is_no_doubt(cdcs: Cdcs) -> None:
    with pytest.raises(Unavailable, match="no connection"):
        cdcs.send(cdcs.session(), url="http://127.0.0.1:9")


def test_a_server_that_cannot_be_asked_leaves_the_doubt_open(cdcs: Cdcs) -> None:
    context = cdcs.session()
    cdcs.send(context)
    cdcs.server.faults.plan(Fault("status", status=500, method="GET", path="admin/data"))
    with pytest.raises(Transient):
        cdcs.find(context)


def test_a_record_that_reads_back_otherwise_is_not_delivered(cdcs: Cdcs) -> None:
    # Given a server that answers the read-back with other content
    body = '{"id": 1, "template": 1, "workspace": 9, "user_id": "1", "title": "x", "xml_content": "<other/>"}'
    cdcs.server.faults.plan(Fault("status", status=200, method="GET", path=r"^/rest/data/\d+/$", body=body))

    # When a record is delivered, then that is no success
    with pytest.raises(OutcomeUnknown, match="reads back with other content"):
        cdcs.send(cdcs.session())


def test_eight_exports_at_once_make_one_record_each_and_one_account(cdcs: Cdcs) -> None:
    # Given eight workers that share an account, and five sessions of one person, each taken by all of them
    contexts = [cdcs.session(number, reservation_event=ALICE) for number in range(5)]
    shared = cdcs.destination().account

    async def all_at_once() -> None:
        workers = [cdcs.destination(shared, assign_owner=True) for _ in range(8)]
        await asyncio.gather(*(worker.export(context) for worker in workers for context in contexts))
        await asyncio.gather(*(worker.close() for worker in workers))

    # When they deliver at the same time
    asyncio.run(all_at_once())

    # Then every session has one record, and all belong to the one account of that person
    assert sorted(record.title for record in cdcs.server.records) == [f"record-{number}" for number in range(5)]
    (alice,) = [user for user in cdcs.server.store.users.values() if user.username == "alice"]
    assert {record.user_id for record in cdcs.server.records} == {str(alice.id)}


def test_closing_during_an_export_harms_nothing(cdcs: Cdcs) -> None:
    async def close_meanwhile() -> None:
        made = cdcs.destination()
        running = asyncio.create_task(made.export(cdcs.session()))
        while not cdcs.server.faults.seen:
            await asyncio.sleep(0)
        await made.close()
        await made.close()
        await asyncio.gather(running, return_exceptions=True)
        await made.export(cdcs.session())
        await made.close()

    asyncio.run(close_meanwhile())
    assert len(cdcs.server.records) == 1
