"""The outbox's file: one SQLite database that several processes share, and that survives being killed or damaged.

Everything happens under a gate, one access at a time across threads and processes: accesses are short, and so a
damaged file can be set aside while nobody else has it open (Windows could not rename it otherwise).
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from labrelay.errors import OutboxUnavailable

_logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Work = Callable[[sqlite3.Connection], Result]

_MAGIC = b"SQLite format 3\0"
_POLL_SECONDS = 0.002
_FORMAT = 1
#: Says "this is a labrelay outbox" in the file's header ("LRob").
_APPLICATION_ID = 0x4C526F62

#: Files of older releases have no such column; these leave it to its default, so the format stays the same.
_PRIORITY = "priority TEXT NOT NULL DEFAULT 'normal'"

_SCHEMA = f"""
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_FORMAT};
CREATE TABLE entries (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    state TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    export_id TEXT NOT NULL,
    digest TEXT NOT NULL,
    session TEXT NOT NULL,
    instrument TEXT NOT NULL,
    strategy TEXT NOT NULL,
    destinations TEXT NOT NULL,
    {_PRIORITY},
    replace INTEGER NOT NULL,
    submitted REAL NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    context TEXT NOT NULL
);
CREATE INDEX entries_by_state ON entries (state, bytes);
CREATE INDEX entries_by_export ON entries (export_id);
"""

_CURES = {
    sqlite3.SQLITE_FULL: "free space on its disk",
    sqlite3.SQLITE_BUSY: "another process holds it; end that one, or try again",
    sqlite3.SQLITE_READONLY: "make it writable",
    sqlite3.SQLITE_CANTOPEN: "make its folder writable",
}


class OutboxFile:
    """Runs work on the database, each in one durable transaction.

    Parameters
    ----------
    path
        The database; it is made when something is put in, and removed when nothing is left.
    patience
        Seconds to wait while others use it.
    """

    def __init__(self, path: Path, patience: float) -> None:
        self.path = path
        self._patience = patience
        #: What a person must know about files set aside by this object.
        self.notices: list[str] = []

    def is_missing(self) -> bool:
        """Return whether there surely is no file; one that cannot be seen may be there."""
        try:
            os.stat(self.path)  # noqa: PTH116  at half the cost of `Path.stat`
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False
        return False

    def write(self, work: Work[Result], patience: float | None = None) -> Result:
        """Run work in a transaction that is on disk when this returns, or leaves no trace.

        Raises
        ------
        OutboxUnavailable
            The disk is full, or the file cannot be used; the text names it and the cure.
        """
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._gate(self._patience if patience is None else patience):
                try:
                    return self._transact(work)
                except sqlite3.DatabaseError as error:
                    if not _is_corrupt(error):
                        raise
                    self._set_aside(error)
                    return self._transact(work)
        except (sqlite3.Error, OSError) as error:
            raise OutboxUnavailable(f"the outbox {self.path} cannot be used ({error}): {_cure(error)}") from error

    def read(self, work: Work[Result], otherwise: Result) -> Result:
        """Run work as `write` does; without a file there is nothing to read, and none is made."""
        return otherwise if self.is_missing() else self.write(work)

    @contextmanager
    def turn(self, name: str, patience: float) -> Iterator[bool]:
        """Hold a lock that others cannot take, or yield False; it ends with its process however that dies.

        An exclusive transaction on an empty SQLite file is such a lock on every platform.

        Raises
        ------
        OutboxUnavailable
            The lock's own file cannot be used, because it belongs to another user for instance.
        """
        path = self.path.with_name(f"{name}.lock")
        with ExitStack() as stack:
            try:
                lock = stack.enter_context(closing(sqlite3.connect(path, timeout=0, isolation_level=None)))
                mine = _begin_exclusive(lock, patience)
            except sqlite3.Error as error:
                raise OutboxUnavailable(f"the outbox's {path} cannot be used ({error}): {_cure(error)}") from error
            yield mine

    def files_set_aside(self) -> list[Path]:
        """Return the damaged files that were kept, oldest first."""
        return sorted(self.path.parent.glob(f"{self.path.stem}.corrupt-*{self.path.suffix}"))

    @contextmanager
    def _gate(self, patience: float) -> Iterator[None]:
        with self.turn("gate", patience) as mine:
            if not mine:
                error = sqlite3.OperationalError(f"others have been using it for {patience:.1f} s")
                error.sqlite_errorcode = sqlite3.SQLITE_BUSY
                raise error
            yield

    def _transact(self, work: Work[Result]) -> Result:
        if self.path.exists():
            # SQLite would tidy up the journal of a file that it then cannot read.
            _refuse_foreign(self.path)
        else:
            # SQLite gives its other files the mode of this one.
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        with closing(sqlite3.connect(self.path, timeout=self._patience, isolation_level=None)) as database:
            database.row_factory = sqlite3.Row
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            # macOS: what is asked to be on disk is otherwise only in the drive's cache.
            database.execute("PRAGMA fullfsync = ON")
            # Closing without a commit leaves no trace.
            database.execute("BEGIN")
            self._prepare(database)
            result = work(database)
            (empty,) = database.execute("SELECT NOT EXISTS (SELECT * FROM entries)").fetchone()
            database.execute("COMMIT")
        if empty:
            self._remove()
        return result

    def _remove(self) -> None:
        """Remove the file when nothing is in it: a submit need not open it, and old contexts do not linger in it."""
        # Windows refuses while a person looks into it with another program; it is removed another time.
        with suppress(PermissionError):
            for part in ("", "-wal", "-shm"):
                Path(f"{self.path}{part}").unlink(missing_ok=True)

    def _prepare(self, database: sqlite3.Connection) -> None:
        (application,) = database.execute("PRAGMA application_id").fetchone()
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if (application, version) == (_APPLICATION_ID, _FORMAT):
            columns = {name for _, name, *_ in database.execute("PRAGMA table_info(entries)")}
            if "priority" not in columns:
                database.execute(f"ALTER TABLE entries ADD COLUMN {_PRIORITY}")
            return
        if application == _APPLICATION_ID:
            msg = f"it has format {version}, which a newer labrelay wrote; use that one"
            raise OutboxUnavailable(f"the outbox {self.path} cannot be used: {msg}")
        if database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise OutboxUnavailable(f"{self.path} belongs to another program: move it away")
        for statement in _SCHEMA.split(";"):
            database.execute(statement)

    def _set_aside(self, error: sqlite3.DatabaseError) -> None:
        """Rename the damaged file with its journal; the journal first, lest a new file adopts or deletes it."""
        stamp, number = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}", 0
        while True:
            suffix = f"-{number}" if number else ""
            kept = self.path.with_name(f"{self.path.stem}.corrupt-{stamp}{suffix}{self.path.suffix}")
            if not any(Path(f"{kept}{part}").exists() for part in ("", "-wal", "-shm")):
                break
            number += 1
        for part in ("-wal", "-shm", ""):
            source = Path(f"{self.path}{part}")
            if source.exists():
                source.rename(f"{kept}{part}")
        notice = (
            f"the outbox {self.path} was damaged ({error}) and is kept as {kept}; a new one is begun. "
            "Submit again what it may have held (that is harmless), or recover it with SQLite's tools"
        )
        _logger.error(notice)
        self.notices.append(notice)


def _begin_exclusive(lock: sqlite3.Connection, patience: float) -> bool:
    # SQLite's own waiting grows to steps of 100 ms, in which a busy neighbour takes every turn.
    deadline = time.monotonic() + patience
    while True:
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            if _code(error) != sqlite3.SQLITE_BUSY:
                raise
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)
        else:
            return True


def _refuse_foreign(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(len(_MAGIC))
    if start not in (b"", _MAGIC):
        error = sqlite3.DatabaseError("file is not a database")
        error.sqlite_errorcode = sqlite3.SQLITE_NOTADB
        raise error


def _code(error: BaseException) -> int:
    # The low byte is the primary code; the rest refines it.
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _is_corrupt(error: BaseException) -> bool:
    return _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _cure(error: BaseException) -> str:
    return f"{_CURES.get(_code(error), 'repair it')}, or give LABRELAY_HOME a place that works"
