"""What a newcomer does: the demo, `labrelay up`, and the README's tour, command by command."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data" / "sessions.tar.xz"
BIN = Path(sys.executable).parent


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Return the environment of somebody who has set nothing but the home."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LABRELAY_")}
    environment |= {"LABRELAY_HOME": str(tmp_path / "home"), "PATH": f"{BIN}:{environment['PATH']}", "COLUMNS": "200"}
    monkeypatch.chdir(tmp_path)
    return environment


def run(command: str, environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command], env=environment, cwd=folder, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.fixture
def up(home, tmp_path):
    """Run `labrelay up` until the test ends."""
    log = tmp_path / "up.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [BIN / "labrelay", "up"], env=home, cwd=tmp_path, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield process, log
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def ready(log: Path) -> bool:
    return " ready." in log.read_text()


def tour(kind: str) -> str:
    block = re.search(rf"<!-- tour: {kind} -->\n```\w+\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block is not None
    return block.group(1)


@pytest.mark.parametrize("kill", [False, True], ids=["plain", "with a killed worker"])
def test_the_demo_delivers_every_sample_session_everywhere(home, tmp_path, kill):
    # When somebody runs the demo
    answer = run(f"labrelay demo {'--kill' if kill else ''}", home, tmp_path)

    # Then every delivery is delivered, once
    assert answer.returncode == 0, answer.stdout + answer.stderr
    rows = [
        line
        for line in answer.stdout.splitlines()
        if re.search(r"│ (archive|images|memory|receiver|notebook) ", line)
    ]
    assert len(rows) == 10
    assert all(" delivered " in row for row in rows)
    assert "2 records of 2 sessions, each once" in answer.stdout
    assert ("SIGKILL" in answer.stdout) is kill


@pytest.mark.skipif(not SHARED.exists(), reason="the real sessions lie beside the project only on some machines")
def test_the_demo_delivers_real_sessions_byte_for_byte(home, tmp_path):
    # Given two real sessions
    subprocess.run(["tar", "xJf", SHARED, "-C", tmp_path], check=True)

    # When they are delivered by the demo
    answer = run("labrelay demo --data .", home, tmp_path)
    assert answer.returncode == 0, answer.stdout + answer.stderr

    # Then every file has arrived as it was
    delivered = {path.name: path for path in (tmp_path / "home/demo/delivered").rglob("*") if path.is_file()}
    sources = [path for kind in ("records", "instrument", "nexus") for path in (tmp_path / kind).rglob("*.*")]
    assert len(sources) == 26
    for source in filter(Path.is_file, sources):
        assert delivered[source.name].read_bytes() == source.read_bytes()


def test_up_starts_everything_and_stops_all_of_it(home, tmp_path, up, wait_for):
    # Given `labrelay up`
    process, log = up
    wait_for(lambda: ready(log))
    redis_pid = int((tmp_path / "home/redis/pid").read_text())

    # When it is interrupted as by Ctrl-C in its terminal
    os.killpg(process.pid, signal.SIGINT)
    process.wait(60)

    # Then Redis has stopped too, and its data stays
    wait_for(lambda: not Path(f"/proc/{redis_pid}").exists() and not (tmp_path / "home/redis/url").exists())
    assert (tmp_path / "home/redis/appendonly.aof").stat().st_size > 0


def test_every_command_of_the_tour_works(home, tmp_path, up, wait_for):
    # Given the first terminal of the tour
    _, log = up
    assert tour("background").strip() == "$ labrelay up"
    wait_for(lambda: ready(log))

    # When each command of the second is typed
    outputs = []
    for line in tour("commands").splitlines():
        answer = run(line.removeprefix("$ "), home, tmp_path)
        assert answer.returncode == 0, f"{line}\n{answer.stdout}{answer.stderr}"
        outputs.append(answer.stdout)

    # Then the first submit delivers, the second finds duplicates, and Python works too
    assert outputs[3].count("delivered") >= 4
    assert outputs[4].count("duplicate") == 2
    answer = run(f"python -c {shlex.quote(tour('python'))}", home, tmp_path)
    assert answer.stdout.strip() == "1 of 1 delivered", answer.stderr
    assert len(list((tmp_path / "home/exports").rglob("manifest.json"))) == 3


def test_without_redis_every_command_says_in_one_line_how_to_start_it(home, tmp_path):
    # When a command needs the ledger and nothing runs
    for command in ("list", "status", "trail some-id", "cancel some-id"):
        answer = run(f"labrelay {command}", home, tmp_path)

        # Then one line says what to do
        assert answer.returncode == 3
        assert answer.stderr.count("\n") == 1
        assert "labrelay up" in answer.stderr
