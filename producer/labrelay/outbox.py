"""The outbox: the producer's own queue on disk for when Redis is away.

An entry leaves it only after the ledger answered for it, or when a person drops it. A conflict is kept, with its
reason, until a person decides; it holds up nothing behind it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from labrelay.errors import NoSuchExport, OutboxFull
from labrelay.ledger import Entry
from labrelay.outbox_file import OutboxFile
from labrelay.outbox_rows import (
    INSERT,
    OutboxState,
    Spooled,
    Waiting,
    all_numbers,
    numbers_of,
    row_of,
    spooled_of,
    waiting_of,
    waits_already,
)
from labrelay.settings import ProducerSettings

#: What one step of a flush takes along at most.
_BATCH_ENTRIES, _BATCH_BYTES = 500, 8 * 2**20
_LOCK_SECONDS = 10.0

__all__ = ["Outbox", "OutboxState", "Spooled", "Waiting"]


class Outbox:
    """Keeps entries in order until they are settled. Threads and processes may share one.

    Parameters
    ----------
    path
        Its file; there is one only while something is in it.
    max_entries, max_bytes
        Bounds on what it holds.
    """

    def __init__(self, path: Path, *, max_entries: int = 10_000, max_bytes: int = 2**30) -> None:
        self._file = OutboxFile(path, _LOCK_SECONDS)
        self._max_entries, self._max_bytes = max_entries, max_bytes

    @classmethod
    def of(cls, settings: ProducerSettings) -> Outbox:
        """Return the outbox of this machine's settings."""
        return cls(
            settings.home / "outbox" / "outbox.sqlite3",
            max_entries=settings.outbox_max_entries,
            max_bytes=settings.outbox_max_bytes,
        )

    @property
    def path(self) -> Path:
        """The file."""
        return self._file.path

    @property
    def is_empty(self) -> bool:
        """Whether it surely holds nothing; asked at every submit, so nothing is opened or waited for."""
        return self._file.is_missing()

    def put(
        self, entries: Sequence[Entry], *, replace: bool, submitted: float, patience: float | None = None
    ) -> None:
        """Append entries, all or none; they are on disk when this returns.

        What waits already, unchanged, is not appended again: repeating a submit does not fill the outbox.

        Parameters
        ----------
        entries, replace
            What was submitted, and how.
        submitted
            When, in epoch seconds, before the ledger was first asked.
        patience
            Seconds to wait while others use the outbox.

        Raises
        ------
        OutboxFull
            They do not fit.
        OutboxUnavailable
            The file cannot be written.
        """

        def work(database: sqlite3.Connection) -> None:
            for entry in entries:
                row = row_of(entry, replace=replace, submitted=submitted)
                if not waits_already(database, row):
                    database.execute(INSERT, row)
            self._refuse_overflow(database)

        self._file.write(work, patience)

    def batch(self) -> list[Waiting]:
        """Return the next entries to send, oldest first, each export once (its revisions must not overtake)."""

        def work(database: sqlite3.Connection) -> list[Waiting]:
            taken: dict[str, Waiting] = {}
            size = 0
            for row in database.execute(
                "SELECT * FROM entries WHERE state = 'waiting' ORDER BY number LIMIT ?", (_BATCH_ENTRIES,)
            ):
                size += row["bytes"]
                if taken and (size > _BATCH_BYTES or row["export_id"] in taken):
                    break
                taken[row["export_id"]] = waiting_of(row)
            return list(taken.values())

        return self._file.read(work, [])

    def settle(self, done: Collection[int], conflicts: Mapping[int, str]) -> None:
        """Remove what the ledger answered for, and keep its refusals with their reasons."""

        def work(database: sqlite3.Connection) -> None:
            database.executemany("DELETE FROM entries WHERE number = ?", [(number,) for number in done])
            database.executemany(
                "UPDATE entries SET state = 'conflict', reason = ? WHERE number = ?",
                [(reason, number) for number, reason in conflicts.items()],
            )

        self._file.read(work, None)

    def count(self, state: OutboxState = "waiting") -> int:
        """Return how many entries are in a state."""

        def work(database: sqlite3.Connection) -> int:
            (found,) = database.execute("SELECT count(*) FROM entries WHERE state = ?", (state,)).fetchone()
            return int(found)

        return self._file.read(work, 0)

    def entries(self, export_ids: Collection[str] | None = None) -> list[Spooled]:
        """Return what it holds, of these exports or of all, oldest first."""

        def work(database: sqlite3.Connection) -> list[Spooled]:
            rows = database.execute(
                "SELECT number, state, reason, submitted, bytes, export_id, session, instrument, strategy, "
                "destinations, replace FROM entries "
                "WHERE ?1 IS NULL OR export_id IN (SELECT value FROM json_each(?1)) ORDER BY number",
                (None if export_ids is None else json.dumps(list(export_ids)),),
            )
            return [spooled_of(row) for row in rows]

        return self._file.read(work, [])

    def replace_conflicts(self, ids: Sequence[str], *, at: float) -> int:
        """Let conflicts go out again as new revisions: these (numbers or export ids), or all; answers how many."""

        def work(database: sqlite3.Connection) -> int:
            numbers = numbers_of(database, ids, "conflict") if ids else all_numbers(database, "conflict")
            database.executemany(
                "UPDATE entries SET state = 'waiting', replace = 1, reason = '', submitted = ? WHERE number = ?",
                [(at, number) for number in numbers],
            )
            return len(numbers)

        return self._file.read(work, 0)

    def drop(self, ids: Sequence[str], *, waiting: bool = False) -> int:
        """Remove conflicts (numbers or export ids) for good, and with `waiting` what was never sent.

        Raises
        ------
        NoSuchExport
            Nothing is kept under one of the ids; nothing was removed.
        InvalidInput
            It still waits to be sent, and `waiting` is not set; nothing was removed.
        """

        def work(database: sqlite3.Connection) -> int:
            numbers = numbers_of(database, ids, None if waiting else "conflict")
            database.executemany("DELETE FROM entries WHERE number = ?", [(number,) for number in numbers])
            return len(numbers)

        if ids and self.is_empty:
            raise NoSuchExport("the outbox is empty")
        return self._file.read(work, 0)

    @contextmanager
    def flush_turn(self, patience: float) -> Iterator[bool]:
        """Be the only one who flushes, or yield False: two at once would let revisions overtake each other."""
        if self.is_empty:
            yield True
            return
        with self._file.turn("flush", patience) as mine:
            yield mine

    def take_notices(self) -> tuple[str, ...]:
        """Return, once, what a person must know about files set aside."""
        notices, self._file.notices = tuple(self._file.notices), []
        return notices

    def files_set_aside(self) -> list[Path]:
        """Return the damaged files that were kept, oldest first."""
        return self._file.files_set_aside()

    def _refuse_overflow(self, database: sqlite3.Connection) -> None:
        count, size = database.execute("SELECT count(*), total(bytes) FROM entries").fetchone()
        if count <= self._max_entries and size <= self._max_bytes:
            return
        raise OutboxFull(
            f"the outbox {self.path} is full: these would make {count} entries of at most {self._max_entries}, and "
            f"{size / 2**20:.1f} MiB of at most {self._max_bytes / 2**20:g}. Bring Redis back and run `labrelay "
            "outbox flush`, drop conflicts (`labrelay outbox list`), or raise LABRELAY_OUTBOX_MAX_ENTRIES or "
            "LABRELAY_OUTBOX_MAX_BYTES; then submit again"
        )
