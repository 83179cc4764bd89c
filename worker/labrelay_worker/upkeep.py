"""What `labrelay up` runs on this machine, known by the lock of its process, and how `labrelay down` ends it."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from labrelay.errors import BootError, LabrelayError

_POLL_SECONDS = 0.1


@contextmanager
def only_one(home: Path) -> Iterator[None]:
    """Be the only `labrelay up` of a home while the block runs.

    Raises
    ------
    BootError
        Another one runs, or the home cannot be written to.
    """
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (home / "up.lock").open("a+b")
    except OSError as error:
        raise BootError(f"{home} cannot be written to ({error.strerror}): correct it or LABRELAY_HOME") from None
    with lock:
        if not _try_lock(lock.fileno()):
            raise BootError(
                f"`labrelay up` runs already on {home} (process {_pid(home)}). Start further workers with `labrelay "
                "worker`, or end it with `labrelay down`"
            )
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n".encode())
        lock.flush()
        yield


def end_up(home: Path, patience: float) -> bool:
    """End the `labrelay up` of a home; return whether there was one.

    Raises
    ------
    LabrelayError
        It does not end in time.
    """
    if not _is_up(home):
        return False
    pid = _pid(home)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + patience
    while _is_up(home):
        if time.monotonic() > deadline:
            raise LabrelayError(f"`labrelay up` (process {pid}) does not end; what it runs goes on until it does")
        time.sleep(_POLL_SECONDS)
    return True


def _is_up(home: Path) -> bool:
    try:
        with (home / "up.lock").open("rb") as lock:
            return not _try_lock(lock.fileno())
    except FileNotFoundError:
        return False


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _pid(home: Path) -> int:
    text = (home / "up.lock").read_text().strip()
    return int(text) if text.isdecimal() else 0
