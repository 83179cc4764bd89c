"""Images and plates in an object store, where nothing can be renamed: what names the rest is written last.

The arrays of every writing get names of their own, and the root document changes from the old ones to the new ones in
one write. The arrays of the version before stay for those who still read them, until the next replacement.

Of two that write to one address at once, the one whose root comes second is refused: a root is replaced only if it is
still the one that was there before the first array was written. So a writer may delete what nothing named before its
own root was in place, such as the arrays of a killed one: nobody can make a root that names them any more.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, get_args

from labrelay_worker.backends.base import (
    AlreadyExists,
    BackendError,
    Corrupt,
    IfExists,
    NotFound,
    Unavailable,
    is_partial,
    settle,
)
from labrelay_worker.backends.ngff.bucket import Bucket, Changed, retried
from labrelay_worker.backends.ngff.checking import check_image
from labrelay_worker.backends.ngff.codecs import Buffer
from labrelay_worker.backends.ngff.images import HIDDEN, ROOTS, SUFFIX, Span, Spot, Writing, own_attributes
from labrelay_worker.backends.ngff.metadata import Version, root_key
from labrelay_worker.backends.ngff.plates import declared_in, documents, field_of
from labrelay_worker.backends.ngff.writing import FileNote, ImageContent, Recipe, note_of
from labrelay_worker.reading.signal import Signal, Well

_GENERATION = re.compile(r"[0-9a-f]{8}-[0-9]+")


class ObjectImages:
    """Images below the prefix of a bucket; see `Images`."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def root(self, address: str) -> bytes | None:
        """Return the root document; None: there is none."""
        found = _root(self._bucket, self._bucket.key(address))
        return None if found is None else found.content

    def sizes(self, address: str) -> dict[str, int]:
        """Return the bytes of every object, by key."""
        return self._bucket.sizes(self._bucket.key(address))

    def read(self, address: str, key: str, spans: Sequence[Span] | None = None) -> list[Buffer]:
        """Return the content of one object, whole or the spans asked for."""
        name = f"{self._bucket.key(address)}/{key}"
        return [self._bucket.get(name)] if spans is None else self._bucket.spans(name, spans)

    def place(self, address: str) -> Any:
        """Return a store for zarr."""
        return _place(self._bucket, self._bucket.key(address))

    def entries(self, directory: str, *, recursive: bool) -> Iterator[str]:
        """Yield objects and images, relative to the directory."""
        above = self._bucket.key(directory)
        start = len(above) + 1 if above else 0
        names = [f"{above}/{name}" if above else name for name in self._bucket.sizes(above)]
        owners = _owners(names)
        told = set[str]()
        for name in names:
            image = owners(name)
            entry = (image or name)[start:]
            if not entry or entry in told or (image is None and _is_hidden(name)):
                continue
            told.add(entry)
            if recursive or "/" not in entry:
                yield entry

    @contextmanager
    def writing(self) -> Iterator[Writing]:
        """Return a transaction."""
        writing = _ObjectWriting(self._bucket)
        try:
            yield writing
        except BaseException:
            writing.take_back()
            raise

    def commit_plate(self, plate: str, wells: Sequence[Well], version: Version) -> None:
        """Make the plate's documents say what it holds.

        There is no lock: the plate's document is replaced only if it is still the one that was read before the
        wells were listed, so of two workers that commit at once the slower one looks again.
        """
        key = self._bucket.key(plate)
        root = f"{key}/{root_key(version)}"

        def step() -> None:
            before, tag = b"", None
            with suppress(NotFound):
                before, tag = self._bucket.get_version(root)
            found: dict[tuple[str, str], list[int]] = {}
            for name in self._bucket.sizes(key):
                if field := field_of(name, version):
                    found.setdefault(field[:2], []).append(field[2])
            texts = documents(found, declared_in(before).joined(wells), version)
            last = texts.pop(root_key(version))
            touched = {(well.row, well.column) for well in wells}
            for name, text in texts.items():
                # Documents of wells that others own are theirs to write; reading them all would cost a request each.
                if not touched or tuple(name.split("/")[:2]) in touched or name.count("/") < 2:  # noqa: PLR2004
                    self._bucket.put(f"{key}/{name}", [text])
            if last != before:
                self._bucket.put(root, [last], new=tag is None, version=tag)

        retried(step)

    def remove(self, address: str) -> None:
        """Delete an image, its root first: a half-deleted image is none."""
        key = self._bucket.key(address)
        names = sorted(self._bucket.sizes(key), key=lambda name: name not in ROOTS)
        self._bucket.delete([f"{key}/{name}" for name in names if name in ROOTS])
        self._bucket.delete([f"{key}/{name}" for name in names if name not in ROOTS])


@dataclass(frozen=True)
class _Root:
    """A root document as it was found."""

    name: str
    content: bytes
    version: str | None

    @property
    def arrays(self) -> list[str]:
        return list(own_attributes(self.content).get("arrays", []))


@dataclass(frozen=True)
class _Staged:
    """An image whose arrays are in place: its documents, the root last, and the root that was there before."""

    key: str
    endings: dict[str, bytes]
    before: _Root | None


