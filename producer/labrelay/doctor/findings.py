"""What a check finds, and what all findings amount to."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from pydantic import AwareDatetime, BaseModel, ConfigDict

from labrelay.names import DOCTOR_SCHEMA

EXIT_HEALTHY, EXIT_ERRORS, EXIT_WARNINGS = 0, 1, 7


class Severity(StrEnum):
    """How much a finding matters."""

    ERROR = "error"  # something does not work, or may be lost
    WARNING = "warning"  # it works, and will not for long, or for everyone
    NOTE = "note"  # worth knowing; an installation with notes alone is healthy


class Finding(BaseModel):
    """One thing that is not as it should be.

    Parameters
    ----------
    code
        Stable word for filters, such as ``redis.evicts``.
    subject
        What it is about: a file, a destination, a server.
    problem
        What is wrong, and what follows from it.
    repair
        What to do, as an imperative sentence.
    """

    model_config = ConfigDict(frozen=True)

    code: str
    severity: Severity
    subject: str
    problem: str
    repair: str


class Report(BaseModel):
    """What an examination came to."""

    model_config = ConfigDict(frozen=True)

    version: str
    host: str
    at: AwareDatetime
    checked: tuple[str, ...]
    skipped: dict[str, str] = {}
    findings: tuple[Finding, ...] = ()

    def document(self) -> dict[str, object]:
        """Return it as it is printed and kept."""
        return {"schema": DOCTOR_SCHEMA, **self.model_dump(mode="json")}

    @property
    def exit_code(self) -> int:
        """Return 1 with an error, 7 with warnings alone, else 0."""
        severities = {finding.severity for finding in self.findings}
        if Severity.ERROR in severities:
            return EXIT_ERRORS
        return EXIT_WARNINGS if Severity.WARNING in severities else EXIT_HEALTHY


def worst_first(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Return findings in the order people need them."""
    order = list(Severity)
    return tuple(sorted(findings, key=lambda finding: (order.index(finding.severity), finding.code, finding.subject)))


def error(code: str, subject: str, problem: str, repair: str) -> Finding:
    """Return a finding that says: this does not work."""
    return Finding(code=code, severity=Severity.ERROR, subject=subject, problem=problem, repair=repair)


def warning(code: str, subject: str, problem: str, repair: str) -> Finding:
    """Return a finding that says: this will become a trouble."""
    return Finding(code=code, severity=Severity.WARNING, subject=subject, problem=problem, repair=repair)


def note(code: str, subject: str, problem: str, repair: str) -> Finding:
    """Return a finding that changes nothing."""
    return Finding(code=code, severity=Severity.NOTE, subject=subject, problem=problem, repair=repair)
