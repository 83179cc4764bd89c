"""Real parts for integration tests: a Redis server, worker processes, sessions with files, plugins that record."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import killed_redis
import pytest

from labrelay.client import Client
from labrelay.context import ExportContext
from labrelay.results import ExportStatus
from labrelay.settings import ProducerSettings, load_settings
from labrelay_worker.embedded import EmbeddedRedis

PLUGINS = Path(__file__).parents[1] / "plugins"

RECORD = """<?xml version="1.0" encoding="UTF-8"?>\r
<Experiment xmlns="https://data.nist.gov/od/dm/nexus/experiment/v1.0"><title>Å{number}</title></Experiment>\r
"""


def wait_until(condition: Callable[[], Any], timeout: float = 30.0, what: str = "the condition") -> Any:
    """Return the condition's value once it is true; fail when time is up."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not come true within {timeout:g} s")
        time.sleep(0.02)
    return value


@dataclass
class Worker:
    """One worker process tree, ended with the test."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it as the operating system would."""
        self.send(signal.SIGKILL)
        self.wait()

    def freeze(self) -> None:
        """Stop it in its tracks; returns when every thread stands still, which takes a moment."""
        self.send(signal.SIGSTOP)
        tasks = Path(f"/proc/{self.pid}/task")
        wait_until(
            lambda: all(" (stopped)" in (task / "status").read_text() for task in tasks.iterdir()), what="the freeze"
        )

    def thaw(self) -> None:
        """Let it go on."""
        self.send(signal.SIGCONT)

    def wait(self, timeout: float = 60.0) -> int:
        """Await the end of the process; fail with its last words when it does not come."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            pytest.fail(f"worker {self.pid} did not end within {timeout:g} s; it said:\n{self.output()[-4000:]}")

    def output(self) -> str:
        return self.log.read_text()

    def end(self) -> None:
        """Kill what is left of it: children of a killed prefork worker die with it (PDEATHSIG)."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(30)