class _ObjectWriting:
    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._put: list[str] = []
        self._ready: list[_Staged] = []
        self._published: list[tuple[str, bytes | None]] = []

    def stage(self, spot: Spot, signal: Signal, recipe: Recipe) -> None:
        key = self._bucket.key(spot.address)
        self._bucket.require_folders(key)
        before = _root(self._bucket, key)
        # Names of its own even for the first: another worker may be writing to the same address at this moment.
        content = ImageContent(signal, recipe, f"{secrets.token_hex(4)}-")
        files: dict[str, FileNote] = {}
        for name, given in content.arrays():
            pieces = list(given)
            self._new(f"{key}/{name}", pieces)
            files[name] = note_of(pieces)
        endings = content.ending(files)
        last = root_key(recipe.version)
        for name in [name for name in endings if name != last and name not in ROOTS]:
            self._new(f"{key}/{name}", [endings.pop(name)])
        try:
            check_image(_place(self._bucket, key), endings[last])
        except Corrupt:
            if _root(self._bucket, key) != before:  # whoever was first deleted what nothing named
                raise _overtaken(key) from None
            raise
        self._ready.append(_Staged(key, endings, before))

    def stage_copy(self, spot: Spot, source: str) -> None:
        here, there = self._bucket.key(source), self._bucket.key(spot.address)
        self._bucket.require_folders(there)
        before = _root(self._bucket, there)
        roots = {}
        for name in self._bucket.sizes(here):
            if name in HIDDEN:
                roots[name] = self._bucket.get(f"{here}/{name}")
            else:
                self._put.append(f"{there}/{name}")
                self._bucket.copy(f"{here}/{name}", f"{there}/{name}")
        endings = dict(sorted(roots.items(), key=lambda item: item[0] in ROOTS))
        self._ready.append(_Staged(there, endings, before))

    def publish(self, if_exists: IfExists) -> None:
        for image in self._ready:
            *others, last = image.endings
            for name in others:
                self._bucket.put(f"{image.key}/{name}", [image.endings[name]])
            useless = self._unnamed(image, last)
            before = image.before if image.before is not None and image.before.name == last else None
            if self._put_root(image, last, before, if_exists):
                self._published.append((f"{image.key}/{last}", None if before is None else before.content))
                self._bucket.delete(useless)

    def _put_root(self, image: _Staged, last: str, before: _Root | None, if_exists: IfExists) -> bool:
        """Make an image visible; return False where the policy is to leave what came in between."""
        root = image.endings[last]
        version = None if before is None else before.version
        try:
            self._bucket.put(f"{image.key}/{last}", [root], new=before is None, version=version)
        except (AlreadyExists, Changed):
            found = _root(self._bucket, image.key)
            if found is not None and found.content == root:
                return True  # ours: its answer was lost, and the repetition found it
            if settle("file", "file", if_exists, image.key):
                raise _overtaken(image.key) from None
            return False
        except Unavailable:
            # It may have arrived, or may yet: its arrays stay, for it or for the next writer to delete.
            self._put = [key for key in self._put if not key.startswith(f"{image.key}/")]
            raise
        return True

    def take_back(self) -> None:
        """Undo what can be undone: put back the roots that were replaced, delete what was written."""
        with suppress(BackendError):
            for key, before in reversed(self._published):
                if before is None:
                    self._bucket.delete([key])
                else:
                    self._bucket.put(key, [before])
            self._bucket.delete(self._put)

    def _new(self, key: str, pieces: Sequence[Any]) -> None:
        self._put.append(key)
        self._bucket.put(key, pieces)

    def _unnamed(self, image: _Staged, last: str) -> list[str]:
        """Return what neither the image nor the one before it names: arrays of killed writers and older versions."""
        before = image.before
        kept = {*own_attributes(image.endings[last]).get("arrays", []), *(before.arrays if before else [])}
        names = (name.split("/") for name in self._bucket.sizes(image.key))
        useless = ["/".join([image.key, *parts]) for parts in names if len(parts) > 1 and parts[0] not in kept]
        # The root of another version of the format would go on naming the arrays before.
        return useless if before is None or before.name == last else [*useless, f"{image.key}/{before.name}"]


def _overtaken(key: str) -> Unavailable:
    return Unavailable(f"{key}: another worker wrote this image at the same time; it is tried again later")


def _root(bucket: Bucket, key: str) -> _Root | None:
    for name in ROOTS:
        with suppress(NotFound):
            return _Root(name, *bucket.get_version(f"{key}/{name}"))
    return None


def _place(bucket: Bucket, key: str) -> Any:
    from zarr.storage import ObjectStore, StorePath  # noqa: PLC0415

    return StorePath(ObjectStore(bucket.store, read_only=True), key)


def _owners(names: Sequence[str]) -> Callable[[str], str | None]:
    """Return what says which image a key belongs to: a plate's ROW/COLUMN/FIELD or a .zarr that is no plate."""
    roots = {name.rpartition("/")[0] for name in names if name.rpartition("/")[2] in ROOTS}

    def split(name: str) -> tuple[str, list[str]] | None:
        parts = name.split("/")
        at = next((number for number, part in enumerate(parts[:-1]) if part.lower().endswith(SUFFIX)), None)
        return None if at is None else ("/".join(parts[: at + 1]), parts[at + 1 :])

    plates = {
        found[0]
        for found in map(split, names)
        if found is not None and any(field_of("/".join(found[1]), version) for version in get_args(Version))
    }

    def owner(name: str) -> str | None:
        found = split(name)
        if found is None:
            return None
        whole, inner = found
        image = "/".join([whole, *inner[:3]]) if whole in plates else whole
        return image if image in roots and image != name else None

    return owner


def _is_hidden(name: str) -> bool:
    """Return whether a key tells nobody anything: documents of a plate, arrays that no image names."""
    parts = PurePosixPath(name).parts
    inside = any(part.lower().endswith(SUFFIX) for part in parts[:-1])
    return is_partial(parts[-1]) or (inside and (parts[-1] in HIDDEN or any(map(_GENERATION.fullmatch, parts))))
