"""Small file operations that do not lie: durable, exclusive, and measured. Used by the disk backend."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import mmap
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from labrelay_worker.backends.base import is_partial, translated

CHUNK = 1 << 20  # bytes held at once while a file is copied or hashed

#: Seconds after which an unfinished file belongs to nobody: its writer was killed.
STALE_AFTER = 24 * 3600

#: Name of the hidden folder with the journals of batches that are being written (`journal`).
JOURNALS = ".batches.partial"

#: What file systems without hard links (exFAT, some network drives) answer.
NO_HARD_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})
_POPULATE_READ = 22  # Linux 5.14, madvise(2): MADV_POPULATE_READ
_NO_FOLDER_SYNC = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EBADF})


def partial_name() -> str:
    """Return a new name for an unfinished file: short, so that it fits wherever the final name does."""
    return f".{uuid.uuid4().hex}.partial"


def sync(descriptor: int) -> None:
    """Wait until a file's content is on the device."""
    os.fsync(descriptor)
    if (full := getattr(fcntl, "F_FULLFSYNC", None)) is not None:  # macOS: fsync stops at the drive's cache
        fcntl.fcntl(descriptor, full)


def sync_folder(folder: Path) -> None:
    """Wait until a folder's names are on the device, where the file system knows how."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def read_chunks(source: Path, *, from_device: bool = False) -> Iterator[bytes]:
    """Yield a file's content in pieces of at most 1 MiB; for `from_device` see `hash_file`.

    Raises backend errors that name the source.
    """
    with translated(source), source.open("rb", buffering=0) as file:
        if from_device:
            _forget_cached(file.fileno())
        while chunk := file.read(CHUNK):
            yield chunk


def read_span(descriptor: int, start: int, length: int) -> bytes | memoryview:
    """Return a part of an open file; a large one without copying it, where the system can say that it is all there.

    A negative start counts from the end. The file must not be cut shorter while the result is in use; one that is
    replaced or deleted may be.
    """
    size = os.fstat(descriptor).st_size
    if start < 0:
        start += size
    if length >= CHUNK and start + length <= size:
        margin = start % mmap.ALLOCATIONGRANULARITY
        with suppress(OSError):  # a system without it, or a damaged device: reading says which
            mapped = mmap.mmap(descriptor, margin + length, access=mmap.ACCESS_READ, offset=start - margin)
            # The whole part in large reads: populating alone fetches from the device page by page.
            mapped.madvise(mmap.MADV_WILLNEED)
            # An unreadable page would otherwise end the process when it is touched.
            mapped.madvise(_POPULATE_READ)
            return memoryview(mapped)[margin:]
    return os.pread(descriptor, length, start)


def list_below(folder: Path, *, recursive: bool, before: Callable[[Path], object]) -> Iterator[Path]:
    """Yield the files in a folder; unfinished ones are left out, folders behind symlinks not entered.

    `before` is called with every folder before it is looked into.
    """
    before(folder)
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_partial(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                if recursive:
                    yield from list_below(Path(entry.path), recursive=True, before=before)
            elif os.path.isfile(entry.path):  # noqa: PTH113  unlike the others, False for symlinks in a circle
                yield Path(entry.path)


def hash_file(path: Path, *, from_device: bool = False) -> str:
    """Return the sha256 (hex) of a file's content.

    Parameters
    ----------
    path
        The file.
    from_device
        Whether to drop the page cache's copy first: comparing memory with memory proves nothing.
    """
    with path.open("rb") as file:
        if from_device:
            _forget_cached(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_folders(folder: Path) -> list[Path]:
    """Make a folder and its parents, durably; return those that were made, outermost first."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    made: list[Path] = []
    try:
        for path in reversed(missing):
            if _make_folder(path):
                made.append(path)
                sync_folder(path.parent)
    except OSError:
        for path in reversed(made):
            with suppress(OSError):  # a neighbour uses it by now
                path.rmdir()
        raise
    return made


def rename_exclusive(source: Path, target: Path) -> None:
    """Rename, unless the target exists; of two that try at once, one wins. Raises FileExistsError."""
    if source.is_dir() and not source.is_symlink():
        # A rename takes the place of an empty folder in one step, so making it claims the name.
        target.mkdir()
        try:
            source.rename(target)
        except OSError:
            target.rmdir()
            raise
        return
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in NO_HARD_LINKS:
            raise
        _claim_and_replace(source, target)
    else:
        source.unlink()


def remove_stale(folder: Path) -> None:
    """Delete unfinished files that a killed writer left a day ago; they would fill the disk unseen."""
    oldest = time.time() - STALE_AFTER
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            # Not the modification time: a backup made a second ago has that of its old content.
            if _may_be_stale(entry.name) and entry.stat(follow_symlinks=False).st_ctime < oldest:
                remove(Path(entry.path))


def remove(path: Path) -> None:
    """Delete a file, a symlink itself, or a folder with all it holds."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _forget_cached(descriptor: int) -> None:
    """Drop the page cache's copy of a synced file, where the system knows how."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def _may_be_stale(name: str) -> bool:
    # Journals are dealt with by their locks, not by their age.
    return is_partial(name) and name != JOURNALS


def _make_folder(path: Path) -> bool:
    try:
        path.mkdir()
    except FileExistsError:
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "a file is in its place", str(path)) from None
        return False
    return True


def _claim_and_replace(source: Path, target: Path) -> None:
    """Do without hard links: an empty file claims the name, for an instant that readers can see."""
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC))
    try:
        source.replace(target)
    except OSError:
        target.unlink()
        raise
