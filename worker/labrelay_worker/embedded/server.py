"""The server's process: how it is launched, reached and shut down."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from labrelay.errors import BootError, LabrelayError
from labrelay.settings import ENV_PREFIX
from labrelay_worker.embedded.binary import find_redis_server
from labrelay_worker.embedded.locks import is_running, open_lock, wait_until
from labrelay_worker.private_folders import NotPrivate, socket_path

STOP_SECONDS = 10.0


def launch(folder: Path) -> str:
    """Start the server, detached, and return its address; raises BootError when it refuses."""
    server, socket = find_redis_server(folder), _socket_path(folder)
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(folder),
        "logfile": str(folder / "redis.log"),
        "pidfile": str(folder / "pid"),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        # Detached by itself: nobody has to reap it, and a Ctrl-C in the terminal does not reach it.
        "daemonize": "yes",
    }
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    # The server outlives us and is readable by others of the same user: it gets none of our secrets.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}
    forget(folder)
    socket.unlink(missing_ok=True)
    with open_lock(folder, "server") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        started = subprocess.run(
            [server, *arguments],
            pass_fds=(lock.fileno(),),
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            start_new_session=True,
            check=False,
        )
    if started.returncode:
        msg = f"{server} refuses to start: {(started.stderr or started.stdout).strip()}"
        raise BootError(msg)
    return address(folder)


def shut_down(folder: Path) -> None:
    """End the server with its data on disk; raises LabrelayError, with its process, if it does not end in time."""
    with suppress(redis.RedisError, OSError), _client(address(folder)) as client:
        client.shutdown()
    if wait_until(lambda: not is_running(folder), STOP_SECONDS):
        return
    pid = read(folder / "pid")
    # The server itself holds its lock, so the process that wrote this file is still the server.
    with suppress(ProcessLookupError, ValueError):
        os.kill(int(pid), signal.SIGTERM)
    if not wait_until(lambda: not is_running(folder), STOP_SECONDS):
        msg = f"the embedded Redis (process {pid or 'unknown'}) does not end; see {folder / 'redis.log'}"
        raise LabrelayError(msg)


def forget(folder: Path) -> None:
    """Remove what a server that ended has left behind of its address and process."""
    for name in ("url", "pid"):
        (folder / name).unlink(missing_ok=True)


def address(folder: Path) -> str:
    """Return where the server is or will be; one that runs may have been started with another TMPDIR."""
    url = read(folder / "url") if is_running(folder) else ""
    return url or f"unix://{quote(str(_socket_path(folder)))}"


def _socket_path(folder: Path) -> Path:
    try:
        return socket_path(folder, "redis.sock")
    except NotPrivate as error:
        raise BootError(f"{error}. Remove it, or set TMPDIR to a folder of your own") from None


def _client(url: str) -> redis.Redis:
    # Retries live in the polling loops here, where the deadline is known.
    return redis.Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1, retry=Retry(NoBackoff(), 0))


def why_no_answer(url: str) -> str | None:
    """Say why the server does not answer, or None if it does."""
    try:
        with _client(url) as client:
            client.ping()
    except (redis.RedisError, OSError) as error:
        return str(error)
    return None


def read(path: Path) -> str:
    """Return the text of a small file, empty if there is none."""
    try:
        return path.read_text(errors="replace").strip()
    except FileNotFoundError:
        return ""
