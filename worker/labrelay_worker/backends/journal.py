"""Batches that no kill leaves half-done: how to take one back is on disk before its first name changes.

POSIX renames one name at once, never many. So a batch has an undo journal: a hidden file, in the deepest folder that
all its targets are in, which says for each target what was staged for it and where its old content is kept.

* The journal is on the device before the first target changes; taking it away is the moment the batch is done.
* Its writer holds a lock on it (``flock``) while it lives; the kernel takes the lock away with the process.
* Whoever finds a journal without a lock takes the batch back. Each step may be repeated, so a kill in the middle of
  that harms nothing either.

A target is only touched while it is the very file that the batch put there (same inode), so that what somebody wrote
after the kill stays. And whoever may write to the folder can put a file there that looks like a journal, so none is
obeyed that names anything but hidden files beside targets below its folder.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from labrelay_worker.backends.base import Unavailable, Unsupported, is_partial
from labrelay_worker.backends.files import JOURNALS, remove, sync, sync_folder

_COMPLETE = ".journal"  # a journal without this ending was never finished, and its batch not begun
_NOT_ALLOWED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


@dataclass(frozen=True)
class Change:
    """One target of a batch.

    Attributes
    ----------
    staged
        The hidden file that takes the target's place.
    target
        The name that people use.
    backup
        A second name of the old content; None when there was none.
    inode
        Device and inode number of what is staged.
    """

    staged: Path
    target: Path
    backup: Path | None
    inode: tuple[int, int]


class Journal:
    """The undo journal of one batch that is being published."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    @classmethod
    def write(cls, changes: Sequence[Change], folders: Sequence[Path]) -> Self:
        """Put the journal on the device, locked.

        Parameters
        ----------
        changes
            The targets, none of them changed yet.
        folders
            Folders made for the batch, outermost first; they go when it is taken back.

        Raises
        ------
        Unsupported
            The folder that all targets are in may not be written to.
        """
        common = Path(os.path.commonpath([change.target.parent for change in changes]))
        place = common / JOURNALS
        try:
            path, descriptor = _create(place)
        except OSError as error:
            if error.errno not in _NOT_ALLOWED:
                raise
            msg = f"{common}: the files of a batch need one folder above them all that may be written to"
            raise Unsupported(msg) from error
        complete = path.with_name(path.name + _COMPLETE)
        try:
            with os.fdopen(descriptor, "wb", closefd=False) as file:
                file.write(_encode(changes, folders, common))
            sync(descriptor)
            path.rename(complete)
            sync_folder(place)
            sync_folder(common)
        except BaseException:
            for left in (path, complete):
                left.unlink(missing_ok=True)
            _let_go(descriptor, place)
            raise
        return cls(complete, descriptor)

    def discard(self) -> None:
        """Take the journal away, durably: from here on the batch stays as it is."""
        self._path.unlink(missing_ok=True)
        sync_folder(self._path.parent)

    def release(self) -> None:
        """Let go of the lock; a journal that is still there is for the next opener."""
        if self._descriptor >= 0:
            _let_go(self._descriptor, self._path.parent)
            self._descriptor = -1


def take_back(changes: Iterable[Change]) -> None:
    """Give every target its old content again, or take it away where there was none."""
    changes = list(changes)
    for change in reversed(changes):
        if _inode(change.target) == change.inode:
            if change.backup is None:
                change.target.unlink()
            else:
                with suppress(FileNotFoundError):
                    change.backup.replace(change.target)
    for folder in dict.fromkeys(change.target.parent for change in changes):
        sync_folder(folder)


def recover(folder: Path) -> None:
    """Take back the batches whose journals are in this folder and whose writers are dead.

    What this process may not change stays as it is, for one that may.

    Raises
    ------
    Unavailable
        There is a journal that no batch can have written; it stays, for a person to look at.
    """
    place = folder / JOURNALS
    try:
        names = os.listdir(place)  # noqa: PTH208  one system call for every folder on the way of every address
    except OSError:  # nearly always: there is none
        return
    if place.is_symlink():  # what it leads to is somebody's, and no journals
        return
    try:
        for name in names:
            with suppress(FileNotFoundError):
                _recover_one(place / name)
        with suppress(OSError):  # a living writer has its journal there
            place.rmdir()
    except OSError as error:
        if error.errno not in _NOT_ALLOWED:
            raise


def _let_go(descriptor: int, place: Path) -> None:
    os.close(descriptor)
    with suppress(OSError):  # there is another journal in it
        place.rmdir()


def _recover_one(path: Path) -> None:
    with path.open("rb") as file:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # its writer lives
            return
        if os.fstat(file.fileno()).st_nlink == 0:  # its writer, or another opener, was done just now
            return
        if path.name.endswith(_COMPLETE):
            changes, folders = _decode(file.read(), path)
            take_back(changes)
            hidden = (name for change in changes for name in (change.staged, change.backup) if name is not None)
            for name in hidden:
                with suppress(FileNotFoundError):
                    remove(name)
        else:
            folders = []
        path.unlink()
        sync_folder(path.parent)
    with suppress(OSError):
        path.parent.rmdir()
    for folder in reversed(folders):
        with suppress(OSError):  # somebody uses it by now
            folder.rmdir()


def _create(place: Path) -> tuple[Path, int]:
    """Make and lock a journal file; another process may take the folder, or the file, away in between."""
    while True:
        with suppress(FileExistsError):
            place.mkdir()
        path = place / uuid.uuid4().hex
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            continue
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return path, descriptor
        os.close(descriptor)


def _encode(changes: Sequence[Change], folders: Sequence[Path], common: Path) -> bytes:
    # Relative, so that a folder moved or mounted elsewhere can still be put right.
    def relative(path: Path | None) -> str | None:
        return None if path is None else os.path.relpath(path, common)

    document = {
        "changes": [
            [relative(change.staged), relative(change.target), relative(change.backup), *change.inode]
            for change in changes
        ],
        "folders": [relative(folder) for folder in folders],
    }
    return json.dumps(document).encode("ascii")


def _decode(content: bytes, journal: Path) -> tuple[list[Change], list[Path]]:
    common = journal.parents[1]

    def absolute(path: str) -> Path:
        return Path(os.path.normpath(common / path))

    try:
        document: dict[str, list[Any]] = json.loads(content)
        changes = [
            Change(absolute(staged), absolute(target), None if backup is None else absolute(backup), (device, inode))
            for staged, target, backup, device, inode in document["changes"]
        ]
        folders = [absolute(folder) for folder in document["folders"]]
    except (KeyError, TypeError, ValueError):
        raise _not_ours(journal) from None
    if not all(_is_within(change, common) for change in changes):
        raise _not_ours(journal)
    return changes, [folder for folder in folders if folder.is_relative_to(common) or common.is_relative_to(folder)]


def _is_within(change: Change, common: Path) -> bool:
    """Return whether a change is one of files below a folder, no symlink on the way, and hidden ones beside them."""
    parent = change.target.parent
    hidden = [path for path in (change.staged, change.backup) if path is not None]
    return Path(os.path.realpath(parent)).is_relative_to(os.path.realpath(common)) and all(
        path.parent == parent and is_partial(path.name) for path in hidden
    )


def _not_ours(journal: Path) -> Unavailable:
    return Unavailable(f"{journal}: no batch can have written this journal; look at it, and remove it")


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino
