"""Write files so that each is whole or not there, whatever stops the process. Used by the disk backend."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
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


@dataclass(frozen=True)
class _Staged:
    temporary: Path
    target: Path


class Transaction:
    """Stage files beside their targets, then make all of them visible, or none when anything fails.

    Against errors it is all or nothing. Against the end of the process each file is: a kill in the middle of
    `commit` leaves the first files published whole and the others absent.

    Parameters
    ----------
    verify
        Read every file back from the device before it becomes visible, and compare.
    """

    def __init__(self, *, verify: bool) -> None:
        self._verify = verify
        self._staged: list[_Staged] = []
        self._temporary: list[Path] = []
        self._folders: list[Path] = []
        self._undo: list[Callable[[], object]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failed = error is not None
        steps: list[Callable[[], object]] = [
            *(reversed(self._undo) if failed else ()),
            *(partial(remove, temporary) for temporary in self._temporary),
            *(folder.rmdir for folder in reversed(self._folders) if failed),
        ]
        for step in steps:
            with suppress(OSError):  # gone already, or a folder of ours that a neighbour uses by now
                step()

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
        for staged in self._staged:
            try:
                self._publish(staged, if_exists)
            except FileExistsError:  # a writer that was faster; the policy decides
                settle("file", "file", if_exists, staged.target)
            except OSError as error:
                raise from_os_error(error, staged.target) from error
        for folder in dict.fromkeys(staged.target.parent for staged in self._staged):
            with translated(folder):
                sync_folder(folder)

    def _publish(self, staged: _Staged, if_exists: IfExists) -> None:
        target = staged.target
        if if_exists == "replace":
            self._keep_old(target)
            staged.temporary.replace(target)
        else:
            rename_exclusive(staged.temporary, target)
            self._undo.append(partial(remove, target))

    def _keep_old(self, target: Path) -> None:
        backup = target.with_name(partial_name())
        try:
            os.link(target, backup, follow_symlinks=False)
        except FileNotFoundError:
            self._undo.append(target.unlink)
        except OSError as error:
            # Without hard links a batch that fails here leaves new content in the files before.
            if error.errno not in NO_HARD_LINKS:
                raise
        else:
            self._temporary.append(backup)
            self._undo.append(lambda: backup.replace(target))

    def _temporary_for(self, target: Path) -> Path:
        temporary = target.with_name(partial_name())
        self._temporary.append(temporary)
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
            copy.mkdir()
            for entry in sorted(source.iterdir()):
                if not is_partial(entry.name):
                    self._copy(entry, copy / entry.name)
            sync_folder(copy)
        else:
            self._write(copy, read_chunks(source))
