"""The codecs by name, and chunks to shards and back.

Shards are put together here, in the format of the Zarr specification (sharding-indexed codec 1.0), because zarr's
own writer takes two to five times the CPU (docs/backends.md, codecs). Everything is read back with zarr in the tests.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from labrelay_worker.backends.base import Unsupported
from labrelay_worker.backends.ngff.layout import Level, Shape

_ABSENT = 2**64 - 1
_ENTRY = 16  # bytes of one index entry: offset and length, little-endian
_CHECKSUM = 4

Buffer = Any  # bytes, memoryview or a contiguous numpy array


@dataclass(frozen=True)
class Codec:
    """Blosc with one of its compressors; an empty name stores raw values.

    Parameters
    ----------
    cname, clevel, shuffle
        As Blosc calls them; shuffle is noshuffle, shuffle or bitshuffle.
    """

    cname: str
    clevel: int = 0
    shuffle: str = "noshuffle"


#: Measured: docs/backends.md, codecs.
CODECS: Mapping[str, Codec] = MappingProxyType(
    {
        "lz4": Codec("lz4", 5, "shuffle"),
        "lz4-bitshuffle": Codec("lz4", 5, "bitshuffle"),
        "zstd": Codec("zstd", 1, "bitshuffle"),
        "none": Codec(""),
    }
)


def codec_named(name: str) -> Codec:
    """Return a codec. Raises Unsupported for an unknown name."""
    if name not in CODECS:
        msg = f"codec {name!r}: use one of {', '.join(CODECS)}"
        raise Unsupported(msg)
    return CODECS[name]


def grid(shape: Shape, block: Shape) -> Iterator[Shape]:
    """Yield the coordinates of the blocks that cover a shape, last axis fastest."""
    return itertools.product(*(range(-(-size // step)) for size, step in zip(shape, block, strict=True)))


def region(coordinates: Shape, block: Shape, shape: Shape) -> tuple[slice, ...]:
    """Return where a block lies in an array, cut off at its end."""
    return tuple(
        slice(at * step, min((at + 1) * step, size)) for at, step, size in zip(coordinates, block, shape, strict=True)
    )


def encode_chunks(block: Any, chunk: Shape, codec: Codec) -> Iterator[tuple[Shape, Buffer]]:
    """Yield the encoded chunks of a block with their coordinates in it; the edges are filled up with zeros."""
    import numpy as np  # noqa: PLC0415

    compressor = _blosc(codec)
    for coordinates in grid(block.shape, chunk):
        part = block[region(coordinates, chunk, block.shape)]
        if part.shape != chunk:
            part = np.pad(part, [(0, full - size) for size, full in zip(part.shape, chunk, strict=True)])
        part = np.ascontiguousarray(part)
        # Blosc takes at most 2 GiB - 17 bytes; chunks are far below.
        yield coordinates, (compressor.encode(part) if compressor else part.reshape(-1).view("u1").data)


def encode_shard(block: Any, level: Level, codec: Codec) -> Iterator[Buffer]:
    """Yield the pieces of the shard that holds a block: its chunks, then the index with its checksum."""
    import google_crc32c  # noqa: PLC0415

    counts = [full // part for full, part in zip(level.shard, level.chunk, strict=True)]
    places = [(_ABSENT, _ABSENT)] * math.prod(counts)
    offset = 0
    for coordinates, piece in encode_chunks(block, level.chunk, codec):
        yield piece
        places[number_in(coordinates, counts)] = offset, len(piece)
        offset += len(piece)
    index = b"".join(struct.pack("<QQ", *place) for place in places)
    checksum: int = google_crc32c.value(index)
    yield index + struct.pack("<I", checksum)


def index_size(chunks: int) -> int:
    """Return the bytes at the end of a shard that hold its index."""
    return chunks * _ENTRY + _CHECKSUM


def locate(index: bytes, number: int) -> tuple[int, int] | None:
    """Return offset and length of a chunk in its shard; None: it is absent, so all zero. Raises ValueError."""
    import google_crc32c  # noqa: PLC0415

    entries, checksum = index[:-_CHECKSUM], index[-_CHECKSUM:]
    if struct.unpack("<I", checksum)[0] != google_crc32c.value(entries):
        msg = "the index of the shard is damaged"
        raise ValueError(msg)
    offset, length = struct.unpack_from("<QQ", entries, number * _ENTRY)
    return None if offset == _ABSENT else (offset, length)


def decode_into(content: Buffer, out: Any, codec: Codec) -> None:
    """Decode one chunk into a contiguous array of its shape. Raises what the codec raises on damage."""
    import numpy as np  # noqa: PLC0415

    compressor = _blosc(codec)
    if compressor:
        compressor.decode(content, out)
    else:
        out.reshape(-1).view("u1")[:] = np.frombuffer(content, "u1")


def number_in(coordinates: Sequence[int], counts: Sequence[int]) -> int:
    """Return the running number of a chunk in its shard, last axis fastest."""
    number = 0
    for at, count in zip(coordinates, counts, strict=True):
        number = number * count + at
    return number


@lru_cache
def _blosc(codec: Codec) -> Any:
    if not codec.cname:
        return None
    from numcodecs import Blosc  # noqa: PLC0415

    return Blosc(codec.cname, codec.clevel, getattr(Blosc, codec.shuffle.upper()))
