"""The workers of a fault plan: started, killed, stopped and frozen as whole processes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from labrelay.client import Client


class StillRunning(Exception):
    """A worker did not end; the text is what it said, and where its threads stood."""


class Fleet:
    """Real worker processes with one environment."""

    random: random.Random
    folder: Path
    environment: dict[str, str]
    client: Client

    def __init__(self) -> None:
        self.workers: dict[int, tuple[subprocess.Popen[bytes], str, dict[str, str]]] = {}
        self.frozen_between: list[tuple[float, float]] = []
        self._count = 0
        self._logs: dict[int, Path] = {}

    def start_worker(self, pool: str = "threads", concurrency: int = 4, **environment: str) -> int:
        """Start a worker, wait until it is announced, and return its pid."""
        self._count += 1
        before = self._announced()
        path = self.folder / f"worker-{self._count}.log"
        with path.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "labrelay_worker.app", "worker", "-P", pool,
                 "-c", str(concurrency), "-l", "INFO", "-n", f"w{self._count}@faults",
                 "--without-gossip", "--without-mingle"],
                env=self.environment | environment, cwd=self.folder, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self.workers[process.pid] = process, pool, environment
        self._logs[process.pid] = path
        # Before it is ready it has no handlers of its own, and a signal that a parent ignores is lost.
        self.until(
            lambda: process.poll() is not None or (self._announced() - before and " ready." in path.read_text()),
            90,
            f"worker {self._count}",
        )
        return process.pid

    def _announced(self) -> set[str]:
        # Names, not their number: those of killed workers vanish meanwhile.
        return {worker.name for worker in self.client.ledger.workers()}

    def any_worker(self) -> int:
        """Return the pid of some living worker."""
        return self.random.choice([pid for pid in self.workers if not self.has_ended(pid)])

    def has_ended(self, pid: int) -> bool:
        """Return whether a worker that nobody replaced has ended."""
        return self.workers[pid][0].poll() is not None

    def kill_worker(
        self, pid: int, number: int = signal.SIGKILL, *, group: bool = False, again_after: float | None = None
    ) -> None:
        """Signal a worker or its process group, once or twice, and start another of its kind when it has ended."""
        process, pool, environment = self.workers[pid]
        (os.killpg if group else os.kill)(pid, number)
        if again_after is not None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(again_after)
            process.send_signal(number)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # it writes down where every thread stands
            process.wait(10)
            raise StillRunning(f"signal {signal.Signals(number).name}: {self._last_words(process)}") from None
        del self.workers[pid]
        self.start_worker(pool, **environment)

    def _last_words(self, process: subprocess.Popen[bytes]) -> str:
        return self._logs[process.pid].read_text()[-12000:]

    def revive(self) -> None:
        """Start another worker for each that died."""
        for pid, (process, pool, environment) in list(self.workers.items()):
            if process.poll() is not None:
                del self.workers[pid]
                self.start_worker(pool, **environment)

    def kill_child(self) -> None:
        """Kill one pool child of a prefork worker."""
        parent = self.any_worker()
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        if children:
            os.kill(int(self.random.choice(children)), signal.SIGKILL)

    def freeze_worker(self, seconds: float) -> None:
        """Stop a worker for longer than its lease, then let it go on."""
        pid, begun = self.any_worker(), time.time()
        os.killpg(pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.killpg(pid, signal.SIGCONT)
        self.frozen_between.append((begun, time.time() + 1))

    def end_workers(self) -> None:
        """End every worker."""
        for process, _, _ in self.workers.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGCONT)
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)

    @staticmethod
    def until(condition: object, seconds: float, what: str = "what was awaited") -> None:
        """Await a condition; raise `TimeoutError` if it does not come true."""
        deadline = time.monotonic() + seconds
        while not condition():  # type: ignore[operator]
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what} did not come true within {seconds:g} s")
            time.sleep(0.05)
