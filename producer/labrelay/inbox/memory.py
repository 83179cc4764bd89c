"""What watched folders held and what became of it, across restarts: a small SQLite file in ``LABRELAY_HOME``.

It saves work and repeats no report; it is not what keeps a session from being delivered twice. That is the export
id, which is the same for the same session, so a lost or damaged file costs a few submits that say ``duplicate``.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from labrelay.errors import InvalidInput
from labrelay.inbox.looking import Stand

_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    folder TEXT NOT NULL,
    record TEXT NOT NULL,
    size INTEGER,
    mtime_ns INTEGER,
    outcome TEXT NOT NULL,
    export_ids TEXT NOT NULL,
    files TEXT NOT NULL,
    reason TEXT NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (folder, record)
) WITHOUT ROWID;
"""
#: Says "this is a labrelay watch" in the file's header ("LRwa").
_APPLICATION_ID = 0x4C527761


class Remembered(BaseModel):
    """One record of a watched folder.

    Parameters
    ----------
    outcome
        ``seen``: not complete yet; ``accepted``, ``duplicate``, ``replaced``, ``spooled``: submitted; ``refused``:
        it cannot be, until it changes.
    files
        Of a refused one: the files that it names, each as it stood.
    """

    model_config = ConfigDict(frozen=True)

    record: str
    stand: Stand
    outcome: str
    export_ids: tuple[str, ...] = ()
    files: dict[str, Stand] = {}
    reason: str = ""
    at: float = 0.0

    @property
    def is_submitted(self) -> bool:
        """Whether labrelay has it."""
        return self.outcome not in ("seen", "refused")


class Memory:
    """The memory of one watched folder.

    Parameters
    ----------
    path
        The SQLite file, shared by all watched folders of this machine.
    folder
        The folder.

    Raises
    ------
    InvalidInput
        From every method: the file cannot be used; the text says what to do.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        self._path, self._folder = path, str(folder)
        #: Why the memory begins anew; empty: it does not.
        self.notice = ""
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._database = self._open()
        except (sqlite3.Error, OSError) as error:
            raise self._unusable(error) from None

    def all(self) -> dict[str, Remembered]:
        """Return what is remembered, by record."""
        with self._explained():
            rows = self._database.execute("SELECT * FROM records WHERE folder = ?", (self._folder,)).fetchall()
        return {row["record"]: _remembered(row) for row in rows}

    def put(self, what: Remembered) -> Remembered:
        """Remember how a record stands; it is on the disk when this returns."""
        what = what.model_copy(update={"at": time.time()})
        size, mtime = what.stand or (None, None)
        with self._explained():
            self._database.execute(
                "INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    self._folder, what.record, size, mtime, what.outcome, json.dumps(what.export_ids),
                    json.dumps(what.files), what.reason, what.at,
                ),
            )  # fmt: skip
        return what

    def forget(self, records: Sequence[str]) -> None:
        """Forget records that are not there any more."""
        with self._explained():
            self._database.executemany(
                "DELETE FROM records WHERE folder = ? AND record = ?", [(self._folder, name) for name in records]
            )

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise
            kept = self._path.with_name(f"{self._path.stem}.corrupt-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.sqlite")
            self._path.rename(kept)
            Path(f"{self._path}-journal").unlink(missing_ok=True)
            self.notice = f"{self._path} was damaged ({error}) and is kept as {kept}; every record is looked at anew"
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, timeout=10, isolation_level=None)
        try:
            with suppress(OSError):
                self._path.chmod(0o600)
            database.row_factory = sqlite3.Row
            database.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            database.execute(_SCHEMA)
            with closing(database.execute("PRAGMA quick_check")) as answer:
                if (said := answer.fetchone()[0]) != "ok":
                    error = sqlite3.DatabaseError(said)
                    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
                    raise error
        except sqlite3.Error:
            database.close()
            raise
        return database

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._unusable(error) from None

    def _unusable(self, error: Exception) -> InvalidInput:
        return InvalidInput(
            "LABRELAY_HOME",
            f"{self._path} cannot be used ({error})",
            "Make room there, make it writable, or set LABRELAY_HOME to a folder that is",
        )


def _remembered(row: sqlite3.Row) -> Remembered:
    return Remembered(
        record=row["record"],
        stand=None if row["size"] is None else (row["size"], row["mtime_ns"]),
        outcome=row["outcome"],
        export_ids=tuple(json.loads(row["export_ids"])),
        files=json.loads(row["files"]),
        reason=row["reason"],
        at=row["at"],
    )
