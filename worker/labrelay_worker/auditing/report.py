"""The report of an audit: a line a delivery as JSON, what they come to, and the exit code for monitoring."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from labrelay.errors import InvalidInput
from labrelay.names import AUDIT_SCHEMA
from labrelay_worker.destinations.findings import CANNOT_BE_ASKED, Finding, Mark

if TYPE_CHECKING:
    from labrelay_worker.auditing.delivered import Delivered

EXIT_EQUAL, EXIT_DIFFERENT, EXIT_NOT_ASKED, EXIT_CANNOT_BE_ASKED = 0, 1, 3, 7


class AuditLine(BaseModel):
    """How one delivery stands."""

    model_config = ConfigDict(frozen=True)

    mark: Mark
    destination: str
    session_identifier: str
    instrument_pid: str
    export_id: str
    revision: int
    said: str
    kind: str = ""
    record_id: str | None = None
    record_url: str | None = None
    delivered_at: AwareDatetime | None = None
    asked_at: AwareDatetime

    @classmethod
    def of(cls, delivered: Delivered, finding: Finding) -> Self:
        """Return the line of a finding."""
        receipt = delivered.receipt
        return cls(
            mark=finding.mark,
            destination=receipt.destination,
            session_identifier=delivered.session,
            instrument_pid=delivered.instrument,
            export_id=delivered.export_id,
            revision=delivered.revision,
            said=finding.said,
            kind=finding.kind,
            record_id=receipt.record_id,
            record_url=receipt.record_url,
            delivered_at=receipt.at,
            asked_at=datetime.now(UTC),
        )

    @property
    def key(self) -> tuple[str, str, int]:
        """What it is about."""
        return self.export_id, self.destination, self.revision


class AuditSummary(BaseModel):
    """What an audit comes to."""

    asked: int = 0
    equal: int = 0
    missing: int = 0
    differs: int = 0
    #: Marked ``!``: `cannot_be_asked` of them never will be otherwise, the others may be the next time.
    unknown: int = 0
    cannot_be_asked: int = 0
    taken_over: int = 0
    archived_left_out: int = 0
    interrupted: bool = False

    @property
    def exit_code(self) -> int:
        """Return the exit code: what is wrong before what is not known."""
        if self.missing or self.differs:
            return EXIT_DIFFERENT
        if self.interrupted or self.unknown > self.cannot_be_asked:
            return EXIT_NOT_ASKED
        return EXIT_CANNOT_BE_ASKED if self.cannot_be_asked else EXIT_EQUAL


class AuditTally:
    """Counts lines."""

    def __init__(self) -> None:
        self._marks: Counter[Mark] = Counter()
        self._never = 0

    def add(self, line: AuditLine) -> None:
        """Count one line."""
        self._marks[line.mark] += 1
        self._never += line.kind == CANNOT_BE_ASKED

    def summary(self, *, taken_over: int, archived_left_out: int, interrupted: bool) -> AuditSummary:
        """Return what it comes to."""
        return AuditSummary(
            asked=self._marks.total(),
            equal=self._marks[Mark.EQUAL],
            missing=self._marks[Mark.MISSING],
            differs=self._marks[Mark.DIFFERS],
            unknown=self._marks[Mark.UNKNOWN],
            cannot_be_asked=self._never,
            taken_over=taken_over,
            archived_left_out=archived_left_out,
            interrupted=interrupted,
        )


class ReportFile:
    """Appends lines to a JSON Lines file, so that an interrupted audit can go on.

    Parameters
    ----------
    path
        The file; made when it is not there.
    resume
        Go on with the file that is there; without it, one that holds anything is refused.

    Raises
    ------
    InvalidInput
        The file cannot be written, holds something else, or holds a report and `resume` is not set.
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        self._path = path
        self.known: dict[tuple[str, str, int], AuditLine] = {}
        try:
            if path.exists() and path.stat().st_size and not resume:
                raise InvalidInput(
                    "--report", f"{path} is there already", "Go on with it by --resume, or name another file"
                )
            if resume and path.exists():
                self.known = {line.key: line for line in _read(path)}
            self._file = path.open("ab")
            if self._file.tell() and not _ends_a_line(path):  # torn by a kill
                self._file.write(b"\n")
        except OSError as error:
            raise _cannot_write(path, error) from None

    def taken_over(self, delivered: Delivered) -> AuditLine | None:
        """Return the line that an earlier run wrote of a delivery; one that was not known then is asked again."""
        line = self.known.get((delivered.export_id, delivered.receipt.destination, delivered.revision))
        return line if line is not None and (line.mark is not Mark.UNKNOWN or line.kind == CANNOT_BE_ASKED) else None

    def write(self, line: AuditLine) -> None:
        """Append one line; a kill after this does not lose it."""
        document = {"schema": AUDIT_SCHEMA, **line.model_dump(mode="json", exclude_none=True)}
        try:
            self._file.write(json.dumps(document, ensure_ascii=False).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise _cannot_write(self._path, error) from None

    def close(self) -> None:
        """Close the file; what it says is on the disk then."""
        try:
            with self._file:
                self._file.flush()
                os.fsync(self._file.fileno())
        except OSError as error:
            raise _cannot_write(self._path, error) from None


def _cannot_write(path: Path, error: OSError) -> InvalidInput:
    return InvalidInput("--report", f"cannot write {path} ({error.strerror})", "Make room, or name another file")


def _read(path: Path) -> Iterator[AuditLine]:
    for number, text in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        try:
            document = json.loads(text)
        except ValueError:
            continue  # torn by a kill
        if not isinstance(document, dict) or document.pop("schema", None) != AUDIT_SCHEMA:
            raise InvalidInput("--report", f"{path}, line {number} is no line of an audit", "Name another file")
        try:
            yield AuditLine.model_validate(document)
        except ValidationError:
            continue


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
