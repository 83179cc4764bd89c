"""How the outbox's file keeps entries: one row each, and what they are when they are read."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from labrelay.errors import InvalidInput, NoSuchExport
from labrelay.ledger import Entry
from labrelay.priorities import Priority

OutboxState = Literal["waiting", "conflict"]


@dataclass(frozen=True)
class Waiting:
    """One entry on its way to the ledger."""

    number: int
    entry: Entry
    replace: bool
    submitted: float


class Spooled(BaseModel):
    """One entry as people read it."""

    model_config = ConfigDict(frozen=True)

    number: int
    export_id: str
    session_identifier: str
    instrument_pid: str
    strategy: str
    destinations: tuple[str, ...]
    replace: bool
    state: OutboxState
    reason: str = Field("", description="why it is a conflict")
    submitted: AwareDatetime
    bytes: int


#: Takes what `row_of` makes.
INSERT = """
INSERT INTO entries (state, bytes, export_id, digest, session, instrument, strategy, destinations, priority,
    replace, submitted, context)
VALUES ('waiting', :bytes, :export_id, :digest, :session, :instrument, :strategy, :destinations,
    :priority, :replace, :submitted, :context)
"""


def row_of(entry: Entry, *, replace: bool, submitted: float) -> dict[str, str | int | float]:
    """Return an entry as the file keeps it."""
    texts = {
        "export_id": entry.export_id,
        "digest": entry.digest,
        "session": entry.session,
        "instrument": entry.instrument,
        "strategy": entry.strategy,
        "destinations": json.dumps(entry.destinations),
        "priority": str(entry.priority),
        "context": entry.context,
    }
    size = sum(len(text.encode()) for text in texts.values())
    return {**texts, "bytes": size, "replace": int(replace), "submitted": submitted}


def waits_already(database: sqlite3.Connection, row: Mapping[str, str | int | float]) -> bool:
    """Return whether the export's latest entry says the same."""
    latest = database.execute(
        "SELECT digest, strategy, destinations, replace FROM entries "
        "WHERE export_id = ? AND state = 'waiting' ORDER BY number DESC LIMIT 1",
        (row["export_id"],),
    ).fetchone()
    return latest is not None and all(latest[name] == row[name] for name in latest.keys())  # noqa: SIM118  not a dict


def waiting_of(row: sqlite3.Row) -> Waiting:
    """Return a row as an entry on its way."""
    entry = Entry(
        export_id=row["export_id"],
        content=row["digest"],
        context=row["context"],
        session=row["session"],
        instrument=row["instrument"],
        strategy=row["strategy"],
        destinations=tuple(json.loads(row["destinations"])),
        priority=Priority(row["priority"]),
    )
    return Waiting(row["number"], entry, bool(row["replace"]), row["submitted"])


def spooled_of(row: sqlite3.Row) -> Spooled:
    """Return a row as people read it."""
    return Spooled(
        number=row["number"],
        export_id=row["export_id"],
        session_identifier=row["session"],
        instrument_pid=row["instrument"],
        strategy=row["strategy"],
        destinations=tuple(json.loads(row["destinations"])),
        replace=bool(row["replace"]),
        state=row["state"],
        reason=row["reason"],
        submitted=datetime.fromtimestamp(row["submitted"], UTC),
        bytes=row["bytes"],
    )


def all_numbers(database: sqlite3.Connection, state: OutboxState) -> list[int]:
    """Return the entries in a state."""
    return [number for (number,) in database.execute("SELECT number FROM entries WHERE state = ?", (state,))]


def numbers_of(database: sqlite3.Connection, ids: Sequence[str], state: OutboxState | None) -> list[int]:
    """Return the entries named, which must all be in the state asked for."""
    numbers: list[int] = []
    for named in ids:
        found = database.execute(
            "SELECT number, state FROM entries WHERE export_id = ?1 OR CAST(number AS TEXT) = ?1", (named,)
        ).fetchall()
        if not found:
            raise NoSuchExport(f"the outbox holds no {named}; `labrelay outbox list` shows what it holds")
        fitting = [number for number, of_one in found if state in (None, of_one)]
        if not fitting:
            raise InvalidInput(named, "still waits to be sent", "Flush it, or give it up with --waiting")
        numbers += fitting
    return numbers
