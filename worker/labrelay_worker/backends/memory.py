"""The memory backend: payloads as objects in this process, for tests, hand-overs and small derived data.

It gives back the very kind of object that was saved; the disk backend gives what the suffix says.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar

from labrelay_worker.backends.base import (
    Address,
    IfExists,
    IsADirectory,
    Kind,
    NotADirectory,
    StorageBackend,
    Unsupported,
    clean,
    is_listed,
    pairs,
    require_distinct,
    settle,
)
from labrelay_worker.backends.tree import Directory, File, Link, Node, Tree, Undo, split, twin


class MemoryBackend(StorageBackend):
    """Keeps isolated copies: changing an object after `save` or after `load` changes nothing stored.

    Parameters
    ----------
    max_bytes
        Most bytes of payload to hold, 1 GiB unless told; names are not counted. A save beyond it raises
        Unavailable and stores nothing, and nothing that is stored is ever dropped to make room.
    """

    _backend_type: ClassVar[str | None] = "memory"
    outlives_process: ClassVar[bool] = False

    def __init__(self, max_bytes: int = 1 << 30) -> None:
        self._tree = Tree(max_bytes)
        # Held for look-ups only: payloads are copied outside it, they never change once stored.
        self._lock = threading.RLock()

    def save(self, data: Any, identifier: Address, *, if_exists: IfExists = "error") -> None:
        """Store a copy. Raises Unsupported for what cannot be copied, e.g. an open file."""
        self.save_batch([data], [identifier], if_exists=if_exists)

    def save_batch(
        self, data_list: Sequence[Any], identifiers: Sequence[Address], *, if_exists: IfExists = "error"
    ) -> None:
        """Store copies of all, or nothing."""
        batch = [(split(address), address, payload) for payload, address in pairs(data_list, identifiers)]
        require_distinct([parts for parts, _, _ in batch])
        sizes = [_measure(payload) for _, _, payload in batch]
        if sum(sizes) > self._tree.max_bytes:  # before the copies, which may not fit into the machine either
            self._tree.check_room(sum(sizes))
        files = [File(_isolated(item[2], item[1]), size) for item, size in zip(batch, sizes, strict=True)]
        with self._change() as undo:
            for (parts, address, _), file in zip(batch, files, strict=True):
                if settle(self._tree.kind(parts), "file", if_exists, address):
                    self._tree.put(parts, file, undo)

    def load(self, file_path: Address) -> Any:
        """Return a copy of the payload."""
        with self._lock:
            file = self._tree.file(split(file_path))
        return _isolated(file.payload, file_path)

    def size(self, path: Address) -> int:
        """Return the bytes the payload occupies: an array's ``nbytes``, an estimate for other objects."""
        with self._lock:
            return self._tree.file(split(path)).size

    def list_files(
        self,
        directory: Address,
        pattern: str | None = None,
        extensions: Collection[str] | None = None,
        recursive: bool = False,
    ) -> list[Path]:
        """Return sorted addresses of files."""
        with self._lock:
            found = list(self._tree.files(split(directory), recursive=recursive))
        return sorted(Path(clean(directory), *parts) for parts in found if is_listed(parts[-1], pattern, extensions))

    def is_file(self, path: Address) -> bool:
        """Return whether it is a file."""
        return isinstance(self._look(path), File)

    def is_dir(self, path: Address) -> bool:
        """Return whether it is a directory."""
        return isinstance(self._look(path), Directory)

    def list_dir(self, path: Address) -> list[str]:
        """Return the sorted names in a directory."""
        with self._lock:
            return sorted(self._tree.directory(split(path)).children)

    def delete(self, path: Address) -> None:
        """Delete a file, a symlink or an empty directory."""
        with self._change() as undo:
            node = self._tree.take(split(path), undo)
            if isinstance(node, Directory) and node.children:
                msg = f"{clean(path)}: the directory is not empty; delete_all deletes it with its content"
                raise IsADirectory(msg)

    def delete_all(self, path: Address) -> None:
        """Delete a file, a symlink or a directory with all it holds."""
        with self._change() as undo:
            self._tree.take(split(path), undo)

    def ensure_directory(self, directory: Address) -> Path:
        """Make a directory and its parents."""
        with self._change() as undo:
            self._tree.make(split(directory), undo)
        return Path(clean(directory))

    def create_symlink(self, source: Address, link: Address, overwrite: bool = False) -> None:
        """Make a link to an existing source."""
        with self._change() as undo:
            self._tree.need(split(source))
            if settle(self._tree.kind(split(link)), "file", "replace" if overwrite else "error", link):
                self._tree.put(split(link), Link(split(source)), undo)

    def is_symlink(self, path: Address) -> bool:
        """Return whether it is a symlink."""
        return isinstance(self._look(path, follow=False), Link)

    def move(self, source: Address, target: Address, *, if_exists: IfExists = "error") -> None:
        """Move a file, a symlink itself or a directory."""
        with self._change() as undo:
            node = self._tree.below_root(split(source))
            if self._may_put(node, source, target, if_exists):
                self._tree.put(split(target), self._tree.take(split(source), undo), undo)

    def copy(self, source: Address, target: Address, *, if_exists: IfExists = "error") -> None:
        """Copy a file, what a symlink leads to, or a directory."""
        with self._change() as undo:
            node = self._tree.need(split(source))
            if self._may_put(node, source, target, if_exists):
                self._tree.put(split(target), twin(node), undo)

    def stat(self, path: Address) -> dict[str, Any]:
        """Return what is there; see the base class."""
        node = self._look(path, follow=False)
        result = {"path": clean(path), "type": "missing", "exists": self.exists(path)}
        if isinstance(node, File):
            result |= {"type": "file", "size": node.size}
        elif isinstance(node, Link):
            result |= {"type": "symlink", "target": "/".join(node.target)}
        elif node is not None:
            result["type"] = "directory"
        return result

    def clear_files_only(self) -> None:
        """Let go of all files and symlinks; directories stay, for the next run of the same pipeline."""
        with self._lock:
            self._tree.clear_files()

    def cleanup(self) -> None:
        """Let go of all that is stored."""
        with self._lock:
            self._tree = Tree(self._tree.max_bytes)

    @contextmanager
    def _change(self) -> Iterator[Undo]:
        """Hold the lock, and take every step of the change back when one of them fails."""
        undo: Undo = []
        with self._lock:
            try:
                yield undo
            except BaseException:
                for step in reversed(undo):
                    step()
                raise

    def _look(self, path: Address, *, follow: bool = True) -> Node | None:
        parts = split(path)
        with self._lock:
            try:
                return self._tree.find(parts, follow=follow)
            except (NotADirectory, Unsupported):  # below a file, or symlinks in a circle: nothing is there
                return None

    def _may_put(self, node: Node, source: Address, target: Address, if_exists: IfExists) -> bool:
        here, there = split(source), split(target)
        kind: Kind = "directory" if isinstance(node, Directory) else "file"
        wanted = settle(self._tree.kind(there), kind, if_exists, target)
        if wanted and there[: len(here)] == here != there:
            msg = f"{clean(source)}: cannot be put into itself ({clean(target)})"
            raise Unsupported(msg)
        return wanted and here != there


