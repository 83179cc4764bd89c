"""The documents of a plate in a folder, committed under its one lock after the images they name."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from labrelay_worker.backends.base import Unavailable, from_os_error, is_partial, translated
from labrelay_worker.backends.files import partial_name, remove_stale, sync, sync_folder
from labrelay_worker.backends.ngff.images import LOCK
from labrelay_worker.backends.ngff.metadata import Version, root_key
from labrelay_worker.backends.ngff.plates import declared_in, documents
from labrelay_worker.reading.signal import Well

#: Seconds to wait for the other workers that commit to the same plate; one commit takes milliseconds.
LOCK_TIMEOUT = 60.0
_POLL = 0.01


def commit_plate(plate: Path, wells: Sequence[Well], version: Version) -> None:
    """Make the plate's documents say what it holds, under its one lock. Idempotent."""
    root = root_key(version)
    with translated(plate), _locked(plate):
        remove_stale(plate)
        known = declared_in(_content(plate / root))
        for key, text in documents(_fields(plate, root), known.joined(wells), version).items():
            if _content(plate / key) != text:
                _replace(plate / key, text)


def _fields(plate: Path, root: str) -> dict[tuple[str, str], list[int]]:
    found: dict[tuple[str, str], list[int]] = {}
    for row in _folders(plate):
        for column in _folders(row):
            numbers = [int(field.name) for field in _folders(column) if field.name.isdecimal()]
            numbers = [number for number in numbers if (column / str(number) / root).is_file()]
            if numbers:
                found[row.name, column.name] = numbers
    return found


def _folders(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        yield from [Path(entry.path) for entry in entries if entry.is_dir() and not is_partial(entry.name)]


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _replace(path: Path, text: bytes) -> None:
    temporary = path.with_name(partial_name())
    try:
        with temporary.open("xb") as file:
            file.write(text)
            file.flush()
            sync(file.fileno())
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


@contextmanager
def _locked(plate: Path) -> Iterator[None]:
    """Hold the plate's lock, which the system releases when its holder dies."""
    descriptor = os.open(plate / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        deadline = time.monotonic() + LOCK_TIMEOUT
        while not _try_lock(descriptor):
            if time.monotonic() > deadline:
                msg = f"{plate}: another process has held its lock for {LOCK_TIMEOUT:g} s; it is tried again later"
                raise Unavailable(msg)
            time.sleep(_POLL)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise from_os_error(error, LOCK) from error
    return True
