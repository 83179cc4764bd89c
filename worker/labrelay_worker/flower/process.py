"""The Flower that runs from a ``LABRELAY_HOME``: one at most, known by the lock its process holds.

The kernel lets go of the lock of a killed process, so what the folder says is true however Flower ended.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO

from labrelay.errors import BootError
from labrelay_worker.flower.launch import FlowerLaunch, flower_arguments
from labrelay_worker.settings import WorkerSettings

_START_SECONDS = 60.0
_STOP_SECONDS = 20.0
_POLL_SECONDS = 0.1
_PR_SET_PDEATHSIG = 1


class FlowerHome:
    """Who runs Flower from this folder, and where it listens.

    Parameters
    ----------
    settings
        Names the folder.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self.folder = settings.home / "flower"

    @property
    def history(self) -> Path:
        """The file that keeps the tasks seen."""
        return self.folder / "history"

    @property
    def log(self) -> Path:
        """What Flower says."""
        return self.folder / "flower.log"

    def running(self) -> tuple[int, str] | None:
        """Return process id and address of the Flower that runs, or None."""
        try:
            with (self.folder / "lock").open("rb") as lock:
                if _try_lock(lock):
                    return None
                pid, _, url = lock.read().decode().strip().partition(" ")
        except FileNotFoundError:
            return None
        return (int(pid), url) if pid.isdecimal() else None

    def age(self) -> float:
        """Return how many seconds ago the last Flower was started."""
        return time.time() - (self.folder / "lock").stat().st_mtime

    def take(self) -> IO[bytes]:
        """Return the lock, to be handed on to Flower's process.

        Raises
        ------
        BootError
            A Flower runs already: two would spoil the history of each other.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (self.folder / "lock").open("r+b" if (self.folder / "lock").exists() else "w+b")
        if not _try_lock(lock):
            said = lock.read().decode().strip().partition(" ")
            lock.close()
            raise BootError(f"Flower runs already at {said[2]} (process {said[0]}); end it, or use that one")
        return lock

    def tell(self, lock: IO[bytes], pid: int, url: str) -> None:
        """Write down which process has the lock, and where it listens."""
        lock.seek(0)
        lock.truncate()
        lock.write(f"{pid} {url}\n".encode())
        lock.flush()

    def stop(self) -> bool:
        """End the Flower that runs, if any; return whether there was one."""
        found = self.running()
        if found is None:
            return False
        os.kill(found[0], signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        while self.running() is not None and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        if self.running() is not None:
            os.kill(found[0], signal.SIGKILL)
        return True


class FlowerProcess:
    """Flower beside a worker; ends with it.

    Parameters
    ----------
    settings
        Where it listens and how.
    account
        ``user:password``, None: open.
    tell
        Told, on one line, what people must know.
    """

    def __init__(self, settings: WorkerSettings, account: str | None, tell: Callable[[str], None]) -> None:
        self._settings, self._account, self._tell = settings, account, tell
        self._home = FlowerHome(settings)
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._watching = threading.Thread(target=self._watch, name="labrelay-flower", daemon=True)

    def start(self) -> None:
        """Start it; whether it answers is told later.

        Raises
        ------
        LabrelayError
            It cannot be started as the settings say.
        """
        self._lock = self._home.take()
        self._launch(self._settings.flower_port)
        self._watching.start()

    def stop(self) -> None:
        """End it, with its history saved."""
        self._stopping.set()
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._lock.close()

    def _launch(self, port: int) -> None:
        if not _is_free(self._settings.flower_address, port):
            port = _free_port(self._settings.flower_address)
        launch = launch_of(self._settings, self._account, port=port)
        self._url = f"http://{self._settings.flower_address}:{port}"
        with self._home.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "celery", *launch.arguments],
                env={**os.environ, **launch.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(self._lock.fileno(),),
                # A Ctrl-C in the terminal is for the worker, which ends Flower when its own work is given back.
                start_new_session=True,
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509  two system calls
            )
        self._home.tell(self._lock, self._process.pid, self._url)

    def _watch(self) -> None:
        assert self._process is not None  # noqa: S101
        deadline = time.monotonic() + _START_SECONDS
        while not self._stopping.wait(_POLL_SECONDS):
            if self._process.poll() is not None:
                self._tell(f"Flower ended by itself; the worker goes on. See {self._home.log}")
                return
            if answers(self._url):
                self._tell(f"Flower shows the tasks at {self._url}")
                break
            if time.monotonic() > deadline:
                self._tell(f"Flower does not answer at {self._url} yet; see {self._home.log}")
                return


def launch_of(settings: WorkerSettings, account: str | None, *, port: int) -> FlowerLaunch:
    """Return how to start Flower by the settings; its folder is there then."""
    home = FlowerHome(settings)
    home.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return flower_arguments(
        address=settings.flower_address,
        port=port,
        basic_auth=account,
        open_access=settings.flower_open,
        persistent_db=home.history,
    )


def answers(url: str) -> bool:
    """Return whether a Flower answers there."""
    try:
        with urllib.request.urlopen(f"{url}/healthcheck", timeout=2) as answer:  # noqa: S310  our own address
            return bool(answer.status == 200)  # noqa: PLR2004
    except (OSError, urllib.error.URLError):
        return False


def _try_lock(lock: IO[bytes]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_free(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def _free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def _end_with_parent() -> None:
    """Have the kernel end this process with its parent, however that dies (prctl, Linux)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
