"""Planes out of sharded arrays, read without zarr, which takes three times as long and copies what it decodes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from labrelay_worker.backends.base import Corrupt
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
from labrelay_worker.backends.ngff.images import Images, Span
from labrelay_worker.backends.ngff.layout import Level, Shape
from labrelay_worker.backends.ngff.together import together

_DECODERS = {codec.cname: codec for codec in CODECS.values()}  # Blosc says itself how a chunk was shuffled


@dataclass(frozen=True)
class Sharding:
    """What an array's document says of how it is stored."""

    level: Level
    dtype: str
    codec: Codec


class ShardedArray:
    """An array whose chunks hold no more than one plane.

    Parameters
    ----------
    images, address
        Where the image is.
    name
        Of the array in the image.
    sharding
        How it is stored.
    """

    def __init__(self, images: Images, address: str, name: str, sharding: Sharding) -> None:
        self._images, self._address, self._name, self._sharding = images, address, name, sharding
        self._counts = [full // part for full, part in zip(sharding.level.shard, sharding.level.chunk, strict=True)]
        self._indices: dict[str, bytes] = {}

    @property
    def shape(self) -> Shape:
        """Of the whole array."""
        return self._sharding.level.shape

    def empty(self, shape: Shape) -> Any:
        """Return a new numpy array of the type that is stored."""
        import numpy as np  # noqa: PLC0415

        return np.empty(shape, self._sharding.dtype)

    def fill(self, out: Any, index: Sequence[int]) -> None:
        """Decode the plane at this position into an array of its shape. Raises Corrupt."""
        level = self._sharding.level
        outer = [divmod(at, full) for at, full in zip(index, level.shard, strict=False)]
        inner = [within for _, within in outer]
        for y, x in grid(out.shape, level.shard[-2:]):
            key = f"{self._name}/c/{'/'.join(map(str, [*(at for at, _ in outer), y, x]))}"
            part = out[region((y, x), level.shard[-2:], out.shape)]
            cells = list(grid(part.shape, level.chunk[-2:]))
            contents = self._chunks(key, [number_in([*inner, *cell], self._counts) for cell in cells])
            targets = [part[region(cell, level.chunk[-2:], part.shape)] for cell in cells]
            together([partial(self._decode, *pair) for pair in zip(contents, targets, strict=True)])

    def _chunks(self, key: str, numbers: Sequence[int]) -> list[Buffer | None]:
        index = self._indices.get(key)
        if index is None:
            length = index_size(math.prod(self._counts))
            index = self._indices[key] = self._images.read(self._address, key, [(-length, length)])[0]
        try:
            spans = [locate(index, number) for number in numbers]
        except ValueError as error:
            msg = f"{self._address}: {key}: {error}"
            raise Corrupt(msg) from error
        found = self._parts(key, joined(span for span in spans if span is not None))
        return [None if span is None else next(found) for span in spans]

    def _parts(self, key: str, groups: Sequence[Sequence[Span]]) -> Iterator[Buffer]:
        runs = [(group[0][0], sum(length for _, length in group)) for group in groups]
        for group, content in zip(groups, self._images.read(self._address, key, runs), strict=True):
            view, begin = memoryview(content), group[0][0]
            for start, length in group:
                yield view[start - begin : start - begin + length]

    def _decode(self, content: Buffer | None, target: Any) -> None:
        chunk_shape = self._sharding.level.chunk[-2:]
        exact = target.shape == chunk_shape and target.flags.c_contiguous
        chunk = target if exact else self.empty(chunk_shape)
        try:
            if content is None:
                chunk[...] = 0
            else:
                decode_into(content, chunk, self._sharding.codec)
        except (RuntimeError, ValueError) as error:
            msg = f"{self._address}: a chunk cannot be decoded ({error})"
            raise Corrupt(msg) from error
        if not exact:
            target[...] = chunk[: target.shape[0], : target.shape[1]]


def sharding_of(array: bytes) -> Sharding | None:
    """Return what an array's document says; None: it is none whose planes are read here."""
    try:
        document = json.loads(array)
        sharding = document["codecs"][0]["configuration"]
        packed = sharding["codecs"][1]["configuration"]["cname"] if len(sharding["codecs"]) > 1 else ""
        level = Level(
            tuple(document["shape"]),
            tuple(sharding["chunk_shape"]),
            tuple(document["chunk_grid"]["configuration"]["chunk_shape"]),
        )
        dtype = f"{document['data_type']}"
    except (ValueError, KeyError, IndexError):
        return None
    planar = len(level.shape) > 1 and all(side == 1 for side in level.chunk[:-2])
    return Sharding(level, dtype, _DECODERS[packed]) if planar and packed in _DECODERS else None


def joined(spans: Iterable[Span]) -> list[list[Span]]:
    """Return spans in groups that follow each other without a gap: each group is one read, of one request. Pure."""
    groups: list[list[Span]] = []
    for start, length in spans:
        if groups and sum(groups[-1][-1]) == start:
            groups[-1].append((start, length))
        else:
            groups.append([(start, length)])
    return groups
