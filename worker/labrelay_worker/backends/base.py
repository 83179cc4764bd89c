"""The contract of a backend. A plugin needs this file and nothing else of labrelay_worker.

A backend is a class with a key::

    class TapeBackend(StorageBackend):
        _backend_type = "tape"

It registers itself when it is defined. Obligations, relied on by the registry, by the destination that
delivers to a backend and by every caller that switches from one backend to another, and tested by
`labrelay_worker.conformance.backends`:

* A constructor MUST be cheap and open nothing; connections are made on first use. Its parameters are the
  options of ``[backends.NAME]``.
* Every method MUST be safe to call from several threads.
* An error MUST be one of those below, or ValueError for lists of different length.
* A write MUST be whole or not happen: after an error nothing new is visible, and what was there still is.
* ``if_exists`` MUST mean the same everywhere: "error" raises AlreadyExists, "replace" puts the new in the
  place of the old at once, "skip" leaves the old and raises nothing. `settle` decides it.
* What it cannot do it MUST say in `cannot`, and refuse with `refusal` when asked for it. All else it MUST do.
* Missing parent directories MUST be made by a write. ``.*.partial`` names are never shown.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar

from labrelay_worker.backends.errors import (
    AlreadyExists,
    BackendError,
    Corrupt,
    IsADirectory,
    NotADirectory,
    NotFound,
    OutsideRoot,
    Unavailable,
    Unsupported,
    from_os_error,
    translated,
)
from labrelay_worker.backends.registration import StorageBackendMeta
from labrelay_worker.backends.rules import (
    CAPABILITIES,
    Address,
    Capability,
    IfExists,
    Kind,
    clean,
    is_listed,
    is_partial,
    pairs,
    refusal,
    require_distinct,
    settle,
)

__all__ = [
    "CAPABILITIES", "Address", "AlreadyExists", "BackendError", "Capability", "Corrupt", "DataSink", "IfExists",
    "IsADirectory", "Kind",
    "NotADirectory", "NotFound", "OutsideRoot", "StorageBackend", "StreamingBackend", "Unavailable",
    "Unsupported", "check_sha256", "clean", "from_os_error", "is_listed", "is_partial", "pairs", "refusal",
    "require_distinct",     "settle",
    "translated",
]  # fmt: skip


class DataSink(metaclass=StorageBackendMeta):
    """Takes payloads: all that storage and viewers have in common."""

    #: The key. Only a class that sets it in its own body is registered, in lower case.
    _backend_type: ClassVar[str | None] = None
    #: What the host must have: "display", "jvm". A profile leaves backends out by these words.
    needs: ClassVar[frozenset[str]] = frozenset()
    #: What it cannot do, in the words of `CAPABILITIES`; may depend on the options.
    cannot: frozenset[Capability] = frozenset()
    #: Whether it takes `Signal` payloads. A destination then reads instrument files into signals for it.
    takes_signals: ClassVar[bool] = False
    #: Whether a destination then stores the files as they are, too.
    keeps_originals: bool = False
    #: Whether another process finds what this one stored; an audit asks no other backend.
    outlives_process: ClassVar[bool] = True

    @abstractmethod
    def save(self, data: Any, identifier: Address, *, if_exists: IfExists = "error") -> None:
        """Store one payload. Raises AlreadyExists, Unsupported (naming payload and address), Unavailable."""

    @abstractmethod
    def save_batch(
        self, data_list: Sequence[Any], identifiers: Sequence[Address], *, if_exists: IfExists = "error"
    ) -> None:
        """Store all payloads or none. Raises ValueError for other lengths, Unsupported for one address twice."""

    def cleanup_connections(self) -> None:
        """Close connections; windows and data stay. MUST be idempotent; the next use MUST connect again."""

    def cleanup(self) -> None:
        """Close everything this backend opened. MUST be idempotent; the instance is not used again."""


class StreamingBackend(DataSink):
    """Shows payloads and keeps none (a viewer).

    `save` MUST return within a bound of its own, whatever the viewer does, and raise Unavailable when
    nothing was shown. Callers MUST NOT let it fail or delay an export.
    """


class StorageBackend(DataSink):
    """Keeps payloads and gives them back. Addresses follow symlinks, except where a method says otherwise.

    Every method that needs something to be there raises NotFound when it is not.
    """

    @abstractmethod
    def load(self, file_path: Address) -> Any:
        """Return what is stored. Raises IsADirectory, Corrupt (it cannot be read as what it claims to be)."""

    def load_batch(self, file_paths: Sequence[Address]) -> list[Any]:
        """Return what is stored, in the order asked for."""
        return [self.load(path) for path in file_paths]

    @abstractmethod
    def list_files(
        self,
        directory: Address,
        pattern: str | None = None,
        extensions: Collection[str] | None = None,
        recursive: bool = False,
    ) -> list[Path]:
        """Return sorted addresses of files, each beginning with the directory as given; see `is_listed`."""

    def exists(self, path: Address) -> bool:
        """Return whether a file or directory is there; a broken symlink is not."""
        return self.is_file(path) or self.is_dir(path)

    @abstractmethod
    def is_file(self, path: Address) -> bool:
        """Return whether it is a file. MUST answer False, not raise, for a directory or nothing."""

    @abstractmethod
    def is_dir(self, path: Address) -> bool:
        """Return whether it is a directory. MUST answer False, not raise, for a file or nothing."""

    @abstractmethod
    def list_dir(self, path: Address) -> list[str]:
        """Return the sorted names in a directory. Raises NotADirectory."""

    @abstractmethod
    def delete(self, path: Address) -> None:
        """Delete a file, a symlink (never its target) or an EMPTY directory; else raise IsADirectory."""

    @abstractmethod
    def delete_all(self, path: Address) -> None:
        """Delete a file, a symlink (never its target) or a directory with all it holds; never the root."""

    @abstractmethod
    def ensure_directory(self, directory: Address) -> Path:
        """Make a directory and its parents; fine when it is there. Raises NotADirectory."""

    @abstractmethod
    def create_symlink(self, source: Address, link: Address, overwrite: bool = False) -> None:
        """Make a link to an existing source; `overwrite` replaces a file or link, never a directory."""

    @abstractmethod
    def is_symlink(self, path: Address) -> bool:
        """Return whether it is a symlink, broken or not."""

    @abstractmethod
    def move(self, source: Address, target: Address, *, if_exists: IfExists = "error") -> None:
        """Move a file, a symlink itself or a directory; only files are replaced. With "skip" the source stays."""

    @abstractmethod
    def copy(self, source: Address, target: Address, *, if_exists: IfExists = "error") -> None:
        """Copy a file (or what a symlink leads to) or a directory; only files are replaced."""

    @abstractmethod
    def stat(self, path: Address) -> dict[str, Any]:
        """Return `path`, `type` (file, directory, symlink, missing), `exists`; `size` of files, `target` of links.

        A missing address is an answer, not an error; `exists` of a symlink is that of its target.
        """

    def save_file(
        self, source: Path, identifier: Address, *, sha256: str | None = None, if_exists: IfExists = "error"
    ) -> tuple[int, str]:
        """Store a local file byte for byte; return size in bytes and sha256 of what is there afterwards.

        Raises Corrupt, with nothing stored, when the file does not have the given sha256. A backend for large
        files SHOULD stream; this one reads the whole file into memory.
        """
        with translated(source):
            content = Path(source).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        check_sha256(digest, sha256, source)
        self.save(content, identifier, if_exists=if_exists)
        return (self.size(identifier), self.sha256(identifier)) if if_exists == "skip" else (len(content), digest)

    def sha256(self, path: Address) -> str:
        """Return the sha256 (hex) of the stored bytes. Raises Unsupported when bytes are not what is stored."""
        return hashlib.sha256(self._stored_bytes(path)).hexdigest()

    def size(self, path: Address) -> int:
        """Return the number of bytes stored."""
        return len(self._stored_bytes(path))

    def url(self, path: Address) -> str:
        """Return where people find it: an address they can open, or the key and path."""
        return f"{type(self)._backend_type}:{clean(path)}"

    def _stored_bytes(self, path: Address) -> bytes:
        payload = self.load(path)
        if isinstance(payload, bytes | str):
            return payload.encode() if isinstance(payload, str) else payload
        msg = f"{clean(path)}: {type(payload).__name__} is not stored as bytes, so it has no size or sha256 here"
        raise Unsupported(msg)


def check_sha256(found: str, expected: str | None, source: Path) -> None:
    """Raise Corrupt when a sha256 is expected and another was found."""
    if expected is not None and found != expected.lower():
        msg = f"{source}: sha256 is {found}, expected {expected}; nothing was stored. Submit it again"
        raise Corrupt(msg)
