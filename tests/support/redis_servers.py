"""Real Redis servers as a facility runs them: configured by files, on loopback ports, ended with the test."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from tools import tool

#: On a busy machine Redis may answer late; a test that is not about the outbox waits for it.
PATIENT = {"LABRELAY_OUTBOX": "false", "LABRELAY_REDIS_TIMEOUT": "30"}


@dataclass
class Server:
    """One redis-server process."""

    process: subprocess.Popen[bytes]
    port: int
    folder: Path

    def kill(self) -> None:
        """End it as a power failure would, but for the page cache."""
        self.process.kill()
        self.process.wait(15)

    def stop(self) -> None:
        """End it as the service manager does."""
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(15)

    def log(self) -> str:
        return (self.folder / "log").read_text()


def free_port() -> int:
    """Return a port that nobody listens at just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def launch(folder: Path, *options: str | Path, conf: Path | None = None, port: int = 0, tls: bool = False) -> Server:
    """Start a server and return when its port is open; `conf` is its configuration file."""
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    ports = ["--port", "0", "--tls-port", str(port)] if tls else ["--port", str(port)]
    command = [tool("redis-server"), *([str(conf)] if conf else []), *ports, "--dir", str(folder), *map(str, options)]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    server = Server(process, port, folder)
    deadline = time.monotonic() + 20
    while not _is_open(port):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait(15)
            pytest.fail(f"redis-server does not come up:\n{server.log()[-3000:]}")
        time.sleep(0.02)
    return server


@contextmanager
def serving(folder: Path, *options: str | Path, conf: Path | None = None, tls: bool = False) -> Iterator[Server]:
    """Run a server for as long as the block lasts."""
    server = launch(folder, *options, conf=conf, tls=tls)
    try:
        yield server
    finally:
        server.stop()


def await_loaded(client: redis.Redis) -> None:
    """Return when the server has read its files."""
    deadline = time.monotonic() + 20
    while True:
        try:
            client.ping()
            return
        except redis.RedisError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
