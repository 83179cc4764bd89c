"""The outbox's file under misfortune: damage, full disks, other processes, other owners."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from ledgers import entry

from labrelay import outbox_file
from labrelay.errors import OutboxUnavailable
from labrelay.flushing import flush
from labrelay.outbox import Outbox

SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture
def outbox(tmp_path):
    return Outbox(tmp_path / "outbox" / "outbox.sqlite3")


def put(outbox, *entries):
    outbox.put(entries, replace=False, submitted=time.time())


def overwrite(path):
    path.write_bytes(b"this is not a database" * 300)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def scribble(path):
    data = bytearray(path.read_bytes())
    data[100:4096] = os.urandom(3996)
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [overwrite, cut, scribble])
def test_a_damaged_file_is_set_aside_named_and_kept_as_it_was(outbox, damage):
    # Given an outbox whose file was damaged
    put(outbox, *[entry(str(number), size=2000) for number in range(20)])
    damage(outbox.path)
    damaged = outbox.path.read_bytes()

    # When something is put in
    put(outbox, entry("new"))

    # Then it is kept in a new file, the damaged one byte for byte under another name, and both are named
    assert [spooled.session_identifier for spooled in outbox.entries()] == ["new"]
    (kept,) = outbox.files_set_aside()
    assert kept.read_bytes() == damaged
    (notice,) = outbox.take_notices()
    assert str(kept) in notice
    assert str(outbox.path) in notice
    assert outbox.take_notices() == ()


def test_files_damaged_within_one_second_are_all_kept(outbox):
    # Given a file that is damaged again and again
    for _ in range(3):
        overwrite_new(outbox)

    # Then none took the place of another
    assert len(outbox.files_set_aside()) == 3


def overwrite_new(outbox):
    outbox.path.parent.mkdir(exist_ok=True)
    overwrite(outbox.path)
    put(outbox, entry())


def test_the_journal_of_a_damaged_file_is_kept_with_it(outbox):
    # Given a damaged file with what a killed process left behind
    put(outbox, entry())
    overwrite(outbox.path)
    wal = outbox.path.with_name(outbox.path.name + "-wal")
    wal.write_bytes(b"journal")

    # When it is set aside, then the journal goes with it and does not reach the new file
    put(outbox, entry("new"))
    (kept,) = outbox.files_set_aside()
    assert kept.with_name(kept.name + "-wal").read_bytes() == b"journal"
    assert outbox.count() == 1


def test_a_full_disk_is_said_with_the_cure_and_leaves_nothing_by_halves(outbox, monkeypatch):
    # Given an outbox with one entry, on a disk that has no room for another
    put(outbox, entry("1"))
    real = sqlite3.connect

    def on_a_full_disk(*arguments, **options):
        connection = real(*arguments, **options)
        connection.execute("PRAGMA max_page_count = 8")
        return connection

    monkeypatch.setattr(outbox_file.sqlite3, "connect", on_a_full_disk)

    # When a large one is put in
    with pytest.raises(OutboxUnavailable, match="free space") as caught:
        put(outbox, entry("2"), entry("3", size=200_000))

    # Then the error names the file, and only the first is there
    assert str(outbox.path) in str(caught.value)
    monkeypatch.undo()
    assert [spooled.session_identifier for spooled in outbox.entries()] == ["1"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    # Given a home whose outbox folder is a file
    (tmp_path / "outbox").write_text("")

    # Then the error names the path and the way out
    with pytest.raises(OutboxUnavailable, match=r"outbox\.sqlite3.*LABRELAY_HOME"):
        put(Outbox(tmp_path / "outbox" / "outbox.sqlite3"), entry())


@pytest.mark.parametrize("use", [Outbox.count, Outbox.entries, lambda outbox: outbox.drop(["1"])])
def test_a_place_that_cannot_be_looked_at_is_named(tmp_path, use):
    # Given a home whose name no file system takes
    outbox = Outbox(tmp_path / ("x" * 300) / "outbox.sqlite3")

    # Then whoever reads it hears so, instead of that it is empty
    with pytest.raises(OutboxUnavailable, match=r"outbox\.sqlite3.*LABRELAY_HOME"):
        use(outbox)


@pytest.mark.parametrize("name", ["gate", "flush"])
def test_a_lock_that_cannot_be_taken_is_named(outbox, name):
    # Given an outbox one of whose locks is no file that we may write
    put(outbox, entry())
    lock = outbox.path.with_name(f"{name}.lock")
    lock.unlink(missing_ok=True)
    lock.mkdir()

    # Then a flush names it and the cure
    with pytest.raises(OutboxUnavailable, match=rf"{name}\.lock.*make its folder writable"):
        flush(outbox, lambda batch: [])


def test_the_database_of_another_program_is_not_touched(outbox):
    # Given a foreign database at the outbox's place
    outbox.path.parent.mkdir()
    connection = sqlite3.connect(outbox.path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.commit()
    connection.close()

    # Then it is refused and still there
    with pytest.raises(OutboxUnavailable, match="another program"):
        put(outbox, entry())
    assert outbox.files_set_aside() == []


def test_a_neighbour_that_hangs_with_the_outbox_in_hand_does_not_hang_us(outbox):
    # Given a process that holds the gate and does nothing
    put(outbox, entry())
    gate = sqlite3.connect(outbox.path.with_name("gate.lock"), isolation_level=None)
    gate.execute("BEGIN EXCLUSIVE")

    # When something is put in, then that ends while the other still has it, with the reason
    with pytest.raises(OutboxUnavailable, match=r"others have been using it.*end that one, or try again"):
        outbox.put([entry("2")], replace=False, submitted=0, patience=0.3)
    gate.close()
    put(outbox, entry("2"))


def test_threads_share_one_outbox(outbox):
    # Given eight threads that put in twenty entries each
    errors = []

    def work(name):
        try:
            for number in range(20):
                put(outbox, entry(f"{name}-{number}"))
        except OutboxUnavailable as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    # Then all are there
    assert errors == []
    assert outbox.count() == 160


_PUT = """
import sys, time
from pathlib import Path
from ledgers import entry
from labrelay.outbox import Outbox
outbox = Outbox(Path(sys.argv[1]))
for number in range(int(sys.argv[3])):
    outbox.put([entry(f"{sys.argv[2]}-{number}")], replace=False, submitted=time.time())
    print(number, flush=True)
