"""The log of a real worker: one form for all lines, each with the export it is about, none with a secret."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from labrelay.results import ExportState

pytestmark = pytest.mark.integration

TOKEN = "tok-5ecret-value-0123456789"
PLUGINS = Path(__file__).parents[1] / "plugins" / "telling"


def run(lab: Any, pool: str, *, form: str) -> tuple[str, str, list[str]]:
    """Deliver a session through a plugin that logs; returns its export id, the log, and the log's lines."""
    environment = {"LABRELAY_PLUGIN_PATH": str(PLUGINS), "LABRELAY_LOG_FORMAT": form}
    lab.destinations["chatty"] = {"type": "chatty"}
    lab.write_settings()
    worker = lab.start_worker(pool, 2, **environment, LABRELAY_DESTINATIONS__CHATTY__TOKEN=TOKEN)
    with lab.client() as client:
        export_id = client.submit(lab.session()).export_id
    assert lab.finished(export_id).state is ExportState.DELIVERED
    worker.send(signal.SIGTERM)
    worker.wait()
    log = worker.output()
    # Its banner and its farewell Celery says past every log.
    lines = log[log.index("\n{", log.index("[tasks]")) if form == "json" else 0 :].splitlines()
    return export_id, log, [line for line in lines if line and not line.startswith("worker: ")]


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_every_line_is_json_and_a_plugins_own_lines_say_which_export_they_are_about(lab, pool):
    # Given a worker that logs JSON, and a blocking plugin that logs in its thread
    export_id, log, lines = run(lab, pool, form="json")

    # Then every line is an object with the same fields, Celery's among them
    found = [json.loads(line) for line in lines]
    assert all({"at", "level", "logger", "message", "process", "thread"} <= line.keys() for line in found)
    assert any(line["logger"].startswith("celery.") for line in found)

    # And what the plugin said is under its name, with the export and the session, and with its own fields
    warning, error = (line for line in found if line["logger"] == "chatty.client")
    assert {(line["export_id"], line["session"]) for line in (warning, error)} == {(export_id, "session-1")}
    assert warning["thread"] == "labrelay-chatty"
    assert warning["bytes_sent"] == 17
    # And its traceback is in the line, whole
    assert "ValueError: line one\nand " in error["trace"]
    assert "chatty.py" in error["trace"]
    # And what labrelay says at the end is about the export, too
    last = [line["message"] for line in found if line.get("export_id") == export_id][-1]
    assert "delivered: 1 of 1 delivered" in last

    # And the secret is nowhere
    assert TOKEN not in log


def test_the_command_says_nothing_but_json_where_json_is_asked_for(lab):
    # Given a worker as `labrelay worker` starts it
    lab.recorder("good")
    log = lab.folder / "worker.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "labrelay", "worker"],
            env=lab.environment | {"LABRELAY_LOG_FORMAT": "json"}, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        lab.wait_until(lambda: " ready." in log.read_text(), what="the worker")
    finally:
        process.terminate()
        process.wait(60)

    # Then there is no banner either
    lines = [line for line in log.read_text().splitlines() if line and not line.startswith("worker: ")]
    assert [line for line in lines if not line.startswith("{")] == []


def test_lines_for_people_name_session_and_export_and_no_secret(lab):
    export_id, log, lines = run(lab, "threads", form="console")
    assert any(f"WARNING chatty.client [session-1 {export_id}]: labrelay-chatty sends with" in line for line in lines)
    assert "    raise ValueError(" in log
    assert TOKEN not in log


def test_a_command_logs_what_it_submits_when_it_is_asked_to(lab):
    # Given a session, and a level
    context = lab.folder / "context.json"
    context.write_text(lab.session().to_json())
    environment = lab.environment | {"LABRELAY_LOG_LEVEL": "INFO", "LABRELAY_LOG_FORMAT": "json"}

    # When it is submitted
    command = [sys.executable, "-m", "labrelay", "submit", str(context), "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)

    # Then the line says which export and session, beside the answer on standard output
    (submission,) = json.loads(done.stdout)
    (line,) = (json.loads(each) for each in done.stderr.splitlines())
    assert (line["export_id"], line["session"]) == (submission["export_id"], "session-1")
    assert line["message"] == "submitted: accepted, revision 1"


def test_a_command_is_silent_without_a_level(lab):
    context = lab.folder / "context.json"
    context.write_text(lab.session().to_json())
    command = [sys.executable, "-m", "labrelay", "submit", str(context)]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=True)
    assert done.stderr == ""
