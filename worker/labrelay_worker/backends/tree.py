"""The memory backend's directory tree: nodes by address, what they weigh, and how a change is taken back.

It has no lock and copies no payload: the backend does both.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from labrelay_worker.backends.base import (
    Address,
    IsADirectory,
    Kind,
    NotADirectory,
    NotFound,
    OutsideRoot,
    Unavailable,
    Unsupported,
    clean,
)

_MOST_LINKS = 40  # as Linux: more than this on the way to one address is a circle

Parts = tuple[str, ...]
#: Steps that take a change back, to be run from the last to the first.
Undo = list[Callable[[], object]]


@dataclass(frozen=True)
class File:
    """A payload, never changed once it is here, and its size in bytes."""

    payload: Any
    size: int


@dataclass(frozen=True)
class Link:
    """A symlink to an address."""

    target: Parts


@dataclass
class Directory:
    """Nodes by name."""

    children: dict[str, Node] = field(default_factory=dict)


Node = File | Link | Directory


def split(address: Address) -> Parts:
    """Return the parts of an address below the root. Raises OutsideRoot when ``..`` leads above it."""
    parts: list[str] = []
    for part in PurePosixPath(clean(address)).parts:
        if part == "..":
            if not parts:
                msg = f"{clean(address)}: leads out of the root"
                raise OutsideRoot(msg)
            parts.pop()
        elif part.strip("/"):
            parts.append(part)
    return tuple(parts)


class Tree:
    """Nodes below one root, of at most ``max_bytes`` payload."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.used = 0
        self.root = Directory()

    def find(self, parts: Parts, *, follow: bool = True) -> Node | None:
        """Return the node, or None. `follow`: whether a symlink at the very end is followed as well."""
        node: Node = self.root
        ahead, links = deque(parts), 0
        while ahead:
            if not isinstance(node, Directory):
                raise _file_in_the_way(parts)
            child = node.children.get(ahead.popleft())
            if child is None:
                return None
            if isinstance(child, Link) and (ahead or follow):
                links += 1
                if links > _MOST_LINKS:
                    msg = f"{'/'.join(parts)}: the symlinks lead in a circle; correct them"
                    raise Unsupported(msg)
                ahead.extendleft(reversed(child.target))
                child = self.root
            node = child
        return node

    def need(self, parts: Parts, *, follow: bool = True) -> Node:
        """Return the node. Raises NotFound."""
        node = self.find(parts, follow=follow)
        if node is None:
            msg = f"{'/'.join(parts)}: there is nothing at this address"
            raise NotFound(msg)
        return node

    def file(self, parts: Parts) -> File:
        """Return the file. Raises NotFound, IsADirectory."""
        node = self.need(parts)
        if isinstance(node, File):
            return node
        msg = f"{'/'.join(parts) or '.'}: this is a directory"
        raise IsADirectory(msg)

    def directory(self, parts: Parts) -> Directory:
        """Return the directory. Raises NotFound, NotADirectory."""
        node = self.need(parts)
        if isinstance(node, Directory):
            return node
        raise _file_in_the_way(parts)

    def kind(self, parts: Parts) -> Kind | None:
        """Return what is there for the overwrite policy; a symlink counts as a file."""
        node = self.find(parts, follow=False)
        return None if node is None else "directory" if isinstance(node, Directory) else "file"

    def files(self, directory: Parts, *, recursive: bool) -> Iterator[Parts]:
        """Yield the files below a directory, relative to it; symlinks to files count, others are not entered."""
        for name, child in self.directory(directory).children.items():
            here = (*directory, name)
            if isinstance(child, Directory):
                if recursive:
                    yield from ((name, *below) for below in self.files(here, recursive=True))
            elif isinstance(child, File) or self._leads_to_file(here):
                yield (name,)

    def make(self, parts: Parts, undo: Undo) -> Directory:
        """Make a directory and its parents."""
        parent = self.root
        for depth, name in enumerate(parts, start=1):
            node = self.find(parts[:depth])
            if node is None:
                node = Directory()
                self._attach(parent, name, node, undo)
            elif not isinstance(node, Directory):
                raise _file_in_the_way(parts)
            parent = node
        return parent

    def put(self, parts: Parts, node: Node, undo: Undo) -> None:
        """Put a node at an address in place of what is there. Raises Unavailable when it does not fit."""
        if not parts:
            msg = "the root is a directory"
            raise IsADirectory(msg)
        self._attach(self.make(parts[:-1], undo), parts[-1], node, undo)

    def below_root(self, parts: Parts) -> Node:
        """Return a node that can be taken out, a symlink itself. Raises NotFound; Unsupported for the root."""
        if not parts:
            msg = "the root itself cannot be moved or deleted; take what is in it"
            raise Unsupported(msg)
        return self.need(parts, follow=False)

    def take(self, parts: Parts, undo: Undo) -> Node:
        """Take a node out of the tree; raises as `below_root`."""
        node = self.below_root(parts)
        parent = self.directory(parts[:-1])
        undo.append(lambda: parent.children.update({parts[-1]: node}))
        self._count(-weigh(node), undo)
        del parent.children[parts[-1]]
        return node

    def clear_files(self) -> None:
        """Take out everything but the directories."""
        ahead = [self.root]
        for directory in ahead:
            directory.children = {
                name: child for name, child in directory.children.items() if isinstance(child, Directory)
            }
            ahead += [child for child in directory.children.values() if isinstance(child, Directory)]
        self.used = 0

    def check_room(self, more: int) -> None:
        """Raise Unavailable when so many more bytes do not fit."""
        if self.used + more > self.max_bytes:
            msg = (
                f"the memory backend is full: {self.used} of {self.max_bytes} bytes are used and {more} more "
                "were asked for; nothing was stored. Delete something, raise max_bytes, or use the disk backend"
            )
            raise Unavailable(msg)

    def _attach(self, parent: Directory, name: str, node: Node, undo: Undo) -> None:
        old = parent.children.get(name)
        self._count(weigh(node) - (weigh(old) if old is not None else 0), undo)
        undo.append(
            lambda: parent.children.pop(name) if old is None else parent.children.update({name: old}),
        )
        parent.children[name] = node

    def _count(self, more: int, undo: Undo) -> None:
        if more > 0:
            self.check_room(more)
        before = self.used
        undo.append(lambda: setattr(self, "used", before))
        self.used += more

    def _leads_to_file(self, parts: Parts) -> bool:
        try:
            return isinstance(self.find(parts), File)
        except (NotADirectory, Unsupported):  # a broken or circular symlink
            return False


def weigh(node: Node) -> int:
    """Return the bytes of payload in a node and below it."""
    if isinstance(node, Directory):
        return sum(map(weigh, node.children.values()))
    return node.size if isinstance(node, File) else 0


def twin(node: Node) -> Node:
    """Return a copy that can be changed on its own; payloads are shared, because nobody changes them."""
    if isinstance(node, Directory):
        return Directory({name: twin(child) for name, child in node.children.items()})
    return node


def _file_in_the_way(parts: Parts) -> NotADirectory:
    return NotADirectory(f"{'/'.join(parts)}: a directory is needed, and a file is in its place")