def _isolated(payload: Any, address: Address) -> Any:
    """Return a copy that shares nothing that can change. Text and bytes cannot, and are passed as they are."""
    if isinstance(payload, bytearray | memoryview):
        return bytes(payload)
    try:
        return deepcopy(payload)
    except Exception as error:
        msg = f"{clean(address)}: a {type(payload).__name__} cannot be copied into memory ({error})"
        raise Unsupported(msg) from error


def _measure(payload: Any) -> int:
    """Return the bytes of a payload; for objects that are neither text, bytes nor arrays, an estimate."""
    if isinstance(payload, str):
        return len(payload.encode("utf-8", "surrogatepass"))
    if isinstance(payload, bytes | bytearray):
        return len(payload)
    total, seen, ahead = 0, set[int](), [payload]
    while ahead:
        item = ahead.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        nbytes = getattr(item, "nbytes", None)
        total += nbytes if isinstance(nbytes, int) else sys.getsizeof(item)
        if getattr(getattr(item, "dtype", None), "hasobject", False):  # its nbytes are those of the pointers
            ahead += item.ravel().tolist()
        if isinstance(item, dict):
            ahead += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple | set | frozenset):
            ahead += item
        elif hasattr(item, "__dict__") and not isinstance(item, type):
            ahead.append(vars(item))
    return total
