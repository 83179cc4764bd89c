"""Files on their way to a server: streamed, and checked while they are read."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from labrelay.errors import Rejected, Transient

#: Bytes read at once; two of them are in memory.
_CHUNK = 256 * 1024


async def checked_chunks(path: Path, *, sha256: str | None) -> AsyncIterator[bytes]:
    """Yield a file's bytes without ever holding the whole of it; a changed file is never sent whole.

    The last piece is held back until the checksum of all is known to be right: of a file that changed since it was
    submitted, the server gets a request that breaks off, and keeps nothing.

    Parameters
    ----------
    path
        The file.
    sha256
        What its content must be, as submitted; None: not known.

    Raises
    ------
    Rejected
        Its content is another by now.
    Transient
        It cannot be read on this worker at the moment.
    """
    digest = hashlib.sha256()
    held = b""
    file = _File(path)
    try:
        try:
            while chunk := await asyncio.to_thread(file.read):
                digest.update(chunk)
                if held:
                    yield held
                held = chunk
        finally:
            file.close()
    except OSError as error:
        raise Transient(f"cannot read {path} on this worker ({error.strerror}); is its share mounted here?") from None
    if sha256 is not None and digest.hexdigest() != sha256:
        raise Rejected(f"{path} changed since it was submitted; submit it again with --replace")
    if held:
        yield held


class _File:
    """A file that is read in threads and closed by whoever is last: closing never waits for a share that hangs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None
        self._closing = False

    def read(self) -> bytes:
        """Return the next piece; the first time, open the file."""
        with self._lock:
            if self._file is None and not self._closing:
                self._file = self._path.open("rb")
            piece = b"" if self._file is None or self._closing else self._file.read(_CHUNK)
        if self._closing:
            self.close()
        return piece

    def close(self) -> None:
        """Close the file now, or when the read under way returns."""
        self._closing = True
        if self._lock.acquire(blocking=False):
            try:
                if self._file is not None:
                    self._file.close()
            finally:
                self._lock.release()
