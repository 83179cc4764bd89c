"""What NexusLIMS is told of an export: its own shape of results, and nothing called exported that is not."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from labrelay.client import Client
from labrelay.errors import InvalidInput, LedgerUnavailable
from labrelay.nexuslims import was_successfully_exported
from labrelay.nexuslims.outcomes import accepted, finished, kept_earlier, may_replace, refused
from labrelay.nexuslims.staging import FOLDER, stage, tidy
from labrelay.results import (
    DeliveryState,
    DeliveryStatus,
    ExportState,
    ExportStatus,
    Receipt,
    Submission,
    utc_now,
)

FILE = Path("/r/record.xml")


def delivery(name: str, state: DeliveryState, **fields: Any) -> DeliveryStatus:
    receipt = Receipt(destination=name, record_id="7", record_url=f"https://{name}/7", at=utc_now())
    given = {"receipt": receipt} if state is DeliveryState.DELIVERED else {}
    return DeliveryStatus(destination=name, state=state, **given | fields)


def status(state: ExportState, *deliveries: DeliveryStatus) -> ExportStatus:
    return ExportStatus(
        export_id="id-1", state=state, session_identifier="s", instrument_pid="i", strategy="", revision=1, runs=1,
        created=utc_now(), updated=utc_now(), deliveries=deliveries,
    )  # fmt: skip


GOOD = delivery("cdcs", DeliveryState.DELIVERED)
BAD = delivery("elabftw", DeliveryState.FAILED, error_kind="rejected", error_message="bad XML")
LATER = delivery("elabftw", DeliveryState.RETRYING, error_kind="unavailable", error_message="busy")
SKIPPED = delivery("elabftw", DeliveryState.SKIPPED)


@pytest.mark.parametrize(
    ("export", "exported"),
    [
        (status(ExportState.DELIVERED, GOOD), True),
        (status(ExportState.DELIVERED, GOOD, SKIPPED), True),  # first_success
        (status(ExportState.DELIVERED, GOOD, BAD), True),  # best_effort
        (status(ExportState.DEAD, GOOD, BAD), False),  # all
        (status(ExportState.WAITING, GOOD, LATER), False),
        (status(ExportState.UNKNOWN, delivery("cdcs", DeliveryState.UNKNOWN)), False),
        (status(ExportState.CANCELLED), False),
        (status(ExportState.WAITING), False),
    ],
)
def test_exported_is_said_when_the_strategy_is_fulfilled(export: ExportStatus, exported: bool) -> None:
    # Given the results of an export that was waited for
    results = {FILE: finished(export)}
    # When NexusLIMS asks, then labrelay's own verdict is the answer
    assert was_successfully_exported(FILE, results) is exported


def test_a_strategy_can_be_judged_by_name() -> None:
    results = {FILE: finished(status(ExportState.DEAD, GOOD, BAD))}
    assert was_successfully_exported(FILE, results, strategy="best_effort")
    assert not was_successfully_exported(FILE, results, strategy="all")
    with pytest.raises(InvalidInput, match="no strategy"):
        was_successfully_exported(FILE, results, strategy="some")


def test_a_file_without_results_is_not_exported() -> None:
    assert not was_successfully_exported(FILE, {})
    assert not was_successfully_exported(FILE, {FILE: []})
    assert not was_successfully_exported(FILE, {FILE: refused("no such file")})


def test_results_say_per_destination_what_happened() -> None:
    # Given an export of which one destination refused, and one was not needed
    cdcs, elabftw = finished(status(ExportState.DEAD, GOOD, BAD, delivery("x", DeliveryState.SKIPPED)))
    # Then ids and reasons are where NexusLIMS looks for them
    assert (cdcs.success, cdcs.record_id, cdcs.record_url) == (True, "7", "https://cdcs/7")
    assert (elabftw.success, elabftw.error_message) == (False, "failed: bad XML")
    assert elabftw.metadata["error_kind"] == "rejected"


@pytest.mark.parametrize("outcome", ["accepted", "duplicate", "replaced", "spooled"])
def test_what_labrelay_has_counts_as_exported(outcome: str) -> None:
    state = "spooled" if outcome == "spooled" else ExportState.QUEUED
    results = {FILE: accepted(Submission(export_id="id-1", outcome=outcome, state=state, revision=1))}
    assert was_successfully_exported(FILE, results)
    assert results[FILE][0].record_id == "id-1"


@pytest.mark.parametrize("state", [ExportState.DEAD, ExportState.UNKNOWN, ExportState.CANCELLED])
def test_what_ended_without_delivery_does_not(state: ExportState) -> None:
    # When the same record is submitted again, or a rebuilt one stays out, then a person is sent to the reason
    for results in (
        accepted(Submission(export_id="id-1", outcome="duplicate", state=state, revision=1)),
        kept_earlier(status(state, GOOD)),
    ):
        assert not was_successfully_exported(FILE, {FILE: results})
        assert "labrelay dead show id-1" in (results[0].error_message or "")


@pytest.mark.parametrize(
    ("export", "replaced"),
    [
        (status(ExportState.QUEUED), True),
        (status(ExportState.WAITING, LATER), True),
        (status(ExportState.DEAD, BAD), True),
        (status(ExportState.DELIVERED, GOOD), False),
        (status(ExportState.WAITING, GOOD, LATER), False),
        (status(ExportState.RUNNING, delivery("cdcs", DeliveryState.SENDING, in_doubt=True)), False),
        (status(ExportState.UNKNOWN, delivery("cdcs", DeliveryState.UNKNOWN, in_doubt=True)), False),
    ],
)
def test_a_rebuilt_record_replaces_only_what_has_arrived_nowhere(export: ExportStatus, replaced: bool) -> None:
    assert may_replace(export) is replaced


# --- staging -------------------------------------------------------------------------------------------


class Statuses(Client):
    """Answers how exports stand without a server."""

    def __init__(self, **states: ExportState) -> None:
        self._states = states

    def status(self, export_id: str) -> ExportStatus:
        if export_id not in self._states:
            raise LedgerUnavailable
        return status(self._states[export_id])


def test_a_staged_record_keeps_name_and_bytes_whatever_becomes_of_the_first(tmp_path: Path) -> None:
    # Given a record
    record = tmp_path / "2026-11-02_Titan_7.xml"
    record.write_bytes(b"<x>\r\n\xc3\x85</x>")
    # When it is staged, rebuilt and staged again
    first = stage(record, "id-1", tmp_path)
    record.write_bytes(b"<y/>")
    second = stage(record, "id-1", tmp_path)
    # Then both are there, under its own name
    assert (first.name, first.read_bytes()) == (record.name, b"<x>\r\n\xc3\x85</x>")
    assert (second.name, second.read_bytes()) == (record.name, b"<y/>")
    assert stage(record, "id-1", tmp_path) == second


def test_a_record_that_cannot_be_staged_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"nowhere\.xml"):
        stage(tmp_path / "nowhere.xml", "id-1", tmp_path)


def test_copies_go_when_nobody_needs_them(tmp_path: Path) -> None:
    # Given copies of exports in every state, one of them just made
    record = tmp_path / "a.xml"
    record.write_text("<x/>")
    states = {
        "done": ExportState.DELIVERED, "gone": ExportState.CANCELLED, "dead": ExportState.DEAD,
        "moving": ExportState.WAITING, "young": ExportState.DELIVERED,
    }  # fmt: skip
    for name in [*states, "unknown"]:
        folder = stage(record, name, tmp_path).parent
        if name != "young":
            for path in (folder, folder.parent):
                os.utime(path, (time.time() - 7200,) * 2)
    # When it is tidied, then those that are over are gone, and nothing else
    assert tidy(tmp_path, Statuses(**states)) == 2
    assert sorted(path.name for path in (tmp_path / FOLDER).iterdir()) == ["dead", "moving", "unknown", "young"]
