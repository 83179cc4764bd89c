"""Checks that somebody delivers, and that nothing waits for a person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, cast

from labrelay.doctor.findings import Finding, error, warning
from labrelay.errors import LedgerUnavailable, NotPermitted
from labrelay.ledger import Ledger, connect
from labrelay.results import UNFINISHED, ExportState, WorkerInfo

if TYPE_CHECKING:
    from labrelay.doctor.examining import Patient

#: Seconds after which what is due and untouched is told: a busy minute is nothing.
_OVERDUE_SECONDS = 300.0


@dataclass(frozen=True)
class LedgerFacts:
    """What the ledger says.

    Parameters
    ----------
    counts
        Exports by state.
    workers
        Worker processes seen lately.
    overdue, oldest
        Exports that should have been looked at long ago, and for how many seconds the oldest of them.
    version
        Of this installation.
    """

    counts: Mapping[ExportState, int]
    workers: Sequence[WorkerInfo]
    overdue: int = 0
    oldest: float = 0.0
    version: str = ""


def check(patient: Patient) -> Iterator[Finding]:
    """Read counts, due times and announcements."""
    keys = patient.settings.keys
    try:
        with connect(patient.settings) as client:
            ledger = Ledger(client, keys, patient.settings.wake_up_grace)
            with ledger.reachable():
                seconds = float(cast("tuple[int, int]", client.time())[0])
                late = (seconds - _OVERDUE_SECONDS) * 1000
                overdue = int(cast("int", client.zcount(keys.due, "-inf", late)))
                first = cast("list[tuple[str, float]]", client.zrange(keys.due, 0, 0, withscores=True))
            oldest = seconds - first[0][1] / 1000 if first else 0.0
            facts = LedgerFacts(ledger.counts(), ledger.workers(), overdue, oldest, version("labrelay"))
    except NotPermitted as trouble:
        raise LedgerUnavailable(str(trouble), reason="this user of Redis may not read the ledger") from None
    yield from judge(facts)


def judge(facts: LedgerFacts) -> Iterator[Finding]:
    """Find exports that nobody looks at, and workers that do not fit."""
    unfinished = sum(facts.counts.get(state, 0) for state in UNFINISHED)
    start = "Start one with `labrelay worker`, or its service; its log says why it ended"
    if not facts.workers:
        if unfinished:
            problem = f"no worker is running, and {unfinished} exports wait for one"
            yield error("worker.none", "workers", problem, start)
        else:
            yield warning("worker.none", "workers", "no worker is running; what is submitted would wait", start)
    elif facts.overdue:
        problem = f"{facts.overdue} exports are overdue, the oldest for {facts.oldest / 60:.0f} min"
        repair = "Start more workers, or look into the workers' logs for why they take none"
        yield warning("ledger.overdue", "ledger", problem, repair)
    for worker in facts.workers:
        if worker.version != facts.version:
            problem = f"it runs labrelay {worker.version}, and this is {facts.version}"
            repair = "Upgrade the older one: workers first, then producers"
            yield warning("worker.version", worker.name, problem, repair)
    dead = facts.counts.get(ExportState.DEAD, 0) + facts.counts.get(ExportState.UNKNOWN, 0)
    if dead:
        problem = f"{dead} exports do not go on by themselves"
        repair = "See `labrelay dead list`, then replay, settle or drop each"
        yield warning("ledger.dead-letters", "ledger", problem, repair)