@dataclass
class Lab:
    """One installation in a temporary folder: settings, Redis, sessions, workers."""

    folder: Path
    environment: dict[str, str]
    redis: EmbeddedRedis | None
    workers: list[Worker] = field(default_factory=list)
    destinations: dict[str, dict[str, Any]] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    backends: dict[str, dict[str, Any]] = field(default_factory=dict)

    wait_until = staticmethod(wait_until)

    @property
    def events_file(self) -> Path:
        return self.folder / "events.jsonl"

    def recorder(self, name: str, priority: int = 50, **options: Any) -> None:
        """Configure a recording destination."""
        table = {"type": "recorder", "priority": priority, "log": str(self.events_file), **options}
        self.destinations[name] = {k: str(v) if isinstance(v, Path) else v for k, v in table.items()}
        self.write_settings()

    def write_settings(self) -> None:
        lines = [f"{key} = {json.dumps(value)}" for key, value in self.options.items()]
        for kind, tables in (("destinations", self.destinations), ("backends", self.backends)):
            for name, table in tables.items():
                lines.append(f"[{kind}.{name}]")
                lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
        (self.folder / "labrelay.toml").write_text("\n".join(lines))

    def start_worker(
        self,
        pool: str = "threads",
        concurrency: int = 2,
        *arguments: str,
        ready: bool = True,
        python: Path | str = sys.executable,
        **env: str,
    ) -> Worker:
        log = self.folder / f"worker-{len(self.workers)}.log"
        before = self._announced() if ready else set()
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    str(python), "-m", "celery", "-A", "labrelay_worker.app", "worker", "-P", pool,
                    "-c", str(concurrency), "-l", "INFO", "-n", f"w{len(self.workers)}@test",
                    "--without-gossip", "--without-mingle", *arguments,
                ],
                env=self.environment | env, cwd=self.folder, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        worker = Worker(process, log)
        self.workers.append(worker)
        if ready:
            processes = concurrency if pool == "prefork" else 1
            wait_until(
                lambda: (
                    process.poll() is not None
                    or (len(self._announced() - before) >= processes and " ready." in worker.output())
                ),
                120,
                "worker ready",
            )
            assert process.poll() is None, worker.output()
        return worker

    def _announced(self) -> set[str]:
        # Names, not their number: those of killed workers vanish meanwhile.
        with self.client() as client:
            return {worker.name for worker in client.ledger.workers()}

    @property
    def held(self) -> Path:
        """A file: while it exists, destinations with ``hold_while`` set to it hold their calls."""
        return self.folder / "held"

    def kill_while_sending(self, name: str) -> str:
        """Submit a session, kill a new worker in the midst of its call to a destination that holds; return its id."""
        self.held.touch()
        worker = self.start_worker()
        with self.client() as client:
            export_id = client.submit(self.session()).export_id
        wait_until(lambda: self.events(event="export", name=name), what=f"the call to {name}")
        worker.kill()
        self.held.unlink()
        return export_id

    def kill_redis(self) -> None:
        """Kill the embedded Redis of this lab, and only it."""
        assert self.redis is not None
        killed_redis.kill(self.redis)

    def client(self) -> Client:
        return Client(load_settings(ProducerSettings))

    def session(self, number: int = 1, *, files: int = 1) -> ExportContext:
        """Write a session's record and files; the same number gives the same session."""
        folder = self.folder / "data" / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        record = folder / f"record-{number}.xml"
        record.write_bytes(RECORD.format(number=number).encode())
        names = [folder / f"image {i}.raw" for i in range(files)]
        for index, name in enumerate(names):
            name.write_bytes(bytes([index]) * 1000)
        return ExportContext.parse(
            {
                "xml_file_path": str(record),
                "session_identifier": f"session-{number}",
                "instrument_pid": "FEI-Titan-TEM",
                "dt_from": "2026-11-20T10:00:00+01:00",
                "dt_to": "2026-11-20T11:00:00+01:00",
                "activities": [{"files": [str(n) for n in names], "previews": []}],
            }
        )

    def events(self, **wanted: Any) -> list[dict[str, Any]]:
        """Return what the recording destinations wrote down, in order."""
        if not self.events_file.exists():
            return []
        events = [json.loads(line) for line in self.events_file.read_text().splitlines()]
        return [event for event in events if wanted.items() <= event.items()]

    def finished(self, export_id: str, timeout: float = 60.0) -> ExportStatus:
        with self.client() as client:
            return client.wait(export_id, timeout)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A fresh installation with its own real Redis."""
    with laboratory(tmp_path) as lab:
        yield lab


@contextmanager
def laboratory(folder: Path) -> Iterator[Lab]:
    """Make an installation in a folder with a Redis of its own."""
    redis = EmbeddedRedis(folder / "redis")
    with redis as url, installation(folder, url) as lab:
        lab.redis = redis
        yield lab


@contextmanager
def installation(folder: Path, url: str, **settings: str) -> Iterator[Lab]:
    """Make an installation on a Redis that is there; until it ends, this process has its settings too."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in [name for name in os.environ if name.startswith("LABRELAY_")]:
            monkeypatch.delenv(name)
        monkeypatch.chdir(folder)
        environment = {
            "LABRELAY_HOME": str(folder / "home"),
            "LABRELAY_REDIS_URL": url,
            "LABRELAY_PLUGIN_PATH": str(PLUGINS),
            "LABRELAY_SETTLE_SECONDS": "0",
            "LABRELAY_LEASE_SECONDS": "2",
            "LABRELAY_WAKE_UP_GRACE": "2",
            "LABRELAY_RECONCILE_SECONDS": "0.2",
            "LABRELAY_RETRY__FIRST_DELAY": "0.2",
            **settings,
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        lab = Lab(folder, dict(os.environ), None)
        try:
            yield lab
        finally:
            for worker in lab.workers:
                worker.end()
