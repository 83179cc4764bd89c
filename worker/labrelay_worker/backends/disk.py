"""The disk backend: files in folders, each whole or not there, formats by suffix."""

from __future__ import annotations

import errno
import os
import stat as modes
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar

from labrelay_worker.backends.atomic import Transaction
from labrelay_worker.backends.base import (
    Address,
    IfExists,
    Kind,
    NotADirectory,
    NotFound,
    StorageBackend,
    Unsupported,
    clean,
    from_os_error,
    is_listed,
    is_partial,
    pairs,
    require_distinct,
    settle,
    translated,
)
from labrelay_worker.backends.files import (
    hash_file,
    list_below,
    make_folders,
    read_chunks,
    remove,
    remove_stale,
    rename_exclusive,
    sync_folder,
)
from labrelay_worker.backends.formats import decode, encode
from labrelay_worker.backends.journal import recover
from labrelay_worker.backends.rooted import Root

_MOST_SWEPT = 10_000  # folders remembered as free of stale files


class DiskBackend(StorageBackend):
    """Files on a local or mounted file system.

    Parameters
    ----------
    root
        Folder that relative addresses are resolved under and that no address may leave, be it by ``..``, as
        an absolute path or through a symlink. None: addresses are paths of this machine.
    verify
        Read every file back from the device and compare its sha256 before it becomes visible.
    create_root
        Whether to make a missing root. False for a mount point: when it is not mounted, the files would land
        on the local disk instead.
    """

    _backend_type: ClassVar[str | None] = "disk"

    def __init__(self, root: str | Path | None = None, *, verify: bool = True, create_root: bool = True) -> None:
        self._root = Root(root, create=create_root)
        self._verify = verify
        self._swept: set[Path] = set()

    def save(self, data: Any, identifier: Address, *, if_exists: IfExists = "error") -> None:
        """Write a file in the format of its suffix; bytes and text as they are."""
        self.save_batch([data], [identifier], if_exists=if_exists)

    def save_batch(
        self, data_list: Sequence[Any], identifiers: Sequence[Address], *, if_exists: IfExists = "error"
    ) -> None:
        """Write all files or none: all are staged before the first becomes visible."""
        batch = [(self._path(address), address, data) for data, address in pairs(data_list, identifiers)]
        require_distinct([target for target, _, _ in batch])
        with Transaction(verify=self._verify) as transaction:
            for target, address, data in batch:
                with translated(address):
                    if settle(_kind(target), "file", if_exists, address):
                        self._prepare(target)
                        transaction.stage(target, [encode(data, target.name)])
            transaction.commit(if_exists)

    def save_file(
        self, source: Path, identifier: Address, *, sha256: str | None = None, if_exists: IfExists = "error"
    ) -> tuple[int, str]:
        """Copy a local file in pieces of 1 MiB, hashing on the way; see the base class."""
        target = self._path(identifier)
        with Transaction(verify=self._verify) as transaction, translated(identifier):
            if settle(_kind(target), "file", if_exists, identifier):
                self._prepare(target)
                result = transaction.stage(target, read_chunks(Path(source)), sha256=sha256)
                transaction.commit(if_exists)
                if if_exists != "skip":  # else another writer may have been faster
                    return result
        return self.size(identifier), self.sha256(identifier)

    def load(self, file_path: Address) -> Any:
        """Return the content in the format of its suffix; bytes for an unknown one."""
        path = self._path(file_path, follow=True)
        with translated(file_path):
            content = path.read_bytes()
        return decode(content, path.name)

    def sha256(self, path: Address) -> str:
        """Return the sha256 (hex) of the file as it is on disk."""
        file = self._path(path, follow=True)
        with translated(path):
            return hash_file(file)

    def size(self, path: Address) -> int:
        """Return the size of the file in bytes."""
        file = self._path(path, follow=True)
        with translated(path), file.open("rb") as opened:  # opened, so that a directory is refused
            return os.fstat(opened.fileno()).st_size

    def list_files(
        self,
        directory: Address,
        pattern: str | None = None,
        extensions: Collection[str] | None = None,
        recursive: bool = False,
    ) -> list[Path]:
        """Return sorted addresses of files; unfinished ones are hidden, folders behind symlinks not entered."""
        folder, given = self._path(directory, follow=True), Path(clean(directory))
        with translated(directory):
            found = list(list_below(folder, recursive=recursive, before=recover))
        return sorted(given / path.relative_to(folder) for path in found if is_listed(path.name, pattern, extensions))

    def is_file(self, path: Address) -> bool:
        """Return whether it is a file."""
        return _kind(self._path(path, follow=True), follow=True) == "file"

    def is_dir(self, path: Address) -> bool:
        """Return whether it is a directory."""
        return _kind(self._path(path, follow=True), follow=True) == "directory"

    def list_dir(self, path: Address) -> list[str]:
        """Return the sorted names in a directory."""
        folder = self._path(path, follow=True)
        with translated(path):
            return sorted(entry.name for entry in folder.iterdir() if not is_partial(entry.name))

    def delete(self, path: Address) -> None:
        """Delete a file, a symlink or an empty directory."""
        target = self._below_root(path)
        with translated(path):
            if _kind(target) == "directory":
                remove_stale(target)
                target.rmdir()
            else:
                target.unlink()
            sync_folder(target.parent)

    def delete_all(self, path: Address) -> None:
        """Delete a file, a symlink or a directory with all it holds."""
        target = self._below_root(path)
        with translated(path):
            remove(target)
            sync_folder(target.parent)

    def ensure_directory(self, directory: Address) -> Path:
        """Make a directory and its parents."""
        folder = self._path(directory, follow=True)
        self._root.require()
        with translated(directory):
            make_folders(folder)
        return Path(clean(directory))

    def create_symlink(self, source: Address, link: Address, overwrite: bool = False) -> None:
        """Make a symlink to the source's absolute path, so that it survives being moved."""
        at, to = self._path(link), self._present(source)
        policy: IfExists = "replace" if overwrite else "error"
        with Transaction(verify=False) as transaction, translated(link):
            if settle(_kind(at), "file", policy, link):
                self._prepare(at)
                transaction.stage_symlink(at, to)
                transaction.commit(policy)

    def is_symlink(self, path: Address) -> bool:
        """Return whether it is a symlink."""
        return os.path.islink(self._path(path))  # noqa: PTH114  answers for impossible names, too

    def move(self, source: Address, target: Address, *, if_exists: IfExists = "error") -> None:
        """Move a file, a symlink itself or a directory; to another file system by way of a copy."""
        here, there = self._below_root(source), self._path(target)
        if not self._may_put(source, here, target, there, if_exists):
            return
        with Transaction(verify=self._verify) as transaction, translated(target):
            self._prepare(there)
            transaction.make_parents(there)
            try:
                if if_exists == "replace":
                    here.replace(there)
                else:
                    rename_exclusive(here, there)
            except FileExistsError:  # a writer that was faster; the policy decides
                settle("file", "file", if_exists, target)
                return
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                transaction.stage_copy(there, here)
                transaction.commit(if_exists)
                remove(here)
            sync_folder(there.parent)
            sync_folder(here.parent)

    def copy(self, source: Address, target: Address, *, if_exists: IfExists = "error") -> None:
        """Copy a file, what a symlink leads to, or a directory."""
        self._present(source)
        here, there = self._path(source, follow=True), self._path(target)
        if not self._may_put(source, here, target, there, if_exists):
            return
        with Transaction(verify=self._verify) as transaction, translated(target):
            self._prepare(there)
            transaction.stage_copy(there, here)
            transaction.commit(if_exists)

    def url(self, path: Address) -> str:
        """Return the ``file://`` address."""
        return self._path(path).absolute().as_uri()

    def stat(self, path: Address) -> dict[str, Any]:
        """Return what is there; see the base class."""
        found = self._path(path)
        kind = _kind(found)
        result = {"path": clean(path), "type": kind or "missing", "exists": kind is not None}
        if self.is_symlink(path):
            result |= {
                "type": "symlink",
                "target": self._root.shown(found.parent / found.readlink()),
                "exists": _kind(found, follow=True) is not None,
            }
        elif kind == "file":
            result["size"] = self.size(path)
        return result

    def cleanup(self) -> None:
        """Forget which folders were looked through for stale files."""
        self._swept.clear()

    def _path(self, address: Address, *, follow: bool = False) -> Path:
        """Return the path of an address, with batches that a kill left half-done on the way taken back."""
        path = self._root.path(address, follow=follow)
        with translated(address):
            for folder in (path, *path.parents):
                recover(folder)
                if folder == self._root.folder:
                    break
        return path

    def _prepare(self, target: Path) -> None:
        self._root.require()
        if target.parent not in self._swept:
            if len(self._swept) >= _MOST_SWEPT:
                self._swept.clear()
            remove_stale(target.parent)
            self._swept.add(target.parent)

    def _below_root(self, address: Address) -> Path:
        path = self._path(address)
        if self._root.is_itself(path):
            msg = f"{clean(address)}: the root itself cannot be moved or deleted; take what is in it"
            raise Unsupported(msg)
        return path

    def _present(self, address: Address) -> Path:
        if _kind(self._path(address, follow=True), follow=True) is None:
            msg = f"{clean(address)}: there is nothing at this address"
            raise NotFound(msg)
        return self._path(address)

    def _may_put(self, source: Address, here: Path, target: Address, there: Path, if_exists: IfExists) -> bool:
        kind = _kind(here)
        if kind is None:
            msg = f"{clean(source)}: there is nothing at this address"
            raise NotFound(msg)
        wanted = settle(_kind(there), kind, if_exists, target)
        if wanted and here in there.parents:
            msg = f"{clean(source)}: cannot be put into itself ({clean(target)})"
            raise Unsupported(msg)
        return wanted and here != there


def _kind(path: Path, *, follow: bool = False) -> Kind | None:
    """Return what is there; a symlink not followed counts as a file, as the overwrite policy has it."""
    try:
        mode = path.stat(follow_symlinks=follow).st_mode
    except OSError as error:
        reason = from_os_error(error, path)
        if isinstance(reason, NotFound | NotADirectory | Unsupported):
            return None
        raise reason from error
    return "directory" if modes.S_ISDIR(mode) else "file"
