"""Files as they are when they are submitted: size and age, and the sha256 of what does not move meanwhile."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from pathlib import Path
from typing import Literal, NamedTuple

from labrelay.errors import InvalidInput, StillBeingWritten

#: Bytes up to which a file is read in one piece to hash it, at a third of the cost of reading it piece by piece.
_READ_WHOLE = 2**20
#: Windows would translate line ends otherwise.
_READ_ONLY = os.O_RDONLY | getattr(os, "O_BINARY", 0)


class NamedFile(NamedTuple):
    """A file, and where a context names it."""

    field: str
    path: Path
    role: Literal["raw", "preview", "derived"]


class Hashes:
    """The sha256 of files. One that many sessions of a submit name, a gain reference say, is read once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int, int, int], str] = {}

    def of(self, named: NamedFile, seen: os.stat_result) -> str:
        """Return the sha256 of a file that was just seen so.

        Raises
        ------
        InvalidInput
            It cannot be read.
        StillBeingWritten
            It moved meanwhile.
        """
        key = (os.fspath(named.path), seen.st_ino, seen.st_size, seen.st_mtime_ns)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = _sha256(named, seen)
        return known


def stat_settled(files: list[NamedFile], settle_seconds: float) -> list[os.stat_result]:
    """Return how files are, once the newest of them has not moved for so long.

    Raises
    ------
    InvalidInput
        One is missing, unreadable or no file.
    StillBeingWritten
        One moved meanwhile.
    """
    first = [_stat(named) for named in files]
    newest = max(seen.st_mtime for seen in first)
    fresh_for = settle_seconds - (time.time() - newest)
    if fresh_for <= 0:
        return first
    time.sleep(min(fresh_for, settle_seconds))
    for named, seen in zip(files, first, strict=True):
        _refuse_moved(named, seen, _stat(named))
    return first


def _stat(named: NamedFile) -> os.stat_result:
    try:
        found = named.path.stat()
    except FileNotFoundError:
        raise InvalidInput(
            named.field, f"no such file {named.path}", "Correct the path, --root or path_map"
        ) from None
    except (OSError, ValueError) as error:  # a null byte in a path is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise InvalidInput(named.field, f"{str(named.path)!r}: {reason}", "Make it readable") from None
    if not stat.S_ISREG(found.st_mode):
        raise InvalidInput(named.field, f"{named.path} is not a file", "Name a file")
    return found


def _refuse_moved(named: NamedFile, before: os.stat_result, after: os.stat_result) -> None:
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise StillBeingWritten(
            named.field, f"{named.path} is still being written", "Submit again when the instrument has finished"
        )


def _sha256(named: NamedFile, before: os.stat_result) -> str:
    try:
        if before.st_size <= _READ_WHOLE:
            result = hashlib.sha256(_read(named.path, before.st_size)).hexdigest()
        else:
            with named.path.open("rb", buffering=0) as file:  # `file_digest` has a buffer of its own
                result = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InvalidInput(named.field, f"{named.path}: {error.strerror}", "Make it readable") from None
    _refuse_moved(named, before, _stat(named))
    return result


def _read(path: Path, size: int) -> bytes:
    """Return a small file's content; a file object would cost three times as much."""
    descriptor = os.open(path, _READ_ONLY)
    try:
        return b"".join(iter(lambda: os.read(descriptor, size + 1), b""))
    finally:
        os.close(descriptor)
