"""CDCS through a real Redis server and real worker processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cdcs_parts import nexus
from tests.servers.cdcs import SUPERUSER, TEMPLATE, CdcsServer

from labrelay.context import ExportContext
from labrelay.results import ExportState
from labrelay_worker.conformance.faults import Fault
from labrelay_worker.conformance.serving import ServerThread

pytestmark = pytest.mark.integration

RESERVATION = {"username": "alice", "user_email": "alice@example.org"}


@pytest.fixture
def server() -> CdcsServer:
    return CdcsServer()


@pytest.fixture
def url(server: CdcsServer) -> Iterator[str]:
    with ServerThread(server.app()) as thread:
        yield thread.url


def configure(lab: Any, url: str, **options: Any) -> None:
    lab.destinations["cdcs"] = {"type": "cdcs", "url": url, "token": SUPERUSER, "template": TEMPLATE, **options}
    lab.write_settings()


def session(folder: Path, number: int, record: bytes | None = None) -> ExportContext:
    path = folder / f"2026-11-20_FEI-Titan_{number}.xml"
    path.write_bytes(nexus(f"Å {number}") if record is None else record)
    return ExportContext.parse(
        {
            "xml_file_path": str(path),
            "session_identifier": f"https://nemo.example.org/api/usage_events/?id={number}",
            "instrument_pid": "FEI-Titan-TEM",
            "dt_from": "2026-11-20T10:00:00+01:00",
            "dt_to": "2026-11-20T11:00:00+01:00",
            "reservation_event": RESERVATION,
        }
    )


def test_a_session_and_its_next_revision_are_one_record(lab: Any, server: CdcsServer, url: str) -> None:
    # Given a worker that delivers to CDCS
    configure(lab, url)
    lab.start_worker()

    # When a session is submitted, corrected and submitted again
    with lab.client() as client:
        export_id = client.submit(session(lab.folder, 1)).export_id
        first = client.wait(export_id, 60)
        client.submit(session(lab.folder, 1, nexus("corrected")), replace=True)
        second = client.wait(export_id, 60)

    # Then one record holds the correction, byte for byte, and the receipts say so
    (record,) = server.records
    assert record.xml_content.encode() == nexus("corrected")
    assert (first.state, second.state, second.revision) == (ExportState.DELIVERED, ExportState.DELIVERED, 2)
    receipts = [status.deliveries[0].receipt for status in (first, second)]
    assert [receipt.record_id for receipt in receipts if receipt] == [str(record.id)] * 2
    assert receipts[1] is not None
    assert receipts[1].record_url == f"{url}/data?id={record.id}"
    assert "byte-identical" in receipts[1].verified


def test_a_lost_answer_is_adopted_not_repeated(lab: Any, server: CdcsServer, url: str) -> None:
    configure(lab, url)
    server.faults.plan(Fault("close", after=True, method="POST"))
    lab.start_worker()
    with lab.client() as client:
        status = client.wait(client.submit(session(lab.folder, 1)).export_id, 60)
    assert status.state is ExportState.DELIVERED
    assert status.deliveries[0].receipt.adopted
    assert len(server.records) == 1


def test_a_record_that_does_not_fit_is_dead_with_line_and_reason(lab: Any, server: CdcsServer, url: str) -> None:
    configure(lab, url)
    lab.start_worker()
    with lab.client() as client:
        status = client.wait(client.submit(session(lab.folder, 1, nexus(inside="<user/>"))).export_id, 60)
    assert status.state is ExportState.DEAD
    assert "line 5: " in (status.deliveries[0].error_message or "")
    assert server.records == []


def test_eight_processes_make_one_account_for_a_person(lab: Any, server: CdcsServer, url: str) -> None:
    # Given eight worker processes
    configure(lab, url, assign_owner=True)
    for _ in range(2):
        lab.start_worker("prefork", 4)

    # When 40 sessions of one person are submitted at once
    with lab.client() as client:
        submissions = client.submit_many([session(lab.folder, number) for number in range(40)])
        states = {client.wait(submission.export_id, 100).state for submission in submissions}

    # Then each has one record, and all of them belong to one account
    assert states == {ExportState.DELIVERED}
    assert len({record.title for record in server.records}) == len(server.records) == 40
    (alice,) = [user for user in server.store.users.values() if user.username == "alice"]
    assert {record.user_id for record in server.records} == {str(alice.id)}
