"""A signal as the keys and contents of an image store, ready to be put anywhere; the root comes last.

Nothing here knows where the keys go: `staging` puts them into a folder, `object_images` into an object store.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labrelay_worker.backends.base import Unsupported
from labrelay_worker.backends.files import CHUNK
from labrelay_worker.backends.ngff.codecs import Buffer, Codec, encode_chunks, encode_shard, grid, region
from labrelay_worker.backends.ngff.layout import CHUNK_BYTES, Layout, lay_out
from labrelay_worker.backends.ngff.metadata import (
    Version,
    array_document,
    document,
    group_documents,
    image_attributes,
)
from labrelay_worker.backends.ngff.pyramid import halve
from labrelay_worker.backends.ngff.ranges import Ranges
from labrelay_worker.reading.signal import Signal

#: Names every file of an image with size and CRC-32C: how it is recognised, and how damage is found later. It and the
#: metadata lie in the folder of the first array, because zarr warns of what it does not know in a group, and asks
#: nothing there.
INVENTORY = "labrelay.json"
ORIGINAL_METADATA = "original_metadata.json"
_SCHEMA = "labrelay.image/1"


@dataclass(frozen=True)
class FileNote:
    """What the inventory says of a file: bytes, and their CRC-32C (a tenth of the time that a sha256 takes)."""

    size: int
    crc32c: str


@dataclass(frozen=True)
class Recipe:
    """How images are stored; see the options of the zarr backend."""

    version: Version
    codec: Codec
    chunk: int
    levels: int | None


class ImageContent:
    """The content of one image.

    Parameters
    ----------
    signal
        What is stored.
    recipe
        How.
    generation
        Put before the names of the arrays, so that a replacement shares no key with what it replaces.
    """

    def __init__(self, signal: Signal, recipe: Recipe, generation: str = "") -> None:
        kind = signal.data.dtype.kind
        if kind not in "biufc" or signal.data.dtype.itemsize > 16 or signal.data.dtype.name in _UNKNOWN:  # noqa: PLR2004
            msg = f"{signal.name or 'the array'}: {signal.data.dtype} values have no type in Zarr"
            raise Unsupported(msg)
        if 0 in signal.shape or not signal.shape:
            msg = f"{signal.name or 'the array'}: an array of shape {signal.shape} holds nothing to store"
            raise Unsupported(msg)
        self._signal, self._recipe = signal, recipe
        # A chunk of version 0.4 is a file of its own: cutting planes into bands would make many small ones.
        chunk_bytes = CHUNK_BYTES if recipe.version == "0.5" else None
        self._layout: Layout = lay_out(signal, chunk=recipe.chunk, levels=recipe.levels, chunk_bytes=chunk_bytes)
        self._dtype = signal.data.dtype.newbyteorder("<")
        self._paths = [f"{generation}{number}" for number in range(len(self._layout.levels))]
        self._ranges = Ranges(self._layout.axes)

    def arrays(self) -> Iterator[tuple[str, Iterable[Buffer]]]:
        """Yield key and pieces of everything but inventory and root; pieces are encoded as they are asked for."""
        axes, recipe = self._layout.axes, self._recipe
        name = "zarr.json" if recipe.version == "0.5" else ".zarray"
        for level, path in zip(self._layout.levels, self._paths, strict=True):
            yield f"{path}/{name}", [array_document(level, axes, self._dtype, recipe.codec, recipe.version)]
        original = self._signal.metadata.get("original")
        if original:
            yield f"{self._paths[0]}/{ORIGINAL_METADATA}", [json.dumps(original, ensure_ascii=False).encode()]
        first = self._layout.levels[0]
        for coordinates in grid(first.shape, first.shard):
            block = self._block(region(coordinates, first.shard, first.shape))
            for number in range(len(self._layout.levels)):
                if number:
                    block = halve(block)
                if block.size:
                    yield from self._encoded(number, coordinates, block)
            self._ranges.look(block, coordinates, first.shard)

    def ending(self, files: Mapping[str, FileNote]) -> dict[str, bytes]:
        """Return inventory and root documents, to be put in this order, given the notes of what was put."""
        roots = group_documents(self._attributes(), self._recipe.version)
        known = {**files, **{key: note_of([content]) for key, content in roots.items()}}
        inventory = {
            "schema": _SCHEMA,
            "identity": self._signal.identity,
            "files": {key: vars(note) for key, note in sorted(known.items())},
        }
        return {f"{self._paths[0]}/{INVENTORY}": document(inventory), **roots}

    def _block(self, where: tuple[slice, ...]) -> Any:
        import numpy as np  # noqa: PLC0415

        order = self._layout.order
        taken = [slice(None)] * len(order)
        for stored, index in enumerate(order):
            taken[index] = where[stored]
        return np.asarray(self._signal.data[tuple(taken)]).transpose(order).astype(self._dtype, copy=False)

    def _encoded(self, number: int, coordinates: Sequence[int], block: Any) -> Iterator[tuple[str, Iterable[Buffer]]]:
        level, path, codec = self._layout.levels[number], self._paths[number], self._recipe.codec
        if self._recipe.version == "0.5":
            yield f"{path}/c/{'/'.join(map(str, coordinates))}", encode_shard(block, level, codec)
            return
        for inner, content in encode_chunks(block, level.chunk, codec):
            steps = zip(coordinates, level.shard, level.chunk, inner, strict=True)
            key = "/".join(str(at * (full // part) + within) for at, full, part, within in steps)
            yield f"{path}/{key}", [content]

    def _attributes(self) -> dict[str, Any]:
        signal, layout = self._signal, self._layout
        understood = {key: value for key, value in signal.metadata.items() if key != "original"}
        own = {
            "identity": signal.identity,
            "name": signal.name,
            "arrays": self._paths,
            "axes": [vars(axis) for axis in layout.axes],
            "metadata": understood,
        }
        if not layout.is_image:
            return {"labrelay": own}
        windows = self._ranges.windows
        ome = image_attributes(signal.name, layout, self._paths, signal.channels, windows, self._recipe.version)
        return {**ome, "labrelay": own}


#: Types of numpy that Zarr 3 has no name for.
_UNKNOWN = frozenset({"float128", "longdouble", "complex256", "clongdouble"})


def note_of(pieces: Iterable[Buffer]) -> FileNote:
    """Return the note of a file that consists of these pieces."""
    import google_crc32c  # noqa: PLC0415

    size = checksum = 0
    for piece in pieces:
        view = memoryview(piece).cast("B")
        for start in range(0, len(view), CHUNK):
            # A copy, because it takes nothing but bytes; a small one stays in the processor's cache.
            checksum = google_crc32c.extend(checksum, bytes(view[start : start + CHUNK]))
        size += len(view)
    return FileNote(size, f"{checksum:08x}")


def digest_of(pieces: Sequence[Buffer]) -> str:
    """Return the sha256 (hex) of pieces put one after the other."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def image_digest(files: Mapping[str, str]) -> str:
    """Return the sha256 (hex) of an image: over one line with sha256 and key for each of its files, sorted."""
    return digest_of(["".join(f"{sha256}  {key}\n" for key, sha256 in sorted(files.items())).encode()])
