"""NexusLIMS's database: read as NexusLIMS reads it, written whole or not at all, and once."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from labrelay.errors import InvalidInput
from labrelay.nexuslims.database import (
    BUILT_NOT_EXPORTED,
    COMPLETED,
    DatabaseUnusable,
    LoggedSession,
    NexusDatabase,
)
from labrelay.nexuslims.records import Folders, context_of_session, find_record, move_uploaded
from labrelay.results import ExportResult

# The columns of NexusLIMS 2.8.0; tests/nexuslims has its own migrations make them.
SCHEMA = """
CREATE TABLE instruments (instrument_pid TEXT PRIMARY KEY, harvester TEXT, timezone TEXT);
CREATE TABLE session_log (id_session_log INTEGER PRIMARY KEY, session_identifier TEXT, instrument TEXT,
 timestamp TEXT, event_type TEXT, record_status TEXT, user TEXT);
CREATE TABLE upload_log (id INTEGER PRIMARY KEY, session_identifier TEXT NOT NULL, destination_name TEXT NOT NULL,
 success BOOLEAN NOT NULL, timestamp TEXT NOT NULL, record_id TEXT, record_url TEXT, error_message TEXT,
 metadata_json TEXT);
INSERT INTO instruments VALUES ('Titan', 'nemo', 'America/New_York'), ('JEM', 'sharepoint', 'UTC');
"""
URL = "https://nemo.example.com/api/usage_events/?id=7"


class Fixture:
    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def opened(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            yield connection

    def log(self, *rows: tuple[str, str, str, str, str, str | None]) -> None:
        query = (
            "INSERT INTO session_log (session_identifier, instrument, timestamp, event_type, record_status, user)"
            " VALUES (?, ?, ?, ?, ?, ?)"
        )
        with self.opened() as connection:
            connection.executemany(query, rows)

    def rows(self, query: str) -> list[tuple[object, ...]]:
        with self.opened() as connection:
            return connection.execute(query).fetchall()


@pytest.fixture
def database(tmp_path: Path) -> Fixture:
    fixture = Fixture(tmp_path / "nexuslims.db")
    with fixture.opened() as connection:
        connection.executescript(SCHEMA)
    return fixture


@pytest.fixture
def session(database: Fixture) -> LoggedSession:
    database.log(
        (URL, "Titan", "2026-11-02T10:00:00-05:00", "START", BUILT_NOT_EXPORTED, "alice"),
        (URL, "Titan", "2026-11-02T12:00:00-05:00", "END", BUILT_NOT_EXPORTED, "alice"),
        (URL, "Titan", "2026-11-02T12:30:00-05:00", "RECORD_GENERATION", BUILT_NOT_EXPORTED, "nexuslims"),
    )
    (found,) = NexusDatabase(database.path).sessions(BUILT_NOT_EXPORTED)
    return found


RESULT = ExportResult(success=True, destination_name="cdcs", record_id="7", record_url="https://h/7")


def test_a_session_is_its_start_and_its_newest_end(database: Fixture, session: LoggedSession) -> None:
    # Given a session with a second END, as duplicate harvests leave it
    database.log((URL, "Titan", "2026-11-02T13:00:00-05:00", "END", BUILT_NOT_EXPORTED, "alice"))
    # When it is read
    (found,) = NexusDatabase(database.path).sessions(BUILT_NOT_EXPORTED)
    # Then the later row counts, the record's generation does not, and times keep their offset
    assert found.started is not None
    assert found.ended is not None
    assert found.started.isoformat() == "2026-11-02T10:00:00-05:00"
    assert found.ended.hour == 13
    assert (found.user, found.harvester) == ("alice", "nemo")


def test_only_the_states_asked_for_are_read(database: Fixture, session: LoggedSession) -> None:
    database.log(("other", "JEM", "2026-11-02T10:00:00+00:00", "START", "ERROR", None))
    assert NexusDatabase(database.path).sessions(BUILT_NOT_EXPORTED) == [session]
    assert NexusDatabase(database.path).sessions(COMPLETED) == []


def test_a_time_without_offset_is_its_instruments(database: Fixture) -> None:
    database.log(("old", "Titan", "2026-07-02 10:00:00", "START", BUILT_NOT_EXPORTED, None))
    (found,) = NexusDatabase(database.path).sessions(BUILT_NOT_EXPORTED)
    assert found.started is not None
    assert found.started.isoformat() == "2026-07-02T10:00:00-04:00"
    assert found.ended is None


def test_an_outcome_is_written_once(database: Fixture, session: LoggedSession) -> None:
    nexus = NexusDatabase(database.path)
    # When an outcome is written twice, then there is one row of it and the status
    assert nexus.write_back(session, COMPLETED, [("mark", RESULT)]) == 1 + 3
    assert nexus.write_back(session, COMPLETED, [("mark", RESULT)]) == 0
    assert database.rows("SELECT destination_name, success, record_id FROM upload_log") == [("cdcs", 1, "7")]
    assert database.rows("SELECT DISTINCT record_status FROM session_log") == [(COMPLETED,)]
    # When another outcome comes, then it is another row
    assert nexus.write_back(session, None, [("later mark", RESULT)]) == 1


def test_a_write_that_fails_half_way_leaves_nothing(database: Fixture, session: LoggedSession) -> None:
    # Given a database that refuses the status after it took the row
    with database.opened() as connection:
        connection.execute("CREATE TRIGGER refuse BEFORE UPDATE ON session_log BEGIN SELECT RAISE(ABORT, 'no'); END")
    # When an outcome is written
    with pytest.raises(InvalidInput):
        NexusDatabase(database.path).write_back(session, COMPLETED, [("mark", RESULT)])
    # Then the row is not there either
    assert database.rows("SELECT * FROM upload_log") == []


def test_a_status_that_changed_meanwhile_is_left_alone(database: Fixture, session: LoggedSession) -> None:
    # Given a person who reset the session after it was read
    with database.opened() as connection:
        connection.execute("UPDATE session_log SET record_status = 'TO_BE_BUILT'")
    # When an outcome is written, then it is logged, and the person's status stays
    assert NexusDatabase(database.path).write_back(session, COMPLETED, [("mark", RESULT)]) == 1
    assert database.rows("SELECT DISTINCT record_status FROM session_log") == [("TO_BE_BUILT",)]


def test_a_locked_database_is_said_and_not_changed(database: Fixture, session: LoggedSession) -> None:
    # Given NexusLIMS writing for longer than is waited for
    nexus = NexusDatabase(database.path, busy_seconds=0.01)
    with database.opened() as other:
        other.execute("BEGIN EXCLUSIVE")
        # When it is read or written, then that is one clear line
        with pytest.raises(DatabaseUnusable, match="locked; nothing was changed"):
            nexus.write_back(session, COMPLETED, [("mark", RESULT)])
        with pytest.raises(DatabaseUnusable, match="locked"):
            nexus.sessions(BUILT_NOT_EXPORTED)
        other.execute("ROLLBACK")
    assert database.rows("SELECT * FROM upload_log") == []


def test_what_nexuslims_completed_itself_is_never_taken_back(database: Fixture, session: LoggedSession) -> None:
    nexus = NexusDatabase(database.path)
    # Given a completed session that NexusLIMS's own exporters delivered
    with database.opened() as connection:
        connection.execute("UPDATE session_log SET record_status = 'COMPLETED'")
        connection.execute(
            "INSERT INTO upload_log (session_identifier, destination_name, success, timestamp, metadata_json)"
            " VALUES (?, 'cdcs', 1, '2026-11-02T12:00:00', 'not json')",
            (URL,),
        )
    (completed,) = nexus.sessions(COMPLETED)
    assert list(nexus.own_successes(completed)) == ["cdcs"]
    # When an export of labrelay ended otherwise, then its status stays
    nexus.write_back(completed, BUILT_NOT_EXPORTED)
    assert nexus.sessions(COMPLETED) == [completed]


def test_what_is_no_database_of_nexuslims_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no such file"):
        NexusDatabase(tmp_path / "nowhere.db")
    (tmp_path / "empty.db").touch()
    with pytest.raises(InvalidInput, match="no database of NexusLIMS"):
        NexusDatabase(tmp_path / "empty.db").sessions(COMPLETED)


# --- records on disk -----------------------------------------------------------------------------------


def record(folder: Path, name: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("<x/>")
    return folder / name


def test_a_record_is_found_by_the_name_that_nexuslims_gives_it(tmp_path: Path, session: LoggedSession) -> None:
    # Given records of this session, of another instrument and of another number
    wanted = record(tmp_path / "r", "2026-11-02_Titan_7.xml")
    record(tmp_path / "r", "2026-11-02_JEM_7.xml")
    record(tmp_path / "r", "2026-11-02_Titan_17.xml")
    assert find_record(session, tmp_path / "r") == wanted


def test_a_record_of_another_time_zones_day_is_found(tmp_path: Path, session: LoggedSession) -> None:
    wanted = record(tmp_path / "r", "2026-11-03_Titan_7.xml")
    assert find_record(session, tmp_path / "r") == wanted
    # But of two such, none is guessed
    record(tmp_path / "r", "2026-11-04_Titan_7.xml")
    with pytest.raises(InvalidInput, match="2 records are called"):
        find_record(session, tmp_path / "r")


def test_a_session_of_another_harvester_is_found_by_the_first_part_of_its_name(tmp_path: Path) -> None:
    uuid = "1c3a5a8e-9e52-4d2a-8f0b-0123456789ab"
    session = LoggedSession(uuid, "JEM", BUILT_NOT_EXPORTED, None, None, harvester="sharepoint")
    wanted = record(tmp_path / "r", "2026-11-03_JEM_1c3a5a8e.xml")
    assert find_record(session, tmp_path / "r") == wanted


@pytest.mark.parametrize("name", ["../../etc", "*", "a/b"])
def test_a_strange_instrument_leads_nowhere(tmp_path: Path, name: str) -> None:
    record(tmp_path / "r", "2026-11-03_Titan_7.xml")
    session = LoggedSession(URL, name, BUILT_NOT_EXPORTED, None, None, harvester="nemo")
    with pytest.raises(InvalidInput):
        find_record(session, tmp_path / "r")


def test_a_session_without_an_end_is_refused_by_name(tmp_path: Path, database: Fixture) -> None:
    database.log((URL, "Titan", "2026-11-02T10:00:00-05:00", "START", BUILT_NOT_EXPORTED, None))
    (half,) = NexusDatabase(database.path).sessions(BUILT_NOT_EXPORTED)
    with pytest.raises(InvalidInput, match="no END"):
        context_of_session(half, Folders(tmp_path))


def test_an_exported_record_is_moved_as_nexuslims_does(tmp_path: Path, session: LoggedSession) -> None:
    moved = record(tmp_path / "r", "2026-11-02_Titan_7.xml")
    move_uploaded(session, Folders(tmp_path / "r"))
    assert not moved.exists()
    assert (tmp_path / "r" / "uploaded" / moved.name).exists()
    move_uploaded(session, Folders(tmp_path / "r"))  # a second time there is nothing to do


def test_the_folders_are_those_of_nexuslims() -> None:
    assert Folders.of({"NX_DATA_PATH": "/d"}).records == Path("/d/records")
    assert Folders.of({"NX_DATA_PATH": "/d", "NX_RECORDS_PATH": "/r"}).records == Path("/r")
    assert Folders.of({}, Path("/x")).instrument is None
    with pytest.raises(InvalidInput, match="NX_RECORDS_PATH"):
        Folders.of({"NX_INSTRUMENT_DATA_PATH": "/i"})
