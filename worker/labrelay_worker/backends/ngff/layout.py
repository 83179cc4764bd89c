"""How an array is cut: order of axes, pyramid levels, chunks and shards. Pure.

A chunk is what one read decodes, a shard is one file. Chunks never hold more than one plane, so reading a plane
decodes that plane, and a large plane is cut into bands of whole rows. A shard holds as many planes as fit into
`SHARD_BYTES`, or a band of rows of a plane that is larger than that, so that a writer needs the memory of one shard.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from labrelay_worker.reading.signal import Axis, Signal

SHARD_BYTES = 64 << 20
#: A chunk in a shard is at most this large, so that a large plane is several, which are decoded side by side.
CHUNK_BYTES = 2 << 20
#: Levels are added until neither side of a plane is longer.
SMALLEST_SIDE = 512
_RANK = {"time": 0, "channel": 1, "other": 1, "space": 2}
_SPACE = {"z": 0, "y": 1, "x": 2}

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Level:
    """One resolution: its array shape, and the shapes of its chunks and shards."""

    shape: Shape
    chunk: Shape
    shard: Shape


@dataclass(frozen=True)
class Layout:
    """How a signal is stored.

    Parameters
    ----------
    axes
        In the order of storage.
    order
        Which axis of the signal is stored first, second and so on.
    is_image
        Whether NGFF can say what it is; otherwise it is a plain array with the same names and units.
    levels
        Resolutions, the full one first; each halves both sides of a plane.
    """

    axes: tuple[Axis, ...]
    order: tuple[int, ...]
    is_image: bool
    levels: tuple[Level, ...]


def lay_out(
    signal: Signal, *, chunk: int = 2048, levels: int | None = None, chunk_bytes: int | None = CHUNK_BYTES
) -> Layout:
    """Return how a signal is stored.

    Parameters
    ----------
    signal
        What is to be stored.
    chunk
        Longest side of a chunk in pixels, a power of two.
    levels
        Most resolutions; None: until a plane is at most `SMALLEST_SIDE` pixels.
    chunk_bytes
        Most bytes of a chunk, as far as rows can be divided; None: as many as its sides make.
    """
    is_image = signal.is_image
    order = _order(signal.axes) if is_image else tuple(range(len(signal.axes)))
    shape = tuple(signal.shape[index] for index in order)
    axes = tuple(signal.axes[index] for index in order)
    count = _count(shape, levels) if is_image else 1
    itemsize = int(signal.data.dtype.itemsize)
    return Layout(axes, order, is_image, tuple(_levels(shape, itemsize, chunk, count, chunk_bytes)))


def _order(axes: Sequence[Axis]) -> Shape:
    def rank(index: int) -> tuple[int, int, int]:
        axis = axes[index]
        return _RANK[axis.kind], _SPACE.get(axis.name, 0) if axis.kind == "space" else 0, index

    return tuple(sorted(range(len(axes)), key=rank))


def _count(shape: Shape, most: int | None) -> int:
    needed = 1 + max(0, math.ceil(math.log2(max(shape[-2:]) / SMALLEST_SIDE)))
    possible = 1 + int(math.log2(min(shape[-2:])))
    return max(1, min(needed, possible, most or needed))


def _levels(shape: Shape, itemsize: int, chunk: int, count: int, chunk_bytes: int | None) -> list[Level]:
    if len(shape) == 1:
        side = min(shape[0], SHARD_BYTES // itemsize)
        return [Level(shape, (side,), (side,))]
    *outer, height, width = shape
    plane = height * width * itemsize
    planes = min(outer[-1], max(1, SHARD_BYTES // plane)) if outer else 1
    stacked = [*(1 for _ in outer[:-1]), planes] if outer else []
    band = None
    if plane > SHARD_BYTES and height > chunk:
        # Powers of two, so that every level is cut at the same rows.
        band = chunk * _power_below(SHARD_BYTES // (chunk * width * itemsize))
    result = []
    for level in range(count):
        rows, columns = height >> level, width >> level
        wide = _even(columns, chunk)
        tall = chunk if chunk_bytes is None else min(chunk, _power_below(chunk_bytes // (wide * itemsize)))
        high = min(tall, band >> level) if band else _even(rows, tall)
        shard = (band >> level) if band else high * math.ceil(rows / high)
        result.append(
            Level(
                (*outer, rows, columns),
                (*(1 for _ in outer), high, wide),
                (*stacked, shard, wide * math.ceil(columns / wide)),
            )
        )
    return result


def _even(size: int, most: int) -> int:
    """Return the side of equal chunks: 2672 pixels are two of 1336, not one of 2048 and a mostly empty one."""
    return math.ceil(size / math.ceil(size / most))


def _power_below(number: int) -> int:
    """Return the largest power of two that is not more than a number, at least 1."""
    return 1 << max(1, number).bit_length() - 1
