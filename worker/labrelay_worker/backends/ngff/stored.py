"""A stored image, opened: its axes, its levels through zarr, and single planes at the price of one plane."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from labrelay_worker.backends.base import Corrupt, Unsupported
from labrelay_worker.backends.ngff.codecs import (
    CODECS,
    Buffer,
    Codec,
    decode_into,
    grid,
    index_size,
    locate,
    number_in,
    region,
)
from labrelay_worker.backends.ngff.images import Images, own_attributes
from labrelay_worker.backends.ngff.layout import Level
from labrelay_worker.reading.signal import Axis, Signal

_DECODERS = {codec.cname: codec for codec in CODECS.values()}  # Blosc says itself how a chunk was shuffled


@dataclass(frozen=True)
class _Sharded:
    level: Level
    dtype: str
    codec: Codec


class StoredImage:
    """An image of a zarr backend.

    Parameters
    ----------
    images
        Where it is.
    address
        Its address there.
    root
        Its root document.
    """

    def __init__(self, images: Images, address: str, root: bytes) -> None:
        self._images, self._address = images, address
        self._own = own_attributes(root)
        self._root = root
        self._first = self._first_array()
        self._sharded = self._understand()
        self._indices: dict[str, bytes] = {}

    @property
    def data(self) -> Any:
        """The full resolution as a zarr array; slicing reads the chunks that are touched."""
        import zarr  # noqa: PLC0415

        found = zarr.open(self._images.place(self._address), mode="r")
        return found if isinstance(found, zarr.Array) else found[self._first]

    @property
    def signal(self) -> Signal:
        """The image with its axes; the data stay in the store until they are sliced."""
        data = self.data
        if not self._own:
            return Signal(data, tuple(Axis(f"axis{number}", "other") for number in range(data.ndim)))
        axes = tuple(Axis(**axis) for axis in self._own["axes"])
        return Signal(data, axes, self._own["name"], (), self._own["metadata"], self._own["identity"])

    def plane(self, *index: int) -> Any:
        """Return one plane, a new numpy array of (y, x).

        Parameters
        ----------
        index
            Position on every axis before the last two; negative ones count from the end.

        Raises
        ------
        IndexError
            There is no such plane.
        Corrupt
            It cannot be decoded.
        """
        import numpy as np  # noqa: PLC0415

        if self._sharded is None:
            return np.asarray(self.data[index])
        shape = self._sharded.level.shape
        if len(index) != len(shape) - 2 or any(
            not -size <= at < size for at, size in zip(index, shape, strict=False)
        ):
            msg = f"{self._address}: there is no plane {index} in an image of shape {shape}"
            raise IndexError(msg)
        out = np.empty(shape[-2:], self._sharded.dtype)
        self._fill(out, [at % size for at, size in zip(index, shape, strict=False)], self._sharded)
        return out

    def whole(self) -> Any:
        """Return the full resolution as a new numpy array."""
        import numpy as np  # noqa: PLC0415

        if self._sharded is None:
            return np.asarray(self.data[...])
        shape = self._sharded.level.shape
        out = np.empty(shape, self._sharded.dtype)
        for index in np.ndindex(*shape[:-2]):
            self._fill(out[index], index, self._sharded)
        return out

    def _fill(self, out: Any, index: Sequence[int], sharded: _Sharded) -> None:
        import numpy as np  # noqa: PLC0415

        level = sharded.level
        counts = [full // part for full, part in zip(level.shard, level.chunk, strict=True)]
        outer = [divmod(at, full) for at, full in zip(index, level.shard, strict=False)]
        for y, x in grid(out.shape, level.shard[-2:]):
            key = f"{self._first}/c/{'/'.join(map(str, [*(at for at, _ in outer), y, x]))}"
            part = out[region((y, x), level.shard[-2:], out.shape)]
            cells = list(grid(part.shape, level.chunk[-2:]))
            numbers = [number_in([*(inner for _, inner in outer), *cell], counts) for cell in cells]
            for cell, content in zip(cells, self._chunks(key, numbers, counts), strict=True):
                target = part[region(cell, level.chunk[-2:], part.shape)]
                exact = target.shape == level.chunk[-2:] and target.flags.c_contiguous
                chunk = target if exact else np.empty(level.chunk[-2:], sharded.dtype)
                if content is None:
                    chunk[...] = 0
                else:
                    self._decode(content, chunk, sharded.codec)
                if not exact:
                    target[...] = chunk[: target.shape[0], : target.shape[1]]

    def _chunks(self, key: str, numbers: Sequence[int], counts: Sequence[int]) -> list[Buffer | None]:
        index = self._indices.get(key)
        if index is None:
            length = index_size(int(_product(counts)))
            index = self._indices[key] = self._images.read(self._address, key, [(-length, length)])[0]
        try:
            spans = [locate(index, number) for number in numbers]
        except ValueError as error:
            msg = f"{self._address}: {key}: {error}"
            raise Corrupt(msg) from error
        found = iter(self._images.read(self._address, key, [span for span in spans if span is not None]))
        return [None if span is None else next(found) for span in spans]

    def _decode(self, content: Buffer, chunk: Any, codec: Codec) -> None:
        try:
            decode_into(content, chunk, codec)
        except (RuntimeError, ValueError) as error:
            msg = f"{self._address}: a chunk cannot be decoded ({error})"
            raise Corrupt(msg) from error

    def _first_array(self) -> str:
        if self._own:
            return str(self._own["arrays"][0])
        try:
            document = json.loads(self._root)
            if document.get("node_type") == "array":
                return ""
            attributes = document["attributes"]["ome"] if "node_type" in document else document
            return str(attributes["multiscales"][0]["datasets"][0]["path"])
        except (ValueError, KeyError, IndexError, TypeError) as error:
            msg = f"{self._address}: this is no OME-Zarr image ({error!r})"
            raise Unsupported(msg) from error

    def _understand(self) -> _Sharded | None:
        """Return how to read planes without zarr, which takes twice as long; None: let zarr read them."""
        if not self._own:
            return None
        try:
            document = json.loads(self._images.read(self._address, f"{self._first}/zarr.json")[0])
            sharding = document["codecs"][0]["configuration"]
            packed = sharding["codecs"][1]["configuration"]["cname"] if len(sharding["codecs"]) > 1 else ""
            level = Level(
                tuple(document["shape"]),
                tuple(sharding["chunk_shape"]),
                tuple(document["chunk_grid"]["configuration"]["chunk_shape"]),
            )
        except (FileNotFoundError, ValueError, KeyError, IndexError):
            return None
        planar = len(level.shape) > 1 and all(side == 1 for side in level.chunk[:-2])
        return (
            _Sharded(level, f"{document['data_type']}", _DECODERS[packed]) if planar and packed in _DECODERS else None
        )


def _product(counts: Sequence[int]) -> int:
    result = 1
    for count in counts:
        result *= count
    return result