"""


def start(outbox, name, count):
    return subprocess.Popen(
        [sys.executable, "-c", _PUT, str(outbox.path), name, str(count)],
        env=os.environ | {"PYTHONPATH": str(SUPPORT)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_processes_share_one_outbox(outbox):
    # Given four processes that put in fifty entries each, at once
    processes = [start(outbox, name, 50) for name in "abcd"]
    try:
        codes = [process.wait(60) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()

    # Then all are there, each process's in its order
    assert codes == [0, 0, 0, 0]
    sessions = [spooled.session_identifier for spooled in outbox.entries()]
    assert len(sessions) == 200
    for name in "abcd":
        assert [s for s in sessions if s.startswith(name)] == [f"{name}-{number}" for number in range(50)]


@pytest.mark.parametrize("wait_for", [1, 5, 20])
def test_a_process_killed_while_it_writes_loses_nothing_it_had_said(outbox, wait_for):
    # Given a process that says each number after its entry is kept
    process = start(outbox, "k", 10_000)
    try:
        said = -1
        while said < wait_for:
            said = int(process.stdout.readline())
    finally:
        # When it is killed
        process.kill()
        rest = process.communicate()[0].split()

    # Then everything it said is there, at most one more, and the file is whole
    last = int(rest[-1]) if rest else said
    sessions = [spooled.session_identifier for spooled in outbox.entries()]
    assert sessions in ([f"k-{n}" for n in range(last + 1)], [f"k-{n}" for n in range(last + 2)])
    assert outbox.files_set_aside() == []
    put(outbox, entry("after"))
