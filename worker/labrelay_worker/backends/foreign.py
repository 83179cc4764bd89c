"""Host a storage class of OpenHCS's interface, so that it keeps our contract: same errors, policy, wholeness.

The class is used as it is; only its own methods touch what it stores, except for one step: what it wrote into the
local file system is put in its place by a rename, which its interface has no method for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from labrelay_worker.backends.base import (
    Address,
    Capability,
    IfExists,
    IsADirectory,
    Kind,
    NotADirectory,
    Unsupported,
    clean,
    pairs,
    refusal,
    require_distinct,
    settle,
)
from labrelay_worker.backends.files import NO_HARD_LINKS, partial_name, rename_exclusive, sync, sync_folder
from labrelay_worker.backends.foreign_errors import understood
from labrelay_worker.backends.foreign_reading import ForeignReading


class ForeignStorage(ForeignReading):
    """Base of the hosts that `adopt` makes.

    Calls are made one at a time: the hosted classes promise nothing about threads. What is saved is first staged
    under a hidden name beside its target. On a local disk it then takes the target's place in one step; elsewhere
    (in memory) in two, which nobody who comes through this instance sees. A batch is all or nothing against errors;
    a kill can leave its first files.

    Parameters
    ----------
    root
        Folder that all addresses lie below; default: the working directory.
    options
        The hosted class's own.
    """

    #: What a class that keeps arrays only (``supports_arbitrary_files = False``) is not asked for.
    ARRAYS_ONLY: ClassVar[frozenset[Capability]] = frozenset(
        {"batches", "bytes", "copies", "directories", "moves", "objects", "replacing", "symlinks"}
    )

    # --- writing ----------------------------------------------------------------------------------------------

    def save(self, data: Any, identifier: Address, *, if_exists: IfExists = "error") -> None:
        """Store one payload."""
        self.save_batch([data], [identifier], if_exists=if_exists)

    def save_batch(
        self, data_list: Sequence[Any], identifiers: Sequence[Address], *, if_exists: IfExists = "error"
    ) -> None:
        """Store all payloads or none."""
        batch = pairs(data_list, identifiers)
        if len(batch) > 1 and "batches" in self.cannot:
            raise refusal(self, "batches")
        wheres = [self._where(address) for _, address in batch]
        require_distinct(wheres)
        with self._change() as undo:
            staged: list[tuple[str, str]] = []
            for (payload, address), where in zip(batch, wheres, strict=True):
                with understood(address, Unsupported):
                    if settle(self._kind(where), "file", if_exists, address):
                        self._check(payload, address)
                        staged.append((self._stage(where, address, _own(payload, address), undo), where))
            for here, there in staged:
                with understood(there, Unsupported):
                    self._publish(here, there, undo)

    def create_symlink(self, source: Address, link: Address, overwrite: bool = False) -> None:
        """Make a link to an existing source."""
        self._can("symlinks")
        to, at = self._where(source, follow=True), self._where(link)
        with self._change() as undo, understood(link, Unsupported):
            self._need(to, source)
            if settle(self._kind(at), "file", "replace" if overwrite else "error", link):
                here = self._hidden(at, undo)
                self._theirs.create_symlink(self._where(source), here)
                self._publish(here, at, undo)

    def move(self, source: Address, target: Address, *, if_exists: IfExists = "error") -> None:
        """Move a file, a symlink itself or a directory."""
        self._can("moves")
        here, there = self._below_root(source), self._where(target)
        with self._change() as undo, understood(target, Unsupported):
            if self._may_put(here, source, there, target, if_exists):
                self._make_folder(str(PurePosixPath(there).parent), undo)
                self._publish(here, there, undo)

    def copy(self, source: Address, target: Address, *, if_exists: IfExists = "error") -> None:
        """Copy a file, what a symlink leads to, or a directory."""
        self._can("copies")
        here, there = self._where(source, follow=True), self._where(target)
        with self._change() as undo, understood(target, Unsupported):
            if self._may_put(here, source, there, target, if_exists):
                hidden = self._hidden(there, undo)
                self._theirs.copy(here, hidden)
                self._publish(hidden, there, undo)

    def ensure_directory(self, directory: Address) -> Path:
        """Make a directory and its parents."""
        where = self._where(directory, follow=True)
        if self._kind(where) == "file":
            raise NotADirectory(f"{clean(directory)}: a file is in its place")
        self._can("directories")
        with self._lock, understood(directory, Unsupported):
            self._theirs.ensure_directory(where)
        return Path(clean(directory))

    def delete(self, path: Address) -> None:
        """Delete a file, a symlink or an empty directory."""
        where = self._below_root(path)
        with self._lock, understood(path, Unsupported):
            if self._need(where, path) == "directory":
                if self._names(where):
                    raise IsADirectory(
                        f"{clean(path)}: the directory is not empty; delete_all deletes it with its content"
                    )
                self._theirs.delete_all(where)
            else:
                self._delete_file(where)

    def delete_all(self, path: Address) -> None:
        """Delete a file, a symlink or a directory with all it holds."""
        where = self._below_root(path)
        with self._lock, understood(path, Unsupported):
            if self._need(where, path) == "directory":
                self._theirs.delete_all(where)
            else:
                self._delete_file(where)

    # --- steps of a change ---------------------------------------------------------------------------------------

    @contextmanager
    def _change(self) -> Iterator[list[Callable[[], object]]]:
        """Hold the lock; take the steps back from the last to the first when one fails."""
        undo: list[Callable[[], object]] = []
        with self._lock:
            self._leftovers: list[str] = []
            try:
                yield undo
            except BaseException:
                for step in reversed(undo):
                    with suppress(Exception):
                        step()
                raise
            finally:
                for folder in self._leftovers:
                    with suppress(Exception):
                        self._theirs.delete_all(folder)

    def _hidden(self, there: str, undo: list[Callable[[], object]]) -> str:
        """Return a name of the same suffix in a new hidden folder beside the target."""
        parent = PurePosixPath(there).parent
        self._make_folder(str(parent), undo)
        folder = str(parent / partial_name())
        self._theirs.ensure_directory(folder)
        self._leftovers.append(folder)
        undo.append(lambda: self._theirs.delete_all(folder))
        return str(PurePosixPath(folder) / PurePosixPath(there).name)

    def _stage(self, there: str, address: Address, payload: Any, undo: list[Callable[[], object]]) -> str:
        if "moves" in self.cannot:  # its names mean something in their place only
            if self._kind(there) is not None:
                raise refusal(self, "replacing")
            self._make_folder(str(PurePosixPath(there).parent), undo)
            undo.append(lambda: self._theirs.delete(there))
            self._theirs.save(payload, there)
            return there
        here = self._hidden(there, undo)
        self._theirs.save(payload, here)
        if self._kind(here) != "file":
            msg = (
                f"{clean(address)}: {self._backend_type} wrote a {type(payload).__name__} under another name; refused"
            )
            raise Unsupported(msg)
        if self._is_on_disk():
            with Path(here).open("rb") as file:
                sync(file.fileno())
        return here

    def _publish(self, here: str, there: str, undo: list[Callable[[], object]]) -> None:
        """Let what is here take the place there, whatever is there."""
        if here == there:
            return
        old = None
        if self._kind(there) is not None:
            old = self._hidden(there, undo)
            if self._is_on_disk():
                self._keep(there, old)
            else:
                self._theirs.move(there, old)
            undo.append(partial(self._put, old, there))
        self._put(here, there, exclusive=old is None)
        if old is None:
            undo.append(lambda: self._delete_file(there))

    def _put(self, here: str, there: str, *, exclusive: bool = False) -> None:
        if not self._is_on_disk():
            self._theirs.move(here, there)
        elif exclusive:
            rename_exclusive(Path(here), Path(there))
        else:
            Path(here).replace(there)
        if self._is_on_disk():
            sync_folder(Path(there).parent)

    def _keep(self, there: str, old: str) -> None:
        try:
            os.link(there, old, follow_symlinks=False)
        except OSError as error:
            if error.errno not in NO_HARD_LINKS:
                raise
            self._theirs.copy(there, old)

    def _make_folder(self, where: str, undo: list[Callable[[], object]]) -> None:
        """Make a folder and its parents; those below the root are taken back on an error."""
        self._theirs.ensure_directory(self._root)
        here = PurePosixPath(self._root)
        for part in PurePosixPath(where).relative_to(self._root).parts:
            here /= part
            kind = self._kind(str(here))
            if kind == "file" and not self._is_link(str(here)):
                msg = f"{here}: a directory is needed, and a file is in its place"
                raise NotADirectory(msg)
            if kind is None:
                self._theirs.ensure_directory(str(here))
                undo.append(partial(self._remove_if_empty, str(here)))

    def _remove_if_empty(self, where: str) -> None:
        if not self._names(where):
            self._theirs.delete_all(where)

    def _may_put(self, here: str, source: Address, there: str, target: Address, if_exists: IfExists) -> bool:
        kind: Kind = self._need(here, source)
        wanted = settle(self._kind(there), kind, if_exists, target)
        if wanted and there.startswith(f"{here}/"):
            msg = f"{clean(source)}: cannot be put into itself ({clean(target)})"
            raise Unsupported(msg)
        return wanted and here != there

    def _delete_file(self, where: str) -> None:
        if self._is_link(where):
            # A broken link is nothing to most of them; one that leads somewhere can be deleted.
            self._theirs.create_symlink(self._root, where, overwrite=True)
        self._theirs.delete(where)

    def _check(self, payload: Any, address: Address) -> None:
        if payload is None:  # which means a directory to some of them
            msg = f"{clean(address)}: nothing (None) cannot be kept by {self._backend_type}"
            raise Unsupported(msg)
        if isinstance(payload, bytes | bytearray | memoryview | str):
            self._can("bytes")
        elif isinstance(payload, list | tuple | dict):
            self._can("objects")


def _own(payload: Any, address: Address) -> Any:
    """Return a copy: some of them keep the caller's own object."""
    if isinstance(payload, bytearray | memoryview):
        return bytes(payload)
    try:
        return deepcopy(payload)
    except Exception as error:
        msg = f"{clean(address)}: a {type(payload).__name__} cannot be copied ({error})"
        raise Unsupported(msg) from error
