"""Which priority an export gets, and how people say and see it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import fakeredis
import pytest
from click.testing import CliRunner

from labrelay.cli import main
from labrelay.client import Client
from labrelay.context import ExportContext
from labrelay.errors import InvalidInput
from labrelay.ledger import Entry
from labrelay.priorities import Priority, parse_priority, priority_of
from labrelay.settings import ProducerSettings
from labrelay.wakeups import WakeUps

Build = Callable[..., ExportContext]


@pytest.fixture
def make_context(make_context: Build, tmp_path: Path) -> Build:
    """Build contexts whose record exists."""
    record = tmp_path / "record.xml"
    record.write_text("<Experiment/>")
    return lambda **fields: make_context(xml_file_path=record, **fields)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Client]:
    server = fakeredis.FakeRedis(decode_responses=True)
    monkeypatch.setattr("labrelay.link.connect", lambda _: server)
    monkeypatch.setattr(WakeUps, "ring", lambda *_, **__: None)
    monkeypatch.setattr(server, "close", lambda: None)
    monkeypatch.setenv("LABRELAY_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("LABRELAY_HOME", str(tmp_path))
    monkeypatch.setenv("LABRELAY_SETTLE_SECONDS", "0")
    with Client() as client:
        yield client


def test_the_order_of_the_queues_is_urgent_normal_bulk() -> None:
    assert [priority.value for priority in sorted(Priority, key=lambda p: p.rank)] == ["urgent", "normal", "bulk"]


def test_a_misspelled_priority_names_the_nearest() -> None:
    with pytest.raises(InvalidInput, match=r"there is no priority 'urgnet'.*Did you mean urgent"):
        parse_priority("urgnet")


def test_the_first_pattern_that_matches_the_instrument_counts() -> None:
    table = {"FEI-Titan*": Priority.URGENT, "FEI-*": Priority.BULK}
    assert priority_of("FEI-Titan-TEM", table, Priority.NORMAL) is Priority.URGENT
    assert priority_of("FEI-Quanta", table, Priority.NORMAL) is Priority.BULK
    assert priority_of("JEOL", table, Priority.NORMAL) is Priority.NORMAL


def test_one_session_is_normal_and_several_at_once_are_bulk(client: Client, make_context: Build) -> None:
    # When one session and then several are submitted without a word
    one = client.submit(make_context(session_identifier="one"))
    many = client.submit_many([make_context(session_identifier=f"many-{n}") for n in range(2)])
    # Then those that come together go last
    assert client.status(one.export_id).priority is Priority.NORMAL
    assert {client.status(each.export_id).priority for each in many} == {Priority.BULK}


def test_what_the_submitter_says_counts_before_the_settings(client: Client, make_context: Build) -> None:
    # Given settings that make an instrument's exports urgent
    with Client(ProducerSettings(priorities={"*": Priority.URGENT})) as settled:
        by_settings = settled.submit(make_context(session_identifier="by settings"))
        by_hand = settled.submit(make_context(session_identifier="by hand"), priority="bulk")
        # Then they are, unless the submitter says otherwise
        assert settled.status(by_settings.export_id).priority is Priority.URGENT
        assert settled.status(by_hand.export_id).priority is Priority.BULK


def test_a_misspelled_priority_accepts_nothing(client: Client, make_context: Build) -> None:
    with pytest.raises(InvalidInput, match="no priority"):
        client.submit(make_context(), priority="asap")
    assert client.ledger.backlog().unfinished == 0


def test_the_command_line_says_and_shows_it(client: Client, make_context: Build, tmp_path: Path) -> None:
    # Given a context in a file
    file = tmp_path / "context.json"
    file.write_text(make_context().to_json())
    # When it is submitted as urgent
    done = CliRunner().invoke(main, ["submit", str(file), "--priority", "urgent"])
    assert done.exit_code == 0, done.output
    # Then the list and the status say so
    assert "urgent" in CliRunner().invoke(main, ["list"]).output
    assert "(urgent)" in CliRunner().invoke(main, ["status", make_context().export_id]).output
    # And so do programs hear it
    (listed,) = json.loads(CliRunner().invoke(main, ["list", "--json"]).stdout)
    told = json.loads(CliRunner().invoke(main, ["status", make_context().export_id, "--json"]).stdout)
    assert listed["priority"] == told["priority"] == "urgent"


@pytest.mark.parametrize(
    ("sessions", "options", "settings", "priority"),
    [
        (1, [], "{}", "normal"),
        (2, [], "{}", "bulk"),
        (2, [], '{"*": "urgent"}', "urgent"),
        (1, ["--priority", "bulk"], '{"*": "urgent"}', "bulk"),
    ],
)
def test_a_plan_tells_the_priority_that_the_export_then_gets(
    client: Client,
    make_context: Build,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sessions: int,
    options: list[str],
    settings: str,
    priority: str,
) -> None:
    # Given a file with sessions
    monkeypatch.setenv("LABRELAY_PRIORITIES", settings)
    file = tmp_path / "contexts.jsonl"
    file.write_text("".join(make_context(session_identifier=str(n)).to_json() + "\n" for n in range(sessions)))

    # When its plan is made, and it is submitted
    table = CliRunner().invoke(main, ["plan", str(file), *options])
    plans = json.loads(CliRunner().invoke(main, ["plan", str(file), "--json", *options]).stdout)
    submitted = CliRunner().invoke(main, ["submit", str(file), *options])
    assert (table.exit_code, submitted.exit_code) == (0, 0), table.output + submitted.output

    # Then the plan said what it got
    assert f"taken as {priority}" in table.output
    assert [plan["priority"] for plan in plans] == [priority] * sessions
    assert {each.priority for each in client.ledger.recent()} == {Priority(priority)}


def test_a_spooled_export_keeps_its_priority(client: Client, make_context: Build) -> None:
    # Given a submission that waits in the outbox
    client.outbox.put([_entry(make_context(), Priority.URGENT)], replace=False, submitted=0.0)
    # When it is sent
    client.flush()
    # Then it is as urgent as it was
    assert client.status(make_context().export_id).priority is Priority.URGENT


def test_an_outbox_of_an_older_release_holds_normal_exports(client: Client, make_context: Build) -> None:
    # Given an outbox whose file knows no priorities
    client.outbox.put([_entry(make_context(), Priority.URGENT)], replace=False, submitted=0.0)

    with sqlite3.connect(client.outbox.path) as database:
        database.execute("ALTER TABLE entries DROP COLUMN priority")
    # When it is sent, then nothing is lost
    assert client.flush().sent == 1
    assert client.status(make_context().export_id).priority is Priority.NORMAL


def _entry(context: ExportContext, priority: Priority) -> Entry:
    return Entry(
        context.export_id, "digest", context.to_json(), context.session_identifier, context.instrument_pid, "", (),
        priority,
    )  # fmt: skip
