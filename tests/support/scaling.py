"""One, three, then one worker again, each on a host of its own, while a producer on another one submits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from hosts import Host, network
from lab import PLUGINS, Lab, installation, wait_until
from redis_servers import PATIENT, free_port
from tools import tool

_PRODUCER = Path(__file__).parent / "scale_producer.py"


@dataclass(frozen=True)
class Phase:
    """What a number of workers delivered in a time."""

    workers: int
    seconds: float
    delivered: int

    @property
    def rate(self) -> float:
        """Deliveries a second."""
        return self.delivered / self.seconds


@dataclass(frozen=True)
class Scaling:
    """What came of it all."""

    phases: list[Phase]
    submitted: int
    delivered: int
    lost: int
    twice: int

    def table(self) -> str:
        rows = [f"| {p.workers} | {p.seconds:.1f} | {p.delivered} | {p.rate:.0f} |" for p in self.phases]
        head = ["| workers | seconds | delivered | a second |", "|---|---|---|---|"]
        end = f"submitted {self.submitted}, delivered {self.delivered}, lost {self.lost}, twice {self.twice}"
        return "\n".join([*head, *rows, "", end])


def scale(folder: Path, *, sessions: int, seconds: float, call_seconds: float, calls: int) -> Scaling:
    """Run it: destinations whose calls take `call_seconds` each, `calls` at once in each worker."""
    names = ("redis", "producer", "worker-0", "worker-1", "worker-2")
    with network(*names) as hosts:
        port = free_port()
        url = f"redis://{hosts['redis'].address}:{port}/0"
        bound = [
            "--bind",
            hosts["redis"].address,
            "--port",
            str(port),
            "--protected-mode",
            "no",
            "--appendonly",
            "yes",
        ]
        (folder / "redis").mkdir()
        processes = [
            hosts["redis"].start(
                [tool("redis-server"), *bound, "--dir", str(folder / "redis")], folder / "redis.log", os.environ
            )
        ]
        settings = {
            "LABRELAY_DATA_ROOTS": str(folder),
            "LABRELAY_THREADS_PER_DESTINATION": str(calls),
            "LABRELAY_LEASE_SECONDS": "10",
            "LABRELAY_WAKE_UP_GRACE": "10",
            **PATIENT,
        }
        try:
            with installation(folder, url, **settings) as lab:
                lab.recorder("archive", seconds=call_seconds, find_in_log=True)
                return _run(lab, hosts, processes, sessions, seconds)
        finally:
            for process in reversed(processes):
                process.kill()
                process.wait(30)


def _run(
    lab: Lab, hosts: dict[str, Host], processes: list[subprocess.Popen[bytes]], sessions: int, seconds: float
) -> Scaling:
    contexts = lab.folder / "contexts.jsonl"
    ids = []
    with contexts.open("w") as lines:
        for number in range(sessions):
            context = lab.session(number)
            ids.append(context.export_id)
            lines.write(context.to_json() + "\n")
    environment = lab.environment | {"PYTHONPATH": f"{PLUGINS}"}

    def worker(number: int) -> subprocess.Popen[bytes]:
        log = lab.folder / f"worker-{number}.log"
        process = hosts[f"worker-{number}"].start(
            [sys.executable, "-m", "labrelay", "worker"], log, environment, lab.folder
        )
        processes.append(process)
        wait_until(lambda: " ready." in log.read_text() or process.poll() is not None, 120, f"worker {number}")
        assert process.poll() is None, log.read_text()[-3000:]
        return process

    def accepted() -> list[str]:
        return [event["id"] for event in lab.events(event="accepted")]

    def phase(workers: int) -> Phase:
        before, began = len(accepted()), time.monotonic()
        wait_until(lambda: time.monotonic() - began >= seconds, seconds + 60)
        return Phase(workers, time.monotonic() - began, len(accepted()) - before)

    first = worker(0)
    producing = hosts["producer"].start(
        [sys.executable, str(_PRODUCER), str(contexts)], lab.folder / "producer.log", environment, lab.folder
    )
    processes.append(producing)
    wait_until(accepted, 60, "the first delivery")

    phases = [phase(1)]
    others = [worker(number) for number in (1, 2)]
    phases.append(phase(3))
    for leaving in others:
        leaving.send_signal(signal.SIGTERM)
    assert [leaving.wait(90) for leaving in others] == [0, 0]
    phases.append(phase(1))

    assert producing.wait(120) == 0, (lab.folder / "producer.log").read_text()[-2000:]
    wait_until(lambda: len(set(accepted())) >= sessions, 120, "every session delivered")
    first.send_signal(signal.SIGTERM)
    assert first.wait(90) == 0
    counted = Counter(accepted())
    return Scaling(
        phases,
        submitted=sessions,
        delivered=len(counted),
        lost=len(set(ids) - counted.keys()),
        twice=sum(count > 1 for count in counted.values()),
    )
