"""Write files so that each is whole or not there, whatever stops the process. Used by the disk backend."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from labrelay_worker.backends.base import (
    Corrupt,
    IfExists,
    check_sha256,
    from_os_error,
    is_partial,
    settle,
    translated,
)
from labrelay_worker.backends.files import (
    NO_HARD_LINKS,
    hash_file,
    make_folders,
    partial_name,
    read_chunks,
    remove,
    rename_exclusive,
    sync,
    sync_folder,
)
from labrelay_worker.backends.journal import Change, Journal, recover, take_back


@dataclass(frozen=True)
class _Staged:
    temporary: Path
    target: Path


class Transaction:
    """Stage files beside their targets, then make all of them visible, or none.

    All or none holds against errors and against the end of the process: after a kill the next opener takes a
    half-published batch back (`journal`). While a batch is being published, and after a kill until somebody opens
    a folder of it, a reader can see its first files new and the others old; each single file is whole all the
    time. A kill before the first name changed leaves hidden files, and perhaps empty folders, nothing else.

    Parameters
    ----------
    verify
        Read every file back from the device before it becomes visible, and compare.
    """

    def __init__(self, *, verify: bool) -> None:
        self._verify = verify
        self._staged: list[_Staged] = []
        self._hidden: list[Path] = []
        self._folders: list[Path] = []
        self._changes: list[Change] = []
        #: Targets whose old content could not be kept; taking back what replaced it would leave neither.
        self._unkept: set[Path] = set()
        self._journal: Journal | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is not None and not self._take_back():
                return
        finally:
            if self._journal is not None:
                self._journal.release()
        for name in self._hidden:
            with suppress(OSError):  # gone already
                remove(name)
        if error is not None:
            for folder in reversed(self._folders):
                with suppress(OSError):  # a neighbour uses it by now
                    folder.rmdir()

    def stage(
        self, target: Path, chunks: Iterable[bytes | bytearray | memoryview], *, sha256: str | None = None
    ) -> tuple[int, str]:
        """Write a hidden file beside the target; return its size in bytes and its sha256.

        Raises
        ------
        Corrupt
            The content is not what `sha256` says, or the device did not give it back as it was written.
        OSError
            As the operating system says.
        """
        temporary = self._temporary_for(target)
        size, digest = self._write(temporary, chunks)
        check_sha256(digest, sha256, target)
        self._staged.append(_Staged(temporary, target))
        return size, digest

    def stage_copy(self, target: Path, source: Path) -> None:
        """Make a hidden copy of a file, a folder with all it holds, or a symlink itself beside the target."""
        temporary = self._temporary_for(target)
        self._copy(source, temporary)
        self._staged.append(_Staged(temporary, target))

    def stage_symlink(self, target: Path, to: Path) -> None:
        """Make a hidden symlink beside the target."""
        temporary = self._temporary_for(target)
        temporary.symlink_to(to)
        self._staged.append(_Staged(temporary, target))

    def make_parents(self, target: Path) -> None:
        """Make the folders above the target; those made are taken back on an error."""
        self._folders += make_folders(target.parent)

    def commit(self, if_exists: IfExists) -> None:
        """Make the staged files visible, in order, and durable.

        Raises
        ------
        BackendError
            AlreadyExists and its like; after leaving the transaction nothing new is visible and what was
            there is back.
        """
        is_batch = len(self._staged) > 1
        for staged in self._staged:
            with translated(staged.target):
                self._changes.append(self._change(staged, if_exists, is_batch=is_batch))
        if is_batch:
            with translated(self._staged[0].target):
                self._journal = Journal.write(self._changes, self._folders)
        for change in self._changes:
            try:
                if if_exists == "replace":
                    change.staged.replace(change.target)
                else:
                    rename_exclusive(change.staged, change.target)
            except FileExistsError:  # a writer that was faster; the policy decides
                settle("file", "file", if_exists, change.target)
            except OSError as error:
                raise from_os_error(error, change.target) from error
        for folder in dict.fromkeys(change.target.parent for change in self._changes):
            with translated(folder):
                sync_folder(folder)
        if self._journal is not None:
            with translated(self._staged[0].target):
                self._journal.discard()

    def _take_back(self) -> bool:
        """Return whether all is as it was; if not, the journal stays for the next opener, with what it needs."""
        try:
            take_back(change for change in self._changes if change.target not in self._unkept)
            if self._journal is not None:
                self._journal.discard()
        except OSError:
            return False
        return True

    def _change(self, staged: _Staged, if_exists: IfExists, *, is_batch: bool) -> Change:
        found = staged.temporary.lstat()
        backup = self._keep_old(staged.target, is_batch=is_batch) if if_exists == "replace" else None
        return Change(staged.temporary, staged.target, backup, (found.st_dev, found.st_ino))

    def _keep_old(self, target: Path, *, is_batch: bool) -> Path | None:
        backup = target.with_name(partial_name())
        self._hidden.append(backup)
        try:
            os.link(target, backup, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno not in NO_HARD_LINKS:
                raise
            if not is_batch:  # a single rename needs no backup, and a copy of a large file costs
                self._unkept.add(target)
                return None
            self._copy(target, backup)
        return backup

    def _temporary_for(self, target: Path) -> Path:
        temporary = target.with_name(partial_name())
        self._hidden.append(temporary)
        self.make_parents(target)
        return temporary

    def _write(self, path: Path, chunks: Iterable[bytes | bytearray | memoryview]) -> tuple[int, str]:
        digest, size = hashlib.sha256(), 0
        with os.fdopen(self._create(path), "wb") as file:
            for chunk in chunks:
                digest.update(chunk)
                size += file.write(chunk)
            file.flush()
            sync(file.fileno())
        if self._verify and hash_file(path, from_device=True) != digest.hexdigest():
            msg = f"{path.parent}: the device did not give back what was written; nothing was stored. Check it"
            raise Corrupt(msg)
        return size, digest.hexdigest()

    def _create(self, path: Path) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            return os.open(path, flags, 0o666)
        except FileNotFoundError:
            # A failing neighbour took back the folder that it had made for both of us.
            self._folders += make_folders(path.parent)
            return os.open(path, flags, 0o666)

    def _copy(self, source: Path, copy: Path) -> None:
        if source.is_symlink():
            copy.symlink_to(source.readlink())
        elif source.is_dir():
            recover(source)
            copy.mkdir()
            for entry in sorted(source.iterdir()):
                if not is_partial(entry.name):
                    self._copy(entry, copy / entry.name)
            sync_folder(copy)
        else:
            self._write(copy, read_chunks(source))
