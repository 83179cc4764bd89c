"""`labrelay up` brings everything one machine needs, all of it in agreement, and `labrelay down` ends it."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

HANGING = Path(__file__).parents[1] / "plugins" / "hanging"
SAMPLE = "samples/contexts/2025-03-03_FEI-Titan-TEM-012345_1001.json"


@dataclass
class Machine:
    """A machine on which nobody has set anything but the home."""

    folder: Path
    environment: dict[str, str]
    wait_for: Callable[..., object]

    def labrelay(self, *arguments: str, code: int = 0) -> str:
        answer = subprocess.run(
            [sys.executable, "-m", "labrelay", *arguments],
            env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        assert answer.returncode == code, answer.stdout + answer.stderr
        return answer.stdout

    def up(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        with self.log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "labrelay", "up", *arguments],
                env=self.environment | environment,
                cwd=self.folder, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        self.processes.append(process)
        self.wait_for(lambda: " ready." in self.log.read_text() or process.poll() is not None, 60, "the worker")
        assert process.poll() is None, self.log.read_text()
        return process

    def __post_init__(self) -> None:
        self.log = self.folder / "up.log"
        self.processes: list[subprocess.Popen[bytes]] = []

    @property
    def flower_url(self) -> str:
        found = self.wait_for(
            lambda: re.search(r"Flower shows the tasks at (\S+)", self.log.read_text()), 60, "Flower"
        )
        return found.group(1)  # type: ignore[attr-defined]

    def ask_flower(self, path: str, account: str) -> str:
        request = urllib.request.Request(self.flower_url + path)
        request.add_header("Authorization", "Basic " + base64.b64encode(account.encode()).decode())
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.read().decode()

    @property
    def account_file(self) -> Path:
        return self.folder / "home" / "flower" / "account"

    def flower_pid(self) -> int:
        return int((self.folder / "home" / "flower" / "lock").read_text().split()[0])

    def redis_pid(self) -> int:
        return int((self.folder / "home" / "redis" / "pid").read_text())


def is_gone(pid: int) -> bool:
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True


@pytest.fixture
def machine(tmp_path, wait_for):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LABRELAY_")}
    environment |= {"LABRELAY_HOME": str(tmp_path / "home"), "LABRELAY_FLOWER_PORT": str(port)}
    machine = Machine(tmp_path, environment, wait_for)
    yield machine
    for process in machine.processes:
        if process.poll() is None:
            process.kill()
            process.wait()
    subprocess.run([sys.executable, "-m", "labrelay", "down"], env=environment, cwd=tmp_path, check=False)


def samples(text: str) -> dict[str, float]:
    """Return Prometheus's text as values by series."""
    lines = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
    return {series: float(value) for series, _, value in lines}


def test_a_delivered_export_is_the_same_in_flower_in_status_and_in_the_metrics(machine, browser):
    # Given `labrelay up` on a clean folder
    machine.up()
    account = machine.wait_for(lambda: machine.account_file.exists() and machine.account_file.read_text().strip())

    # When a session is delivered
    machine.labrelay("samples", "samples", "--sessions", "1")
    machine.labrelay("submit", SAMPLE, "--root", "samples", "--wait", "--timeout", "60")
    (export,) = json.loads(machine.labrelay("list", "--json"))

    # Then `labrelay status` counts it
    counts = json.loads(machine.labrelay("status", "--json"))
    assert {state: count for state, count in counts.items() if count} == {"delivered": 1}

    # And the metrics count the same, as text and as JSON, with nothing left to do
    text = samples(machine.labrelay("metrics"))
    records = json.loads(machine.labrelay("metrics", "--json"))
    measured = {each["labels"]["state"]: each["value"] for each in records if each["name"] == "labrelay_exports"}
    assert measured == counts
    assert {state: text[f'labrelay_exports{{state="{state}"}}'] for state in counts} == counts
    assert text["labrelay_ledger_up"] == 1
    assert sum(value for series, value in text.items() if series.startswith("labrelay_ready_exports")) == 0
    assert not [series for series in text if series.startswith("labrelay_dead_deliveries")]

    # And Flower shows it with the same end, number and place
    (delivery,) = [each for each in export["deliveries"] if each["state"] == "delivered"]
    task = machine.wait_for(
        lambda: "SUCCESS" in (text := machine.ask_flower(f"/api/task/info/{export['export_id']}", account)) and text,
        30,
        "the task",
    )
    told = json.loads(task)["result"]
    assert f"{export['state']}: {export['summary']}" in told
    assert delivery["receipt"]["record_url"] in told

    # And a person sees it in a browser
    page = browser.text(f"{machine.flower_url.replace('://', f'://{account}@')}/tasks")
    assert f"{export['state']}: {export['summary']}" in page
    assert delivery["receipt"]["record_url"] in page


def test_down_ends_everything_that_up_started(machine):
    # Given `labrelay up` with Flower
    process = machine.up()
    assert machine.flower_url.startswith("http://127.0.0.1:")
    flower, redis = machine.flower_pid(), machine.redis_pid()

    # When `labrelay down` is typed
    machine.labrelay("down")

    # Then nothing is left, and all ended by themselves
    assert process.wait(10) == 0
    assert is_gone(flower)
    assert is_gone(redis)
    assert machine.labrelay("down").strip() == "stopped"


def test_the_password_is_made_once_and_only_its_owner_reads_it(machine):
    # Given a first `labrelay up`
    machine.up()
    account = machine.wait_for(lambda: machine.account_file.exists() and machine.account_file.read_text())
    machine.labrelay("down")

    # When it is started again
    machine.up()
    assert machine.flower_url

    # Then the password is the same, nobody else reads it, and the log does not tell it
    assert machine.account_file.read_text() == account
    assert stat.S_IMODE(machine.account_file.stat().st_mode) == 0o600
    assert account.strip().partition(":")[2] not in machine.log.read_text()


def test_a_killed_up_leaves_no_flower_and_down_ends_its_redis(machine):
    # Given `labrelay up`
    process = machine.up()
    assert machine.flower_url
    flower, redis = machine.flower_pid(), machine.redis_pid()

    # When it is killed
    process.kill()
    process.wait()

    # Then Flower ends with it, and what is left can be ended
    machine.wait_for(lambda: is_gone(flower), 30, "the end of Flower")
    assert not is_gone(redis)
    machine.labrelay("down")
    assert is_gone(redis)


def test_a_worker_that_has_to_end_itself_leaves_neither_redis_nor_flower(machine):
    # Given a Celery that does not end when it is told to
    process = machine.up(PYTHONPATH=str(HANGING), LABRELAY_DRAIN_SECONDS="0")
    assert machine.flower_url
    flower, redis = machine.flower_pid(), machine.redis_pid()

    # When it is told to
    process.send_signal(signal.SIGTERM)

    # Then the process ends itself, and what it started ends as well
    assert process.wait(60) == 0
    assert "did not end by itself" in machine.log.read_text()
    assert is_gone(flower)
    assert is_gone(redis)


def test_a_second_up_is_refused_and_without_flower_is_possible(machine):
    # Given one without Flower
    machine.up("--no-flower")
    assert not (machine.folder / "home" / "flower").exists()

    # When a second one is started on the same home
    # Then it says what to do instead
    answer = subprocess.run(
        [sys.executable, "-m", "labrelay", "up"],
        env=machine.environment, cwd=machine.folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert answer.returncode == 1
    assert "labrelay worker" in answer.stderr


def test_a_taken_port_is_not_used(machine):
    # Given something else on Flower's port
    with socket.socket() as other:
        other.bind(("127.0.0.1", int(machine.environment["LABRELAY_FLOWER_PORT"])))
        other.listen()

        # When everything is started
        machine.up()

        # Then Flower has another one
        assert machine.flower_url.rpartition(":")[2] != machine.environment["LABRELAY_FLOWER_PORT"]
