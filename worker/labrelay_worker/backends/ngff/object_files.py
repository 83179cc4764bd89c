"""Files in an object store, with the interface of every storage backend. Used by the zarr backend.

A directory is what keys have in common, so an empty one is not there; there are no links.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from labrelay_worker.backends.base import (
    CAPABILITIES,
    Address,
    AlreadyExists,
    BackendError,
    Capability,
    IfExists,
    IsADirectory,
    Kind,
    NotADirectory,
    NotFound,
    StorageBackend,
    Unsupported,
    check_sha256,
    clean,
    is_listed,
    pairs,
    require_distinct,
    settle,
    translated,
)
from labrelay_worker.backends.files import read_chunks
from labrelay_worker.backends.formats import decode, encode
from labrelay_worker.backends.ngff.bucket import Bucket, file_in_the_way

#: Bytes from which on a file is stored in parts instead of being read whole; beyond 5 GiB, S3 takes nothing else.
_LARGE = 64 * 2**20


class ObjectFiles(StorageBackend):
    """Files below the prefix of a bucket.

    One object is whole or not there. A batch is all or nothing against errors; a kill can leave its first files.
    """

    cannot: frozenset[Capability] = frozenset({"directories", "symlinks"})

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def save(self, data: Any, identifier: Address, *, if_exists: IfExists = "error") -> None:
        """Write an object in the format of its suffix; bytes and text as they are."""
        self.save_batch([data], [identifier], if_exists=if_exists)

    def save_batch(
        self, data_list: Sequence[Any], identifiers: Sequence[Address], *, if_exists: IfExists = "error"
    ) -> None:
        """Write all objects, or none when one of them is refused beforehand; new ones are taken back on an error."""
        batch = [(self._bucket.key(address), address, data) for data, address in pairs(data_list, identifiers)]
        require_distinct([key for key, _, _ in batch])
        wanted = [
            (key, encode(data, Path(key).name))
            for key, address, data in batch
            if self.settled(address, "file", if_exists)
        ]
        before: dict[str, bytes | None] = {}
        try:
            for key, content in wanted:
                self._put(key, content, if_exists, before)
        except Exception:
            self._take_back(before)
            raise

    def save_file(
        self, source: Path, identifier: Address, *, sha256: str | None = None, if_exists: IfExists = "error"
    ) -> tuple[int, str]:
        """Store a local file byte for byte, a large one in parts; see the base class.

        Parts know no conditions: of two who write the same large file at once, the later replaces the other's.
        """
        with translated(source):
            size = Path(source).stat().st_size
        if size < _LARGE:
            return super().save_file(source, identifier, sha256=sha256, if_exists=if_exists)
        if not self.settled(identifier, "file", if_exists):
            return self.size(identifier), self.sha256(identifier)
        digest = hashlib.sha256()

        def pieces() -> Iterator[bytes]:
            with translated(source):
                for piece in read_chunks(Path(source)):
                    digest.update(piece)
                    yield piece
            # Raised before the last part is sent, so that nothing is there.
            check_sha256(digest.hexdigest(), sha256, source)

        self._bucket.put_large(self._bucket.key(identifier), pieces(), size)
        return self.size(identifier), digest.hexdigest()

    def _put(self, key: str, content: Any, if_exists: IfExists, before: dict[str, bytes | None]) -> None:
        """Write an object, and note what was there before."""
        try:
            self._bucket.put(key, [content], new=True)
            before[key] = None
        except AlreadyExists:  # what is to be replaced, or a writer that was faster: the policy decides
            if settle("file", "file", if_exists, key):
                before[key] = self._bucket.get(key)
                self._bucket.put(key, [content])

    def _take_back(self, before: Mapping[str, bytes | None]) -> None:
        with suppress(BackendError):
            self._bucket.delete([key for key, content in before.items() if content is None])
            for key, content in before.items():
                if content is not None:
                    self._bucket.put(key, [content])

    def load(self, file_path: Address) -> Any:
        """Return the content in the format of its suffix; bytes for an unknown one."""
        key = self._bucket.key(file_path)
        return decode(self._bytes(key), Path(key).name)

    def sha256(self, path: Address) -> str:
        """Return the sha256 (hex) of the object as the store gives it back."""
        key, digest = self._bucket.key(path), hashlib.sha256()
        try:
            for piece in self._bucket.pieces(key):
                digest.update(piece)
        except NotFound:
            raise self._no_file(key) from None
        return digest.hexdigest()

    def size(self, path: Address) -> int:
        """Return the size of the object in bytes."""
        key = self._bucket.key(path)
        size = self._bucket.size(key)
        if size is None:
            raise self._no_file(key)
        return size

    def list_files(
        self,
        directory: Address,
        pattern: str | None = None,
        extensions: Collection[str] | None = None,
        recursive: bool = False,
    ) -> list[Path]:
        """Return sorted addresses of objects."""
        found = [name for name in self.names_below(directory) if recursive or "/" not in name]
        given = Path(clean(directory))
        return sorted(given / name for name in found if is_listed(Path(name).name, pattern, extensions))

    def names_below(self, directory: Address) -> list[str]:
        """Return the keys below a directory, relative to it. Raises NotFound, NotADirectory."""
        key = self._bucket.key(directory)
        names = list(self._bucket.sizes(key))
        if not names and key:
            if self._bucket.size(key) is not None:
                raise file_in_the_way(key)
            raise self._missing(key)
        return names

    def is_file(self, path: Address) -> bool:
        """Return whether it is an object."""
        return self._bucket.size(self._bucket.key(path)) is not None

    def is_dir(self, path: Address) -> bool:
        """Return whether there are objects below it; the root always is one."""
        key = self._bucket.key(path)
        return not key or self._bucket.any_below(key)

    def list_dir(self, path: Address) -> list[str]:
        """Return the sorted names in a directory."""
        return sorted({name.split("/")[0] for name in self.names_below(path)})

    def delete(self, path: Address) -> None:
        """Delete an object."""
        key = self._below_root(path)
        if self._bucket.size(key) is None:
            if self._bucket.any_below(key):
                msg = f"{key}: the directory is not empty; delete_all deletes it with its content"
                raise IsADirectory(msg)
            raise self._missing(key)
        self._bucket.delete([key])

    def delete_all(self, path: Address) -> None:
        """Delete an object or all below a directory."""
        key = self._below_root(path)
        if self._bucket.size(key) is not None:
            self._bucket.delete([key])
        else:
            self._bucket.delete([f"{key}/{name}" for name in self.names_below(path)])

    def ensure_directory(self, directory: Address) -> Path:
        """Refuse what is no directory: directories come with their first object, and an empty one cannot be kept."""
        key = self._bucket.key(directory)
        if self._bucket.size(key) is not None:
            raise file_in_the_way(key)
        self._bucket.require_folders(key)
        if not self.is_dir(directory):
            raise _refusal("directories")
        return Path(clean(directory))

    def create_symlink(self, source: Address, link: Address, overwrite: bool = False) -> None:
        """Raise Unsupported."""
        raise _refusal("symlinks")

    def is_symlink(self, path: Address) -> bool:
        """Return False."""
        self._bucket.key(path)
        return False

    def move(self, source: Address, target: Address, *, if_exists: IfExists = "error") -> None:
        """Copy, then delete the source."""
        self._below_root(source)
        if self._copied(source, target, if_exists):
            self.delete_all(source)

    def copy(self, source: Address, target: Address, *, if_exists: IfExists = "error") -> None:
        """Copy an object or a directory within the store."""
        self._copied(source, target, if_exists)

    def stat(self, path: Address) -> dict[str, Any]:
        """Return what is there; see the base class."""
        key = self._bucket.key(path)
        size = self._bucket.size(key)
        if size is not None:
            return {"path": clean(path), "type": "file", "exists": True, "size": size}
        there = self.is_dir(path)
        return {"path": clean(path), "type": "directory" if there else "missing", "exists": there}

    def url(self, path: Address) -> str:
        """Return the address in the store."""
        return f"{self._bucket.url}/{self._bucket.key(path)}"

    def cleanup_connections(self) -> None:
        """Let go of connections."""
        self._bucket.close()

    def settled(self, address: Address, wanted: Kind, if_exists: IfExists) -> bool:
        """Return whether to write there; raises as `settle`, and NotADirectory below a file."""
        key = self._bucket.key(address)
        kind = self._kind(key)
        if kind is None:
            self._bucket.require_folders(key)
        return settle(kind, wanted, if_exists, address)

    def _bytes(self, key: str) -> bytes:
        try:
            return self._bucket.get(key)
        except NotFound:
            raise self._no_file(key) from None

    def _kind(self, key: str) -> Kind | None:
        if self._bucket.size(key) is not None:
            return "file"
        return "directory" if not key or self._bucket.any_below(key) else None

    def _copied(self, source: Address, target: Address, if_exists: IfExists) -> bool:
        here, there = self._bucket.key(source), self._bucket.key(target)
        kind = self._kind(here)
        if kind is None:
            raise self._missing(here)
        if not self.settled(target, kind, if_exists) or here == there:
            return False
        if there.startswith(f"{here}/") or not here:
            msg = f"{here}: cannot be put into itself ({there})"
            raise Unsupported(msg)
        names = [""] if kind == "file" else [f"/{name}" for name in self.names_below(source)]
        try:
            for name in names:
                self._bucket.copy(f"{here}{name}", f"{there}{name}")
        except BackendError:
            if kind == "directory":  # nothing was there before
                with suppress(BackendError):
                    self._bucket.delete([f"{there}{name}" for name in names])
            raise
        return True

    def _below_root(self, address: Address) -> str:
        key = self._bucket.key(address)
        if not key:
            msg = "the root itself cannot be moved or deleted; take what is in it"
            raise Unsupported(msg)
        return key

    def _no_file(self, key: str) -> BackendError:
        """Return why there is no file."""
        if not key or self._bucket.any_below(key):
            return IsADirectory(f"{key or '.'}: this is a directory")
        try:
            self._bucket.require_folders(key)
        except NotADirectory as error:
            return error
        return self._missing(key)

    @staticmethod
    def _missing(key: str) -> NotFound:
        return NotFound(f"{key}: there is nothing at this address")


def _refusal(capability: Capability) -> Unsupported:
    return Unsupported(f"an object store cannot {CAPABILITIES[capability]}. Use another backend for this")
