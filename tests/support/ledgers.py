"""A ledger in memory that behaves like the Lua one, and misbehaves on request: for tests without a Redis."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

from labrelay.errors import LedgerUnavailable
from labrelay.ledger import Answer, Entry
from labrelay.results import ExportState

ENDED = (ExportState.DEAD, ExportState.CANCELLED, ExportState.UNKNOWN)


def entry(session: str = "s", content: str = "a", *, size: int = 0) -> Entry:
    """Return an entry; the same session is the same export, the same content the same digest."""
    context = content + "." * size
    return Entry(f"id-{session}", f"digest-{content}", context, session, "FEI-Titan", "", ())


@dataclass
class Row:
    digest: str
    revision: int = 1
    state: ExportState = ExportState.QUEUED
    created: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass
class MemoryLedger:
    """How it answers is set by `mode`: ``up``, ``away``, ``lost`` (it writes, the answer is lost) or ``silent``."""

    mode: str = "up"
    rows: dict[str, Row] = field(default_factory=dict)
    received: list[str] = field(default_factory=list)
    thaw: threading.Event = field(default_factory=threading.Event)

    def submit(self, entries: Sequence[Entry], *, replace: bool) -> list[Answer]:
        if self.mode == "silent":
            self.thaw.wait(10)
        if self.mode == "away":
            raise LedgerUnavailable("Redis is off", reason="off")
        answers = [self._one(each, replace) for each in entries]
        if self.mode == "lost":
            raise LedgerUnavailable("the answer is lost", reason="lost")
        return answers

    def submit_here(self, entries: Sequence[Entry], seconds: float, *, replace: bool) -> None:
        """No connection is ready."""

    def _one(self, each: Entry, replace: bool) -> Answer:
        self.received.append(each.context)
        row = self.rows.get(each.export_id)
        if row is None:
            self.rows[each.export_id] = Row(each.digest)
            return Answer("accepted", ExportState.QUEUED, 1, "", to_ring=1)
        same = row.digest == each.digest
        if same and not (replace and row.state in ENDED):
            return Answer("duplicate", row.state, row.revision, "", to_ring=int(row.state is ExportState.QUEUED))
        if not replace:
            return Answer("conflict", row.state, row.revision, "content")
        self.rows[each.export_id] = Row(each.digest, row.revision + 1)
        return Answer("replaced", ExportState.QUEUED, row.revision + 1, "", to_ring=1)

    def end(self, export_id: str, state: ExportState, *, ago: float = 0.0) -> None:
        """Let an export end; it was made so many seconds ago."""
        row = self.rows[export_id]
        row.state, row.created = state, datetime.now(UTC) - timedelta(seconds=ago)

    def status(self, export_id: str) -> Row:
        return self.rows[export_id]

    def workers(self) -> list[object]:
        if self.mode == "silent":
            self.thaw.wait(10)
        if self.mode == "away":
            raise LedgerUnavailable("Redis is off", reason="off")
        return []


class MemoryLink:
    """The connections of a client, to a ledger in memory."""

    def __init__(self, ledger: MemoryLedger) -> None:
        self.ledger = ledger
        self.woken: list[str] = []
        self.wake_ups = SimpleNamespace(ring=lambda _, wakes: self.woken.extend(w.export_id for w in wakes))
