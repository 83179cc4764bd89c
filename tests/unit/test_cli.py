"""The command line: bad input is one line and exit code 2, and leaves nothing behind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from labrelay.cli import main
from labrelay.context import ExportContext

Build = Callable[..., ExportContext]

BOMB = """<?xml version="1.0"?>
<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<Experiment xmlns="https://data.nist.gov/od/dm/nexus/experiment/v1.0"><title>&b;</title></Experiment>
"""
DEEP = (
    '<Experiment xmlns="https://data.nist.gov/od/dm/nexus/experiment/v1.0">'
    + "<a>" * 300
    + "</a>" * 300
    + "</Experiment>"
)


@pytest.fixture(autouse=True)
def redis_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bad input is refused before anybody talks to Redis: nothing listens there."""
    monkeypatch.setenv("LABRELAY_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("LABRELAY_SETTLE_SECONDS", "0")


def run(*arguments: str | Path, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin)


def refused(result: Result, tmp_path: Path, *words: str) -> None:
    """Check that bad input is one line with field and cure, exit code 2, and no trace on disk."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("labrelay: ")
    assert result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr
    assert not (tmp_path / "home").exists()


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("gone.json", None, ("no such file", "Correct the path")),
        ("gone.xml", None, ("no such file", "Correct the path")),
        ("a.json", "", ("is empty", "Give one JSON object")),
        ("a.json", "{broken", ("a.json", "Invalid JSON", "one per line")),
        ("a.json", "[]", ("a.json", "object")),
        ("a.xml", "", ("is empty", "Wait until")),
        ("a.xml", "<unfinished", ("not XML",)),
        ("a.xml", "<other/>", ("not a Nexus record",)),
        ("a.xml", BOMB, ("declares a DTD or entities", "without a DOCTYPE")),
        ("a.xml", DEEP, ("nested deeper than",)),
    ],
)
def test_what_cannot_be_read_is_one_line(
    tmp_path: Path, name: str, content: str | None, words: tuple[str, ...]
) -> None:
    # Given a file that is no context, when it is submitted, then the line says what to do
    if content is not None:
        write(tmp_path / name, content)
    refused(run("submit", tmp_path / name), tmp_path, *words)


def test_a_folder_is_one_line(tmp_path: Path) -> None:
    # Given a folder, when it is submitted, then so
    (tmp_path / "folder").mkdir()
    refused(run("submit", tmp_path / "folder"), tmp_path, "is a folder", "Name a context")


def test_fifty_megabytes_are_refused_at_once(tmp_path: Path) -> None:
    # Given 50 MB of JSON
    file = tmp_path / "huge.json"
    with file.open("wb") as stream:
        stream.write(b'{"metadata": {"a": "')
        stream.seek(50 * 10**6)
        stream.write(b'"}}')
    # When it is submitted, then the limit is named
    refused(run("submit", file), tmp_path, "larger than 4 MiB", "LABRELAY_MAX_CONTEXT_BYTES")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sesion": "x"}, ("sesion: unknown field", "correct its spelling")),
        ({"dt_from": "2026-11-20T10:00:00"}, ("dt_from:", "timezone", "Add the offset")),
        ({"dt_to": "2020-01-01T00:00:00Z"}, ("dt_to: lies before dt_from",)),
        ({"session_identifier": None}, ("session_identifier:",)),
        ({"activities": [{"files": ["/no/such.dm3"]}]}, ("activities[0].files[0]: no such file /no/such.dm3",)),
    ],
)
@pytest.mark.parametrize("command", ["submit", "plan"])
def test_a_mistake_in_a_context_is_one_line(
    tmp_path: Path, make_session: Build, command: str, change: dict[str, Any], words: tuple[str, ...]
) -> None:
    # Given a context with one mistake, when it is submitted or planned, then field and cure are named
    document = json.loads(make_session().to_json()) | change
    refused(run(command, write(tmp_path / "a.json", json.dumps(document))), tmp_path, *words)


def test_a_mistake_on_standard_input_is_one_line(tmp_path: Path) -> None:
    # Given something else piped in, when it is submitted, then the source is named
    refused(run("submit", "-", stdin=b"hello"), tmp_path, "standard input", "Invalid JSON")
    refused(run("submit", "-", stdin=b""), tmp_path, "standard input: is empty")


def test_a_mistake_in_one_line_of_many_stops_all(tmp_path: Path, make_session: Build) -> None:
    # Given JSON Lines whose second line is broken, when it is submitted, then nothing is accepted
    lines = f"{make_session().to_json()}\n{{}}\n"
    file = write(tmp_path / "a.jsonl", lines)
    refused(run("submit", file), tmp_path, "xml_file_path: Field required (and 4 more)")


@pytest.mark.parametrize(
    ("strategy", "hint"), [("best-effort", "Did you mean best_effort?"), ("some", "Use one of all")]
)
def test_a_misspelled_strategy_is_one_line(tmp_path: Path, make_session: Build, strategy: str, hint: str) -> None:
    # Given a misspelled strategy, when something is submitted, then the nearest is suggested
    file = write(tmp_path / "a.json", make_session().to_json())
    refused(run("submit", file, "--strategy", strategy), tmp_path, "strategy", hint)


def test_a_file_outside_the_data_roots_is_one_line(
    tmp_path: Path, make_session: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given roots that do not hold the session, when it is submitted, then the root is named
    monkeypatch.setenv("LABRELAY_DATA_ROOTS", "/srv/instruments")
    file = write(tmp_path / "a.json", make_session().to_json())
    refused(run("submit", file), tmp_path, "xml_file_path", "outside data_roots (/srv/instruments)")


def test_a_bad_setting_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a bad setting, when any command runs, then it is named
    monkeypatch.setenv("LABRELAY_REDIS_TIMEOUT", "soon")
    refused(run("list"), tmp_path, "redis_timeout", "LABRELAY_REDIS_TIMEOUT")


@pytest.mark.parametrize(("command", "code"), [("samples", 2), ("demo", 2), ("up", 1)])
def test_a_folder_that_cannot_be_written_to_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, code: int
) -> None:
    # Given a file where a folder should be, when something is to be written below it, then it is named
    folder = write(tmp_path / "file", "") / "below"
    monkeypatch.setenv("LABRELAY_HOME", str(folder))
    result = run(command, *([folder] if command == "samples" else []))
    assert result.exit_code == code, result.output
    last = result.stderr.splitlines()[-1]
    assert last.startswith("labrelay: ")
    assert str(folder) in last
    assert "(Not a directory)" in last


@pytest.mark.parametrize("limit", ["0", "-5"])
def test_a_list_of_less_than_one_export_is_refused_rather_than_empty(limit: str) -> None:
    result = run("list", "--limit", limit)
    assert result.exit_code == 2
    assert "'--limit'" in result.stderr


def test_good_input_without_redis_and_outbox_is_another_exit_code(
    tmp_path: Path, make_session: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a good session, no Redis and no outbox, when it is submitted, then it is not the input's fault
    monkeypatch.setenv("LABRELAY_OUTBOX", "false")
    result = run("submit", write(tmp_path / "a.json", make_session().to_json()))
    assert result.exit_code == 3
    assert "start it or correct LABRELAY_REDIS_URL" in result.stderr
    assert result.stderr.count("\n") == 1


def test_without_any_redis_the_way_to_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a machine without Redis, when a command needs it, then the line says how to start one
    monkeypatch.delenv("LABRELAY_REDIS_URL")
    result = run("status")
    assert result.exit_code == 3
    assert "labrelay up" in result.stderr


def test_settings_are_shown_without_redis_and_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a password in the address, when the settings are shown, then masked
    monkeypatch.setenv("LABRELAY_REDIS_URL", "redis://:hunter2-hunter2@127.0.0.1:1/0")
    for arguments in (["settings"], ["settings", "--json"]):
        result = run(*arguments)
        assert result.exit_code == 0
        assert "redis_url" in result.stdout
        assert "hunter2" not in result.output


def test_every_command_explains_itself() -> None:
    # Given the commands of both packages, when help is asked for, then each gives it
    names = main.list_commands(click.Context(main))
    assert {"submit", "status", "list", "trail", "cancel", "plan", "settings", "worker"} <= set(names)
    for name in names:
        result = run(name, "--help")
        assert result.exit_code == 0, name
        assert "Usage:" in result.stdout


@pytest.mark.parametrize(
    "code", ["import labrelay", "import labrelay.cli", "from labrelay import ExportContext, submit"]
)
def test_importing_labrelay_is_light(code: str) -> None:
    # Given a pipeline that imports labrelay
    check = f"{code}\nimport sys; print(sorted({{'celery', 'kombu', 'redis', 'rich.table'}} & sys.modules.keys()))"
    # When it starts, then neither Celery nor Redis is loaded
    output = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"
