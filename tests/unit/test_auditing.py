"""What an audit asks about, how it is asked, and what monitoring is told."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from labrelay.errors import InvalidInput, Misconfigured, RateLimited, Unavailable
from labrelay.redaction import Redactor
from labrelay.results import DestinationInfo, ExportResult, Receipt
from labrelay_worker.auditing.asking import AuditedHost, Lane
from labrelay_worker.auditing.delivered import Delivered, Wanted, deliveries_of
from labrelay_worker.auditing.report import AuditLine, AuditTally, ReportFile
from labrelay_worker.destinations.base import Destination
from labrelay_worker.destinations.findings import Finding, Mark, cannot_be_asked, differs, equal, missing
from labrelay_worker.guarding import RecordGuard

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SECRET = "s3cret-of-the-account"


def receipt_of(name: str, *, at: datetime = NOW, **fields: Any) -> Receipt:
    return Receipt(destination=name, record_id="1", at=at, **fields)


def row_of(context: Any, *receipts: Receipt) -> dict[str, str]:
    row = {"context": context.to_json(), "revision": "2", "session": "s", "instrument": "i", "state": "delivered"}
    return row | {f"r:{receipt.destination}": receipt.model_dump_json() for receipt in receipts}


def line(finding: Finding, **fields: Any) -> AuditLine:
    given = {"mark": finding.mark, "kind": finding.kind, "said": finding.said, "destination": "d", "export_id": "e"}
    rest = {"session_identifier": "s", "instrument_pid": "i", "revision": 1, "asked_at": NOW}
    return AuditLine.model_validate(given | rest | fields)


# --- what is asked about ---------------------------------------------------------------------------------


def test_an_entry_is_compared_with_the_links_that_it_has(make_context):
    # Given a notebook entry that went out without its link, and one that has it
    row = row_of(
        make_context(), receipt_of("cdcs"), receipt_of("early", metadata={"unlinked": ["cdcs"]}), receipt_of("late")
    )

    # When the deliveries are read
    contexts = {one.receipt.destination: one.context for one in deliveries_of("e", row, Wanted())}

    # Then the contexts are those that the entries were made from
    assert not contexts["early"].has_successful_export("cdcs")
    assert contexts["late"].has_successful_export("cdcs")
    assert {context.revision for context in contexts.values()} == {2}


def test_destination_and_time_of_the_delivery_choose(make_context):
    row = row_of(make_context(), receipt_of("new"), receipt_of("old", at=NOW - timedelta(days=9)))
    assert [one.receipt.destination for one in deliveries_of("e", row, Wanted(since=NOW))] == ["new"]
    (chosen,) = deliveries_of("e", row, Wanted(destinations=frozenset({"old"})))
    assert chosen.receipt.destination == "old"


def test_a_context_that_cannot_be_read_is_told_and_hides_no_other(make_context):
    row = row_of(make_context(), receipt_of("archive")) | {"context": "{"}
    (one,) = deliveries_of("e", row, Wanted())
    assert one.context is None
    assert "export e" in one.problem


# --- how it is asked -------------------------------------------------------------------------------------


class Unlimited:
    """An account without limits."""

    @asynccontextmanager
    async def call(self, name: str, limits: Any):
        yield


class Asked(Destination):
    """Answers as told, and counts the questions."""

    name = "asked"

    def __init__(self, *answers: Any) -> None:
        super().__init__("asked")
        self.answers, self.questions = list(answers), 0

    async def export(self, context: Any) -> ExportResult:
        raise AssertionError("an audit sends nothing")

    async def check(self, context: Any, receipt: Receipt) -> Any:
        self.questions += 1
        answer = self.answers[min(self.questions, len(self.answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer


class Findable(Destination):
    """Knows `find` alone."""

    name = "findable"

    def __init__(self, found: ExportResult | None) -> None:
        super().__init__("findable")
        self.found = found

    async def export(self, context: Any) -> ExportResult:
        raise AssertionError("an audit sends nothing")

    async def find(self, context: Any) -> ExportResult | None:
        return self.found


def lane_of(destination: Any, *, lossy: bool = False) -> Lane:
    host = AuditedHost(
        destination, DestinationInfo(name=destination.name, type="t", lossy=lossy),
        records=RecordGuard(()), redact=Redactor([SECRET]), call_timeout=5, threads=1,
    )  # fmt: skip
    return Lane(host, Unlimited(), why_not="", at_once=2)  # type: ignore[arg-type]


@pytest.fixture
def delivered(make_context) -> Delivered:
    return Delivered("e", "s", "i", 1, receipt_of("asked"), make_context())


async def findings(lane: Lane, delivered: Delivered, times: int) -> list[Finding]:
    return [await lane.ask(delivered) for _ in range(times)]


def run(coroutine: Any) -> Any:
    return asyncio.run(coroutine)


def test_a_destination_that_is_down_is_left_alone_after_three_failures(delivered):
    destination = Asked(Unavailable("connection refused"))
    found = run(findings(lane_of(destination), delivered, 5))
    assert destination.questions == 3
    assert [one.kind for one in found] == ["unavailable"] * 3 + ["not_asked"] * 2
    assert "connection refused" in found[-1].said


def test_an_answer_in_between_starts_the_count_anew(delivered):
    destination = Asked(
        Unavailable("a"), Misconfigured("b"), equal("there"), Unavailable("c"), Unavailable("d"), equal("e")
    )
    found = run(findings(lane_of(destination), delivered, 6))
    assert [one.mark for one in found] == ["!", "!", "=", "!", "!", "="]


def test_a_question_waits_for_its_turn(delivered):
    destination = Asked(RateLimited("slow down", retry_after=0.01), equal("there"))
    (found,) = run(findings(lane_of(destination), delivered, 1))
    assert (found.mark, destination.questions) == (Mark.EQUAL, 2)


@pytest.mark.parametrize("answer", [differs(f"changed by {SECRET}"), ValueError(f"of {SECRET}")])
def test_no_secret_is_in_a_finding(delivered, answer):
    (found,) = run(findings(lane_of(Asked(answer)), delivered, 1))
    assert SECRET not in found.said


def test_a_check_that_answers_nonsense_is_no_equality(delivered):
    (found,) = run(findings(lane_of(Asked(True)), delivered, 1))
    assert (found.mark, "bool" in found.said) == (Mark.UNKNOWN, True)


def test_a_destination_without_check_is_asked_by_its_find(delivered):
    there = ExportResult(success=True, destination_name="findable", metadata={"verified": "same key"})
    (found,) = run(findings(lane_of(Findable(there)), delivered, 1))
    (lost,) = run(findings(lane_of(Findable(None)), delivered, 1))
    assert (found, lost.mark) == (equal("same key"), Mark.MISSING)


def test_viewers_and_destinations_that_cannot_be_asked_are_told_apart_from_errors(delivered):
    class Blind(Destination):
        name = "blind"

        async def export(self, context: Any) -> ExportResult:
            raise AssertionError

    (viewer,) = run(findings(lane_of(Findable(None), lossy=True), delivered, 1))
    (blind,) = run(findings(lane_of(Blind("blind")), delivered, 1))
    assert [viewer.kind, blind.kind] == ["cannot_be_asked"] * 2


# --- what monitoring is told -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "interrupted", "code"),
    [
        ([equal("")], False, 0),
        ([], False, 0),
        ([equal(""), missing("")], False, 1),
        ([differs(""), Finding(Mark.UNKNOWN, "", "unavailable")], True, 1),
        ([equal(""), Finding(Mark.UNKNOWN, "", "unavailable"), cannot_be_asked("")], False, 3),
        ([equal("")], True, 3),
        ([equal(""), cannot_be_asked("")], False, 7),
    ],
)
def test_the_exit_code_tells_the_worst_first(found, interrupted, code):
    tally = AuditTally()
    for one in found:
        tally.add(line(one))
    assert tally.summary(taken_over=0, archived_left_out=0, interrupted=interrupted).exit_code == code


def test_a_report_is_refused_where_something_else_is(tmp_path: Path):
    other = tmp_path / "notes.txt"
    other.write_text('{"my": "notes"}\n')
    for resume in (False, True):
        with pytest.raises(InvalidInput, match="--report"):
            ReportFile(other, resume=resume)
    assert other.read_text() == '{"my": "notes"}\n'


def test_a_resumed_report_takes_over_what_is_known_and_asks_again_what_is_not(tmp_path: Path, delivered):
    # Given a report with an error about a delivery, then its equality
    path, down = tmp_path / "report.jsonl", Finding(Mark.UNKNOWN, "down", "unavailable")
    about = {"destination": "asked", "export_id": "e"}
    first = ReportFile(path, resume=False)
    first.write(line(down, **about))
    first.close()

    # When it is resumed, then the error counts for nothing, and a later answer does
    second = ReportFile(path, resume=True)
    assert second.taken_over(delivered) is None
    second.write(line(equal(""), **about))
    second.close()
    third = ReportFile(path, resume=True)
    assert third.taken_over(delivered).mark is Mark.EQUAL
    third.close()
    assert {json.loads(text)["schema"] for text in path.read_text().splitlines()} == {"labrelay.audit_line/1"}
