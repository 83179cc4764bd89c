"""`labrelay watch`: a real folder, a real Redis, real processes that are killed."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from labrelay.cli import main
from labrelay.inbox.memory import Memory
from labrelay.inbox.watching import FolderWatch, WatchEvent, WatchOptions

pytestmark = pytest.mark.integration


@pytest.fixture
def inbox(lab: Any) -> Path:
    folder = lab.folder / "inbox"
    folder.mkdir()
    return folder


def record_text(lab: Any, number: int, *, files: int = 1) -> str:
    """Return a record that a pipeline would write; its files are there."""
    context = lab.session(number, files=files)
    return json.dumps(
        {
            "xml_file_path": str(context.xml_file_path),
            "session_identifier": context.session_identifier,
            "instrument_pid": context.instrument_pid,
            "dt_from": context.dt_from.isoformat(),
            "dt_to": context.dt_to.isoformat(),
            "activities": [{"files": list(activity.files)} for activity in context.activities],
        }
    )


class Watched:
    """A watch with a clock of its own, in this process."""

    def __init__(self, lab: Any, inbox: Path, **options: Any) -> None:
        self.now, self.events = 0.0, list[WatchEvent]()
        self.client = lab.client()
        self.memory = Memory(lab.folder / "home" / "watch.sqlite", inbox)
        self.watch = FolderWatch(
            inbox, self.client, self.memory, WatchOptions(root=inbox, settle=10, **options),
            tell=self.events.append, clock=lambda: self.now,
        )  # fmt: skip

    def after(self, *seconds: float) -> list[tuple[str, str]]:
        """Look after so many seconds each, and return what was told since the last call."""
        self.events.clear()
        for step in seconds:
            self.now += step
            self.watch.look()
        return [(event.event, event.record) for event in self.events]

    def end(self) -> None:
        self.memory.close()
        self.client.close()


@pytest.fixture
def watching(lab: Any, inbox: Path) -> Iterator[Callable[..., Watched]]:
    """Return a function that begins to watch, as after a restart."""
    begun: list[Watched] = []

    def begin(**options: Any) -> Watched:
        begun.append(Watched(lab, inbox, **options))
        return begun[-1]

    yield begin
    for each in begun:
        each.end()


def submitted(lab: Any) -> int:
    with lab.client() as client:
        return sum(client.ledger.counts().values())


# --- when a record is complete -----------------------------------------------------------------------------


def test_a_record_waits_until_it_and_its_files_stand_still(lab, inbox, watching):
    # Given a record that is written in parts
    watched, text = watching(), record_text(lab, 1)
    path = inbox / "deep" / "session.json"
    path.parent.mkdir()
    path.write_text(text[:40])
    assert watched.after(0, 9) == []
    path.write_text(text)
    assert watched.after(9, 1) == []

    # When its image still grows
    with (lab.folder / "data" / "1" / "image 0.raw").open("ab") as image:
        image.write(b"more")
    assert watched.after(8, 9) == []
    assert submitted(lab) == 0

    # Then it is submitted once all of it stood still for the settling time, and never again
    assert watched.after(1) == [("submitted", "deep/session.json")]
    assert watched.after(100, 100) == []
    assert submitted(lab) == 1


@pytest.mark.parametrize("name", ["s.json.part", "s.json.crdownload", "s.json.tmp", ".s.json", "~$s.json", "s.txt"])
def test_partial_hidden_and_other_files_are_left_alone(lab, inbox, watching, name):
    (inbox / name).write_text(record_text(lab, 1))
    assert watching().after(0, 10, 10) == []


def test_a_file_with_a_partial_copy_beside_it_is_waited_for(lab, inbox, watching):
    # Given a record whose image is being copied under another name
    (inbox / "s.json").write_text(record_text(lab, 1))
    part = lab.folder / "data" / "1" / "image 0.raw.part"
    part.touch()
    watched = watching()

    # Then it waits, says so once, and goes on when the copy is done
    assert watched.after(0, 5, 10, 10, 10) == [("waiting", "")]
    part.unlink()
    assert watched.after(10) == [("submitted", "s.json")]


# --- what cannot be submitted --------------------------------------------------------------------------------


def test_a_refused_record_is_told_once_with_its_cure_and_tried_again_when_it_changes(lab, inbox, watching):
    # Given a record that is none
    path = inbox / "s.json"
    path.write_text("{ not json")
    watched = watching()
    assert watched.after(0, 5, 10) == [("refused", "s.json")]
    assert "JSON" in watched.events[0].said
    assert watched.after(50, 50) == []
    watched.end()

    # When the watch restarts, then it is not told again; when it is corrected, it is submitted
    watched = watching()
    assert watched.after(0, 5, 10, 10) == []
    path.write_text(record_text(lab, 1))
    assert watched.after(1, 5, 10) == [("submitted", "s.json")]


def test_a_record_whose_file_is_missing_is_tried_again_when_the_file_comes(lab, inbox, watching):
    (inbox / "s.json").write_text(record_text(lab, 1))
    image = lab.folder / "data" / "1" / "image 0.raw"
    content = image.read_bytes()
    image.unlink()
    watched = watching()
    assert watched.after(0, 5, 10) == [("refused", "s.json")]
    assert "image 0.raw" in watched.events[0].said
    image.write_bytes(content)
    assert watched.after(1, 5, 10) == [("submitted", "s.json")]


def test_a_submitted_record_that_changes_is_a_conflict_or_with_replace_a_revision(lab, inbox, watching):
    # Given a submitted record
    path, text = inbox / "s.json", record_text(lab, 1)
    path.write_text(text)
    watched = watching()
    assert watched.after(0, 5, 10) == [("submitted", "s.json")]

    # When it changes, then it is refused with the cure
    path.write_text(json.dumps(json.loads(text) | {"user": "alice"}))
    assert watched.after(1, 5, 10) == [("refused", "s.json")]
    assert "--replace" in watched.events[0].said
    watched.end()

    # When it is watched with replace, then it is the next revision
    watched = watching(replace=True)
    assert watched.after(0, 5, 10) == [("submitted", "s.json")]
    assert watched.events[0].outcome == "replaced"


def test_a_record_that_goes_before_it_was_submitted_is_told(lab, inbox, watching):
    path = inbox / "s.json"
    path.write_text(record_text(lab, 1))
    watched = watching()
    assert watched.after(0, 5) == []
    path.unlink()
    assert watched.after(1) == [("gone", "s.json")]


def test_one_odd_record_holds_up_no_other(lab, inbox, watching):
    (inbox / "a.json").write_bytes(b"\xff\xfe\x00")
    (inbox / "b.xml").write_text("<Experiment")
    (inbox / "c.json").write_text("[" * 100_000)
    (inbox / "d.json").write_text(record_text(lab, 1))
    told = watching().after(0, 5, 10)
    assert told == [("refused", "a.json"), ("refused", "b.xml"), ("refused", "c.json"), ("submitted", "d.json")]


def test_a_folder_that_goes_away_is_told_once_and_looked_for_again(lab, inbox, watching):
    (inbox / "s.json").write_text(record_text(lab, 1))
    watched = watching()
    away = inbox.rename(lab.folder / "unmounted")
    assert watched.after(0, 5, 10) == [("notice", "")]
    away.rename(inbox)
    assert watched.after(1, 5, 10) == [("submitted", "s.json")]


def test_a_damaged_memory_costs_a_duplicate_and_nothing_else(lab, inbox, watching):
    # Given a submitted record, and a memory that was overwritten
    (inbox / "s.json").write_text(record_text(lab, 1))
    watched = watching()
    assert watched.after(0, 5, 10) == [("submitted", "s.json")]
    watched.end()
    (lab.folder / "home" / "watch.sqlite").write_bytes(b"no database" * 1000)

    # When the watch restarts, then it says so, and the ledger knows the session
    watched = watching()
    assert "was damaged" in watched.events[0].said
    assert watched.after(0, 5, 10) == [("submitted", "s.json")]
    assert watched.events[-1].outcome == "duplicate"
    assert submitted(lab) == 1


# --- the command ---------------------------------------------------------------------------------------------


@pytest.fixture
def start(lab: Any, inbox: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Return a function that starts `labrelay watch`, ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "labrelay", "watch", str(inbox), "--settle", "0.5", "--json", *arguments]
        with (lab.folder / f"watch-{len(started)}.log").open("w") as log:
            started.append(
                subprocess.Popen(command, env=lab.environment, cwd=lab.folder, stdout=log, stderr=subprocess.STDOUT)
            )
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait(30)


def told(lab: Any, number: int) -> list[dict[str, Any]]:
    text = (lab.folder / f"watch-{number}.log").read_text()
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


def test_a_slow_pipeline_is_waited_for_and_sigterm_ends_the_watch_cleanly(lab, inbox, start):
    # Given a watch, and a record that is written piece by piece, more slowly than it settles
    process, text = start(), record_text(lab, 1)
    path = inbox / "s.json"
    seen = Memory(lab.folder / "home" / "watch.sqlite", inbox)
    pieces = [text[i : i + 60] for i in range(0, len(text), 60)]
    with path.open("w") as file:
        for piece in pieces[:-1]:
            file.write(piece)
            file.flush()
            size = path.stat().st_size
            lab.wait_until(lambda size=size: path.stat().st_size == size and "s.json" in seen.all(), what="a look")
        file.write(pieces[-1])
    lab.wait_until(lambda: submitted(lab) == 1, what="the submission")

    # When it is told to end
    lab.wait_until(lambda: told(lab, 0), what="its word")
    process.send_signal(signal.SIGTERM)

    # Then it ends well, having told of that one record alone
    assert process.wait(30) == 0
    assert [(event["event"], event["outcome"]) for event in told(lab, 0)] == [("submitted", "accepted")]
    assert seen.all()["s.json"].outcome == "accepted"
    seen.close()


@pytest.mark.faults
def test_killed_again_and_again_nothing_is_forgotten_and_nothing_delivered_twice(lab, inbox, start):
    # Given a watch that is killed while thirty records come in
    lab.recorder("archive")
    lab.start_worker()
    for number in range(30):
        (inbox / f"{number}.json").write_text(record_text(lab, number))
        if number % 6 == 5:
            process = start()
            before = submitted(lab)
            lab.wait_until(lambda before=before: submitted(lab) > before, what="a submission")
            process.kill()
            process.wait(30)

    # When it runs once more, to the end
    process = start()
    lab.wait_until(lambda: submitted(lab) == 30, what="every submission")
    memory = Memory(lab.folder / "home" / "watch.sqlite", inbox)
    lab.wait_until(lambda: all(one.is_submitted for one in memory.all().values()), what="all are remembered")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0

    # Then every record was delivered, each once
    assert len(memory.all()) == 30
    memory.close()
    with lab.client() as client:
        for export in client.ledger.recent(limit=100):
            client.wait(export.export_id, 60)
    accepted = [event["id"] for event in lab.events(event="accepted")]
    assert len(accepted) == len(set(accepted)) == 30


@pytest.mark.faults
def test_with_redis_away_records_go_to_the_outbox_and_on_when_it_is_back(lab, inbox, start):
    # Given a watch that has submitted once
    start()
    (inbox / "1.json").write_text(record_text(lab, 1))
    lab.wait_until(lambda: told(lab, 0), what="the first")

    # When Redis is killed, and another record comes
    lab.kill_redis()
    (inbox / "2.json").write_text(record_text(lab, 2))
    lab.wait_until(lambda: len(told(lab, 0)) > 1, what="the second")
    assert [event["outcome"] for event in told(lab, 0)] == ["accepted", "spooled"]

    # Then it arrives when Redis is back, without anybody's help
    with lab.redis:
        lab.wait_until(lambda: submitted(lab) == 2, 60, "the outbox is sent")


def test_once_submits_what_is_complete_and_says_what_is_not(lab, inbox):
    # Given a good record and a bad one
    (inbox / "good.json").write_text(record_text(lab, 1))
    (inbox / "bad.json").write_text("{}")
    arguments = ["watch", str(inbox), "--once", "--settle", "0.2"]

    # When the folder is gone through twice
    first, second = CliRunner().invoke(main, arguments), CliRunner().invoke(main, arguments)

    # Then the good one is submitted, the bad one told, and the exit code remembers it
    assert (first.exit_code, second.exit_code) == (1, 1)
    assert "submitted  good.json  accepted" in first.stdout
    assert "bad.json is refused" in second.stderr
    assert second.stdout == ""

    # And the list says so
    listed = json.loads(CliRunner().invoke(main, ["watch", str(inbox), "--list", "--json"]).stdout)
    assert {one["record"]: one["outcome"] for one in listed} == {"good.json": "accepted", "bad.json": "refused"}
    (inbox / "bad.json").unlink()
    assert CliRunner().invoke(main, arguments).exit_code == 0


def test_bad_input_is_one_line(lab, inbox, tmp_path):
    assert CliRunner().invoke(main, ["watch", str(tmp_path / "nowhere")]).exit_code == 2
    assert CliRunner().invoke(main, ["watch", str(inbox), "--strategy", "some"]).exit_code == 2


def test_a_memory_that_cannot_be_written_is_one_line(lab, inbox):
    (lab.folder / "home").write_text("a file where the folder should be")
    answer = CliRunner().invoke(main, ["watch", str(inbox), "--once"])
    assert (answer.exit_code, "LABRELAY_HOME" in answer.stderr) == (2, True)


def test_the_memory_is_for_its_owner_alone(lab, inbox):
    CliRunner().invoke(main, ["watch", str(inbox), "--once", "--settle", "0"])
    path = lab.folder / "home" / "watch.sqlite"
    assert path.stat().st_mode & 0o777 == 0o600
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA application_id").fetchone() == (0x4C527761,)
