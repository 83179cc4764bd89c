"""Whatever befalls one request of a delivery: after trying again, the session is there once and whole."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from labarchives_bench import CDCS, Bench, again_until_done, bench, with_cdcs

from labrelay.context import ExportContext
from labrelay.errors import DeliveryError, OutcomeUnknown, RateLimited, Rejected, Transient, Unavailable
from labrelay.results import Receipt
from labrelay_worker.conformance.faults import Fault
from labrelay_worker.destinations import labarchives_api

__all__ = ["bench"]

Build = Callable[..., ExportContext]

FIRST = [
    "max_file_size", "get_tree_level", "insert_node", "insert_node", "insert_node",
    "add_entry", "add_attachment", "get_entries_for_page", "entry_attachment",
]  # fmt: skip
UPDATE = [
    "max_file_size", "get_entries_for_page", "update_node", "update_entry", "update_attachment",
    "get_entries_for_page", "entry_attachment",
]  # fmt: skip
LINK = [
    "max_file_size", "get_entries_for_page", "entry_attachment", "update_entry",
    "get_entries_for_page", "entry_attachment",
]  # fmt: skip
FAULTS = {
    "the answer is lost": Fault("close", after=True),
    "the connection breaks before": Fault("close"),
    "half of the answer arrives": Fault("half", after=True),
    "500 although it was done": Fault("status", after=True, status=500),
    "500": Fault("status", status=500),
    "502 although it was done": Fault("status", after=True, status=502),
    "503 although it was done": Fault("status", after=True, status=503),
    "503": Fault("status", status=503, headers={"Retry-After": "1"}),
    "429": Fault("status", status=429, headers={"Retry-After": "1"}),
    "4999 although it was done": Fault(
        "status", after=True, status=200, body="<error><error-code>4999</error-code></error>"
    ),
}


@pytest.fixture
def context(make_session: Build) -> ExportContext:
    return make_session()


def at(position: int, fault: Fault) -> Fault:
    return Fault(**{**vars(fault), "nth": position})


def changed(context: ExportContext, receipt: Receipt) -> ExportContext:
    """Return the next revision, whose record and day are others."""
    context.xml_file_path.write_bytes(b"<new>\r\n\xc3\x85</new>")
    moved = context.model_copy(update={"dt_from": context.dt_from.replace(day=19)})
    return moved.of_revision(2, {"labarchives": receipt})


@pytest.mark.parametrize("position", range(1, len(FIRST) + 1), ids=lambda n: f"{n}-{FIRST[n - 1]}")
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_first_delivery_ends_with_one_whole_page(
    bench: Bench, context: ExportContext, fault: Fault, position: int
) -> None:
    # Given an empty notebook and a request that fails
    bench.server.faults.plan(at(position, fault))
    # When the session is delivered, asking first where the outcome is in doubt
    receipt, tries = again_until_done(lambda: bench.send(context), lambda: bench.find(context))
    # Then the second try does it, and there is one of everything
    assert tries == 2
    assert bench.asked[:position] == FIRST[:position]
    assert receipt.record_id == bench.text["eid"]
    assert base64.b64decode(bench.record["base64"]) == context.xml_file_path.read_bytes()


@pytest.mark.parametrize("position", range(1, len(UPDATE) + 1), ids=lambda n: f"{n}-{UPDATE[n - 1]}")
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_new_revision_ends_on_the_same_page(
    bench: Bench, context: ExportContext, fault: Fault, position: int
) -> None:
    # Given a delivered session, its next revision, and a request that fails
    first = bench.send(context)
    second = changed(context, first)
    bench.server.faults.clear()
    bench.server.faults.plan(at(position, fault))
    # When it is delivered
    receipt, _ = again_until_done(lambda: bench.send(second), lambda: bench.find(second))
    # Then page, entry and attachment are those of before, with the new content
    assert bench.asked[:position] == UPDATE[:position]
    assert receipt.record_id == first.record_id
    assert receipt.metadata["attachment_eid"] == first.metadata["attachment_eid"]
    assert bench.page["path"].endswith("2026-11-19 — session-1")
    assert "2026-11-19T10:00:00+01:00" in bench.text["data"]
    assert base64.b64decode(bench.record["base64"]) == second.xml_file_path.read_bytes()


@pytest.mark.parametrize("position", range(1, len(LINK) + 1), ids=lambda n: f"{n}-{LINK[n - 1]}")
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_late_link_is_there_once(bench: Bench, context: ExportContext, fault: Fault, position: int) -> None:
    # Given an entry without a link, and a request that fails
    first = bench.send(context)
    bench.server.faults.clear()
    bench.server.faults.plan(at(position, fault))
    # When the link is added; the engine repeats that without asking
    receipt, _ = again_until_done(
        lambda: bench.link(with_cdcs(context), first), lambda: bench.link(with_cdcs(context), first)
    )
    # Then it is there
    assert bench.asked[:position] == LINK[:position]
    assert receipt.unlinked == ()
    assert bench.text["data"].count(f'href="{CDCS}"') == 1
    assert bench.record["version"] == 1


@pytest.mark.parametrize(
    ("position", "fault", "kind"),
    [
        (2, Fault("close", after=True), Transient),  # looking changes nothing
        (3, Fault("close", after=True), OutcomeUnknown),  # a GET that makes a folder
        (6, Fault("half", after=True), OutcomeUnknown),
        (7, Fault("status", status=500), OutcomeUnknown),
        (9, Fault("status", status=500), Transient),
        (7, Fault("status", status=503), Unavailable),
        (5, Fault("status", status=429, headers={"Retry-After": "7"}), RateLimited),
    ],
)
def test_a_failure_says_whether_something_may_have_been_made(
    bench: Bench, context: ExportContext, position: int, fault: Fault, kind: type[DeliveryError]
) -> None:
    # When one request fails, then the kind of the error tells what the engine must do
    bench.server.faults.plan(at(position, fault))
    with pytest.raises(kind) as caught:
        bench.send(context)
    assert type(caught.value) is kind
    assert getattr(caught.value, "retry_after", None) == (7 if kind is RateLimited else None)


def test_a_silent_server_ends_the_call_and_nothing_is_made_twice(bench: Bench, context: ExportContext) -> None:
    # Given a server that takes the entry and stays silent, when the session is delivered
    bench.server.faults.plan(at(6, Fault("hang")))
    with pytest.raises(OutcomeUnknown, match="TimeoutError"):
        bench.send(context, timeout=0.3)
    bench.server.faults.release()
    # Then trying again completes what is there
    again_until_done(lambda: bench.send(context), lambda: bench.find(context))
    assert bench.text
    assert bench.record


def test_a_record_that_changes_while_it_is_sent_leaves_no_attachment(
    bench: Bench, context: ExportContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a record that is replaced the moment before it is read for sending
    real = labarchives_api.checked_chunks

    def replaced_before(path, *, sha256):
        path.write_bytes(b"x" * path.stat().st_size)
        return real(path, sha256=sha256)

    monkeypatch.setattr(labarchives_api, "checked_chunks", replaced_before)
    # When it is delivered, then it is refused for what happened, and nothing of it was kept
    with pytest.raises(Rejected, match="changed since it was submitted"):
        bench.send(context)
    assert [entry["part_type"] for entry in bench.page["entries"]] == ["text entry"]
