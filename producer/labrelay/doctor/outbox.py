"""Checks that nothing is left in the outbox of this machine that should have gone on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from labrelay.doctor.findings import Finding, error, warning
from labrelay.errors import OutboxUnavailable
from labrelay.outbox import Outbox

if TYPE_CHECKING:
    from labrelay.doctor.examining import Patient

_NEARLY = 0.8


@dataclass(frozen=True)
class OutboxFacts:
    """How an outbox stands; `room` is how many entries it may hold."""

    path: Path
    waiting: int
    conflicts: int
    room: int
    set_aside: Sequence[Path] = ()


def check(patient: Patient) -> Iterator[Finding]:
    """Count what is in the outbox."""
    kept = Outbox.of(patient.settings)
    try:
        facts = OutboxFacts(
            kept.path,
            kept.count("waiting"),
            kept.count("conflict"),
            patient.settings.outbox_max_entries,
            kept.files_set_aside(),
        )
    except OutboxUnavailable as trouble:
        problem = f"{trouble}. What is submitted while Redis is away would be refused"
        yield error("outbox.unusable", str(kept.path), problem, "Make the file and its folder writable, or remove it")
        return
    yield from judge(facts)


def judge(facts: OutboxFacts) -> Iterator[Finding]:
    """Find what waits, what a person must decide, and what was damaged."""
    path = str(facts.path)
    if facts.waiting:
        problem = f"{facts.waiting} submissions wait on this machine and are in no ledger yet"
        yield warning("outbox.waiting", path, problem, "Bring Redis back, then run: labrelay outbox flush")
    if facts.conflicts:
        problem = f"{facts.conflicts} submissions were refused, because their sessions had been submitted otherwise"
        repair = "See `labrelay outbox list`, then drop them or `labrelay outbox flush --replace`"
        yield warning("outbox.conflicts", path, problem, repair)
    if facts.waiting + facts.conflicts >= facts.room * _NEARLY:
        problem = f"it holds {facts.waiting + facts.conflicts} of at most {facts.room}: then submits are refused"
        yield warning("outbox.nearly-full", path, problem, "Flush it, or raise LABRELAY_OUTBOX_MAX_ENTRIES")
    for damaged in facts.set_aside:
        yield error(
            "outbox.damaged",
            str(damaged),
            "this outbox was damaged and set aside: what it held was perhaps never delivered",
            "Submit the sessions of that time again (those that arrived are duplicates), then remove the file",
        )
