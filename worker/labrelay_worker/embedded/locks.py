"""Who holds which lock says everything, because the kernel lets go of the locks of a killed process.

``server.lock`` is held by the server itself, ``users.lock`` is shared by everyone who uses it, and ``start.lock`` is
held by whoever starts or stops it.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from labrelay.errors import BootError

_POLL_SECONDS = 0.02


def open_lock(folder: Path, name: str) -> IO[bytes]:
    """Open a lock file of the folder; closing it lets go of the lock."""
    return (folder / f"{name}.lock").open("ab")


def try_exclusive(lock: IO[bytes]) -> bool:
    """Take a lock for oneself alone; return whether it was free."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_running(folder: Path) -> bool:
    """Return whether a server runs on this folder."""
    with open_lock(folder, "server") as lock:
        return not try_exclusive(lock)


@contextmanager
def locked(folder: Path, patience: float) -> Iterator[None]:
    """Be the only one who starts or stops the server of a folder; raises BootError if that takes too long."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        with open_lock(folder, "start") as lock:
            if not wait_until(lambda: try_exclusive(lock), patience):
                msg = f"another process has been starting or stopping the Redis of {folder} for {patience:g} s"
                raise BootError(msg)
            yield
    except OSError as error:
        msg = f"the embedded Redis cannot use {folder}: {error}. Correct LABRELAY_HOME or set LABRELAY_REDIS_URL"
        raise BootError(msg) from error


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Await a condition; return whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True
