"""NexusLIMS's SQLite database: which sessions it built and did not export, and what may be written back.

Tables and columns are those of NexusLIMS 2.8.0 (``nexusLIMS/db/models.py``). Reading opens the file read-only;
writing is one short transaction per session, so that NexusLIMS is never kept waiting for long.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo

from labrelay.errors import InvalidInput, LabrelayError
from labrelay.results import ExportResult

BUILT_NOT_EXPORTED = "BUILT_NOT_EXPORTED"
COMPLETED = "COMPLETED"
#: Name under which a row of ``upload_log`` says which outcome it is, so that it is written once.
MARK = "labrelay_outcome"

_BUSY_SECONDS = 5.0
_SESSIONS = """
SELECT log.session_identifier, log.instrument, log.event_type, log.timestamp, log.user, log.record_status,
       instruments.harvester, instruments.timezone
FROM session_log AS log LEFT JOIN instruments ON instruments.instrument_pid = log.instrument
WHERE log.event_type IN ('START', 'END') AND log.record_status IN ({states})
ORDER BY log.id_session_log
"""


@dataclass(frozen=True)
class LoggedSession:
    """One session of the database: a START row and the newest END row of the same name, instrument and user."""

    identifier: str
    instrument: str
    status: str
    started: datetime | None
    ended: datetime | None
    user: str | None = None
    harvester: str = ""


class DatabaseUnusable(LabrelayError):
    """NexusLIMS's database cannot be used now; nothing was changed in it."""


class NexusDatabase:
    """NexusLIMS's database.

    Parameters
    ----------
    path
        The file of ``NX_DB_PATH``.
    busy_seconds
        How long to wait for a lock.

    Raises
    ------
    InvalidInput
        There is no such file.
    """

    def __init__(self, path: Path, *, busy_seconds: float = _BUSY_SECONDS) -> None:
        if not path.is_file():
            raise InvalidInput("db_path", f"no such file {path}", "Give the file of NX_DB_PATH")
        self._path, self._busy_seconds = path.absolute(), busy_seconds

    def sessions(self, *states: str) -> list[LoggedSession]:
        """Return the sessions in any of these states, oldest row first.

        Raises
        ------
        InvalidInput
            It is not NexusLIMS's database.
        DatabaseUnusable
            It is locked for longer than it is waited for, or damaged.
        """
        query = _SESSIONS.format(states=", ".join("?" for _ in states))
        with self._opened("ro") as connection:
            rows = connection.execute(query, states).fetchall()
        found: dict[tuple[str, str], LoggedSession] = {}
        for identifier, instrument, event, timestamp, user, status, harvester, timezone in rows:
            at = _time(timestamp, timezone)
            known = found.get((identifier, instrument))
            started, ended = (known.started, known.ended) if known else (None, None)
            if event == "START":
                started = started or at
            else:
                ended = at  # NexusLIMS, too, takes the newest of several
            found[identifier, instrument] = LoggedSession(
                identifier, instrument, status, started, ended, (known and known.user) or user, harvester or ""
            )
        return list(found.values())

    def own_successes(self, session: LoggedSession) -> dict[str, ExportResult]:
        """Return what NexusLIMS's own exporters delivered of a session, by destination.

        Raises
        ------
        InvalidInput
            The database has no ``upload_log``.
        DatabaseUnusable
            It is locked.
        """
        with self._opened("ro") as connection:
            return {result.destination_name: result for result in _own_successes(connection, session.identifier)}

    def write_back(
        self, session: LoggedSession, status: str | None, outcomes: Sequence[tuple[str, ExportResult]] = ()
    ) -> int:
        """Add outcomes to ``upload_log`` that are not there, and change the session's status: both or neither.

        Parameters
        ----------
        session
            As it was read. If its status is another one by now, it is left as it is.
        status
            The new one; None: leave it.
        outcomes
            Results, each with the mark that makes it this outcome and no other.

        Returns
        -------
        int
            Rows written or changed; 0 when everything was there.
        """
        with self._opened("rw") as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                written = sum(_log_once(connection, session.identifier, mark, result) for mark, result in outcomes)
                if status == BUILT_NOT_EXPORTED and _own_successes(connection, session.identifier):
                    status = None  # NexusLIMS delivered it: its COMPLETED is none of ours
                if status is not None:
                    written += connection.execute(
                        "UPDATE session_log SET record_status = ?"
                        " WHERE session_identifier = ? AND instrument = ? AND record_status = ?",
                        (status, session.identifier, session.instrument, session.status),
                    ).rowcount
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise
        return written

    @contextmanager
    def _opened(self, mode: str) -> Iterator[sqlite3.Connection]:
        try:
            with closing(
                sqlite3.connect(
                    f"{self._path.as_uri()}?mode={mode}", uri=True, timeout=self._busy_seconds, isolation_level=None
                )
            ) as connection:
                yield connection
        except sqlite3.OperationalError as error:
            if "no such" in str(error):
                raise InvalidInput(
                    "db_path", f"{self._path} is no database of NexusLIMS 2.4 or newer ({error})",
                    "Give the file of NX_DB_PATH, or migrate it with `nexuslims db upgrade`",
                ) from None  # fmt: skip
            raise DatabaseUnusable(f"{self._path}: {error}; nothing was changed, run it again") from None
        except sqlite3.DatabaseError as error:
            raise InvalidInput("db_path", f"{self._path}: {error}", "Give the file of NX_DB_PATH") from None


def _log_once(connection: sqlite3.Connection, identifier: str, mark: str, result: ExportResult) -> int:
    rows = connection.execute(
        "SELECT metadata_json FROM upload_log WHERE session_identifier = ? AND destination_name = ?",
        (identifier, result.destination_name),
    )
    if any(_mark_of(metadata) == mark for (metadata,) in rows):
        return 0
    connection.execute(
        "INSERT INTO upload_log (session_identifier, destination_name, success, timestamp, record_id, record_url,"
        " error_message, metadata_json) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            identifier,
            result.destination_name,
            result.success,
            result.timestamp.isoformat(),
            result.record_id,
            result.record_url,
            result.error_message,
            json.dumps({**result.metadata, MARK: mark}),
        ),
    )
    return 1


def _own_successes(connection: sqlite3.Connection, identifier: str) -> list[ExportResult]:
    """Return what NexusLIMS's own exporters delivered of a session."""
    rows = connection.execute(
        "SELECT destination_name, record_id, record_url, metadata_json FROM upload_log"
        " WHERE session_identifier = ? AND success ORDER BY id",
        (identifier,),
    )
    return [
        ExportResult(success=True, destination_name=name, record_id=record_id, record_url=record_url)
        for name, record_id, record_url, metadata in rows
        if _mark_of(metadata) is None
    ]


def _mark_of(metadata: str | None) -> str | None:
    try:
        value = json.loads(metadata or "{}")
    except ValueError:
        return None
    mark = value.get(MARK) if isinstance(value, dict) else None
    return mark if isinstance(mark, str) else None


def _time(text: str | None, timezone: str | None) -> datetime | None:
    """Return a time as NexusLIMS wrote it; one without a zone is its instrument's."""
    try:
        time = datetime.fromisoformat(text or "")
        zone: tzinfo | None = time.tzinfo or ZoneInfo(timezone or "")
    except (ValueError, KeyError, OSError):
        return None
    return time.replace(tzinfo=zone)
