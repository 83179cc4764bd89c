"""The reading half of hosting a storage class of OpenHCS's interface: addresses, questions, what is stored."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from copy import deepcopy
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from labrelay_worker.backends.base import (
    Address,
    Capability,
    Corrupt,
    IsADirectory,
    Kind,
    NotADirectory,
    NotFound,
    OutsideRoot,
    StorageBackend,
    Unsupported,
    clean,
    from_os_error,
    is_listed,
    is_partial,
    refusal,
)
from labrelay_worker.backends.files import hash_file, partial_name
from labrelay_worker.backends.foreign_errors import understood
from labrelay_worker.backends.tree import split

_MOST_LINKS = 40  # as Linux


class ForeignReading(StorageBackend):
    """Asks the hosted class, whose answers often come as exceptions, and whose addresses are full paths.

    Parameters
    ----------
    root
        Folder that all addresses lie below; default: the working directory.
    options
        The hosted class's own.
    """

    #: The class that does the work.
    hosted: ClassVar[type]

    def __init__(self, *, root: str | Path | None = None, **options: Any) -> None:
        self._root = os.path.realpath(Path(root).expanduser() if root is not None else Path.cwd())
        self._theirs: Any = self.hosted(**options)
        self._lock = threading.RLock()
        self._on_disk: bool | None = None
        self._closed = False

    # --- reading ----------------------------------------------------------------------------------------------

    def load(self, file_path: Address) -> Any:
        """Return what is stored, the caller's own; bytes where the class can write a suffix but not read it."""
        where = self._file(file_path)
        with self._lock, understood(file_path, Corrupt):
            try:
                payload = self._theirs.load(where)
                if isinstance(payload, str) and hasattr(self._theirs, "load_text"):
                    payload = self._theirs.load_text(where)  # `load` changes line ends
            except ValueError as error:
                if error.__cause__ is not None or not self._is_on_disk():
                    raise
                payload = Path(where).read_bytes()
            return deepcopy(payload)

    def size(self, path: Address) -> int:
        """Return the number of bytes stored."""
        where = self._file(path)
        with self._lock, understood(path, Unsupported):
            if self._is_on_disk() and Path(where).is_file():
                return Path(where).stat().st_size
        payload = self.load(path)
        return int(payload.nbytes) if hasattr(payload, "nbytes") else super().size(path)

    def sha256(self, path: Address) -> str:
        """Return the sha256 (hex) of the stored bytes."""
        where = self._file(path)
        with self._lock, understood(path, Unsupported):
            if self._is_on_disk() and Path(where).is_file():
                return hash_file(Path(where))
        return super().sha256(path)

    def list_files(
        self,
        directory: Address,
        pattern: str | None = None,
        extensions: Collection[str] | None = None,
        recursive: bool = False,
    ) -> list[Path]:
        """Return sorted addresses of files."""
        where, given = self._directory(directory), Path(clean(directory))
        with self._lock, understood(directory, Unsupported):
            found = list(self._files(where, recursive=recursive))
        below = [PurePosixPath(path).relative_to(where) for path in found]
        return sorted(given / path for path in below if is_listed(path.name, pattern, extensions))

    def list_dir(self, path: Address) -> list[str]:
        """Return the sorted names in a directory."""
        where = self._directory(path)
        with self._lock, understood(path, Unsupported):
            return self._names(where)

    def is_file(self, path: Address) -> bool:
        """Return whether it is a file."""
        return self._followed_kind(path) == "file"

    def is_dir(self, path: Address) -> bool:
        """Return whether it is a directory."""
        return self._followed_kind(path) == "directory"

    def is_symlink(self, path: Address) -> bool:
        """Return whether it is a symlink."""
        with self._lock:
            return self._is_link(self._where(path))

    def stat(self, path: Address) -> dict[str, Any]:
        """Return what is there; see the base class."""
        where = self._where(path)
        with self._lock, understood(path, Unsupported):
            kind = self._kind(where)
            result = {"path": clean(path), "type": kind or "missing", "exists": kind is not None}
            if self._is_link(where):
                target = str(self._theirs.stat(where)["target"])
                shown = os.path.relpath(target, self._root) if target.startswith(self._root) else target
                return result | {"type": "symlink", "target": shown, "exists": self.exists(path)}
            if kind == "file":
                with suppress(Unsupported):
                    result["size"] = self.size(path)
            return result

    def url(self, path: Address) -> str:
        """Return the key and the path."""
        return f"{self._backend_type}:{self._where(path)}"

    # --- life ---------------------------------------------------------------------------------------------------

    def cleanup_connections(self) -> None:
        """Close the hosted class's connections, if it knows how."""
        _call(self._theirs, "cleanup_connections")

    def cleanup(self) -> None:
        """Close the hosted class, if it knows how, once."""
        if not self._closed:
            self._closed = True
            _call(self._theirs, "cleanup")

    # --- addresses ------------------------------------------------------------------------------------------------

    def _where(self, address: Address, *, follow: bool = False) -> str:
        """Return the hosted class's name for an address: below the root, symlinks on the way resolved."""
        ahead, links, here = deque(self._below(address)), 0, self._root
        with self._lock:
            while ahead:
                below = str(PurePosixPath(here) / ahead.popleft())
                if (ahead or follow) and self._is_link(below):
                    links += 1
                    if links > _MOST_LINKS:
                        msg = f"{clean(address)}: the symlinks lead in a circle; correct them"
                        raise Unsupported(msg)
                    target = os.path.normpath(PurePosixPath(here) / str(self._theirs.stat(below)["target"]))
                    ahead.extendleft(reversed(self._below(target)))
                    below = self._root
                here = below
        return here

    def _below(self, address: Address) -> tuple[str, ...]:
        text = clean(address)
        if text == self._root or text.startswith(f"{self._root}/"):
            return split(os.path.relpath(os.path.normpath(text), self._root))
        try:
            return split(text)
        except OutsideRoot as error:
            msg = f"{text}: leads out of the root folder {self._root}; refused"
            raise OutsideRoot(msg) from error

    def _below_root(self, address: Address) -> str:
        where = self._where(address)
        if where == self._root:
            msg = f"{clean(address)}: the root itself cannot be moved or deleted; take what is in it"
            raise Unsupported(msg)
        return where

    def _file(self, address: Address) -> str:
        where = self._where(address, follow=True)
        if self._need(where, address) == "directory":
            msg = f"{clean(address)}: this is a directory"
            raise IsADirectory(msg)
        return where

    def _directory(self, address: Address) -> str:
        where = self._where(address, follow=True)
        if where == self._root:
            with self._lock, understood(address, Unsupported):
                self._theirs.ensure_directory(where)
        if self._need(where, address) == "file":
            msg = f"{clean(address)}: a directory is needed, and a file is in its place"
            raise NotADirectory(msg)
        return where

    # --- questions to the hosted class, which answers some of them by raising ------------------------------------

    def _is_link(self, where: str) -> bool:
        if "symlinks" in self.cannot:
            return False
        return self._says(self._theirs.is_symlink, where)

    def _kind(self, where: str) -> Kind | None:
        """Return what is there; a symlink counts as a file."""
        if self._is_link(where):
            return "file"
        if self._says(self._theirs.is_file, where):
            return "file"
        return "directory" if self._says(self._theirs.is_dir, where) else None

    def _says(self, question: Callable[[str], object], where: str) -> bool:
        try:
            return bool(question(where))
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError, ValueError, TypeError):
            return False
        except OSError as error:
            reason = from_os_error(error, where)
            if isinstance(reason, Unsupported):  # no such name can be
                return False
            raise reason from error

    def _followed_kind(self, address: Address) -> Kind | None:
        try:
            where = self._where(address, follow=True)
        except OutsideRoot:
            raise
        except Unsupported:
            clean(address)  # no address at all; else symlinks in a circle
            return None
        with self._lock:
            return self._kind(where)

    def _need(self, where: str, address: Address) -> Kind:
        with self._lock:
            kind = self._kind(where)
            if kind is not None:
                return kind
            for parent in PurePosixPath(where).relative_to(self._root).parents:
                if self._kind(str(PurePosixPath(self._root) / parent)) == "file":
                    msg = f"{clean(address)}: a directory is needed, and a file is in its place"
                    raise NotADirectory(msg)
        msg = f"{clean(address)}: there is nothing at this address"
        raise NotFound(msg)

    def _names(self, where: str) -> list[str]:
        return sorted(name for name in self._theirs.list_dir(where) if not is_partial(name))

    def _files(self, where: str, *, recursive: bool) -> Iterator[str]:
        for name in self._names(where):
            here = str(PurePosixPath(where) / name)
            if self._is_link(here):
                if self._followed_kind(here) == "file":
                    yield here
            elif self._kind(here) == "file":
                yield here
            elif recursive:
                yield from self._files(here, recursive=True)

    def _can(self, capability: Capability) -> None:
        if capability in self.cannot:
            raise refusal(self, capability)

    def _is_on_disk(self) -> bool:
        """Return whether it keeps plain files where its addresses say; a folder that it makes tells."""
        if self._on_disk is None:
            probe = str(PurePosixPath(self._root) / partial_name())
            try:
                self._theirs.ensure_directory(probe)
                self._on_disk = "moves" not in self.cannot and Path(probe).is_dir()
                self._theirs.delete_all(probe)
            except (OSError, ValueError):  # read-only: asked again next time
                return False
        return self._on_disk


def _call(theirs: object, name: str) -> None:
    method = getattr(theirs, name, None)
    if callable(method):
        method()
