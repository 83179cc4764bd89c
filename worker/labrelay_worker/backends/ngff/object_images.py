"""Images and plates in an object store, where nothing can be renamed: what names the rest is written last.

The arrays of every writing get names of their own, and the root document changes from the old ones to the new ones in
one write. The arrays of the version before stay for those who still read them, until the next replacement.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath
from typing import Any, get_args

from labrelay_worker.backends.base import AlreadyExists, BackendError, IfExists, NotFound, is_partial, settle
from labrelay_worker.backends.ngff.bucket import Bucket, retried
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
        return None if found is None else found[1]

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


class _ObjectWriting:
    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._put: list[str] = []
        self._ready: list[tuple[str, dict[str, bytes], str | None, list[str]]] = []
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
        check_image(_place(self._bucket, key), endings[last])
        self._remember(key, endings, before)

    def stage_copy(self, spot: Spot, source: str) -> None:
        here, there = self._bucket.key(source), self._bucket.key(spot.address)
        self._bucket.require_folders(there)
        roots = {}
        for name in self._bucket.sizes(here):
            if name in HIDDEN:
                roots[name] = self._bucket.get(f"{here}/{name}")
            else:
                self._put.append(f"{there}/{name}")
                self._bucket.copy(f"{here}/{name}", f"{there}/{name}")
        self._remember(
            there, dict(sorted(roots.items(), key=lambda item: item[0] in ROOTS)), _root(self._bucket, there)
        )

    def publish(self, if_exists: IfExists) -> None:
        for key, endings, tag, old in self._ready:
            *others, last = endings
            for name in others:
                self._bucket.put(f"{key}/{name}", [endings[name]])
            before = _root(self._bucket, key)
            try:
                self._bucket.put(f"{key}/{last}", [endings[last]], new=if_exists != "replace" or tag is None)
            except AlreadyExists:
                if not settle("file", "file", if_exists, key):
                    continue
                self._bucket.put(f"{key}/{last}", [endings[last]])
            self._published.append((f"{key}/{last}", None if before is None else before[1]))
            self._forget(key, own_attributes(endings[last]).get("arrays", []), old)

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

    def _remember(self, key: str, endings: dict[str, bytes], before: tuple[str, bytes] | None) -> None:
        old = [] if before is None else list(own_attributes(before[1]).get("arrays", []))
        self._ready.append((key, endings, None if before is None else before[0], old))

    def _forget(self, key: str, current: Sequence[str], old: Sequence[str]) -> None:
        """Delete arrays that neither the image nor the one before it names."""
        if not old:
            return
        kept = {*current, *old}
        names = [name for name in self._bucket.sizes(key) if "/" in name and name.split("/")[0] not in kept]
        self._bucket.delete([f"{key}/{name}" for name in names])


def _root(bucket: Bucket, key: str) -> tuple[str, bytes] | None:
    for name in ROOTS:
        with suppress(NotFound):
            return name, bucket.get(f"{key}/{name}")
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
