"""The messages between a worker and a viewer: frames of JSON and raw pixels, nothing that can run code.

A message is ``[header, payload]`` or ``[header]``. The header is a JSON object with the schema, a ``kind`` and what
the kind needs; a payload is raw little-endian memory in C order. ``docs/viewers.md`` has the table of kinds.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from labrelay.names import VIEWER_SCHEMA
from labrelay_worker.backends.errors import Unsupported
from labrelay_worker.viewers.pictures import DTYPES, Part, Picture, Points, Shape, Shapes, Showable

#: Bytes of one header; vertices and pixels are in the payload, so this is much.
LONGEST_HEADER = 1 << 20
#: Bytes of one item's payload: what one message of the transport may carry.
LARGEST_PAYLOAD = 2 << 30

Buffer = bytes | memoryview


class BadMessage(ValueError):
    """A message that is not one of ours, or breaks its own rules; it is dropped and answered with the reason."""


@dataclass(frozen=True)
class Message:
    """One message: a kind, its fields, and raw bytes when it carries pixels or coordinates."""

    kind: str
    fields: Mapping[str, Any]
    payload: Buffer = b""

    @property
    def size(self) -> int:
        """Bytes that it occupies on its way: what the window counts."""
        return len(self.payload) + 1024

    def frames(self) -> list[Buffer]:
        """Return the frames to send."""
        head = {"schema": VIEWER_SCHEMA, "kind": self.kind, **self.fields}
        header = json.dumps(head, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        return [header, self.payload] if len(self.payload) else [header]


def parse(frames: Sequence[Buffer]) -> Message:
    """Return the message of these frames.

    Raises
    ------
    BadMessage
        They are not one.
    """
    if not 1 <= len(frames) <= 2 or len(frames[0]) > LONGEST_HEADER:  # noqa: PLR2004
        raise BadMessage(f"{len(frames)} frames, or a header over {LONGEST_HEADER} bytes")
    try:
        # Stricter than `json`: what is read here can be written again, into the answer.
        head = orjson.loads(bytes(frames[0]))
    except ValueError as error:
        raise BadMessage("the header is not JSON") from error
    if not isinstance(head, dict):
        raise BadMessage("the header is not an object")
    if (schema := head.pop("schema", None)) != VIEWER_SCHEMA:
        raise BadMessage(
            f"schema {str(schema)[:40]!r}; this side speaks {VIEWER_SCHEMA}, so install the same labrelay on both"
        )
    kind = head.pop("kind", None)
    if not isinstance(kind, str):
        raise BadMessage("no kind")
    return Message(kind, head, frames[1] if len(frames) > 1 else b"")


def checksum(data: Buffer | np.ndarray[Any, Any]) -> int:
    """Return the CRC-32 of raw memory: enough to tell whether what is shown is what was sent."""
    if isinstance(data, np.ndarray):
        data = _bytes_of(np.ascontiguousarray(data))
    return zlib.crc32(data)


def show_message(item: Showable, number: int) -> Message:
    """Return the message that shows an item.

    Raises
    ------
    Unsupported
        It cannot be shown, or is larger than a message may be.
    """
    if isinstance(item, Picture):
        message = _picture_message(item.canonical(), number)
    elif isinstance(item, Shapes):
        message = _shapes_message(item.checked(), number)
    else:
        points = item.checked()
        fields = {"id": number, "name": points.name, "on": points.on, "size": points.size}
        message = Message("points", fields, _bytes_of(points.positions))
    if len(message.payload) > LARGEST_PAYLOAD or len(message.frames()[0]) > LONGEST_HEADER:
        raise Unsupported(
            f"{item.name}: {len(message.payload)} bytes are too many to show at once; show planes of it"
        )
    return message


def read_item(message: Message) -> Showable:
    """Return the item that a message shows; its array is read-only and shares the payload's memory.

    Raises
    ------
    BadMessage
        The fields contradict one another or the payload.
    """
    readers: dict[str, Callable[[Mapping[str, Any], Buffer], Showable]] = {
        "image": _read_picture,
        "shapes": _read_shapes,
        "points": _read_points,
    }
    try:
        item = readers[message.kind](message.fields, message.payload)
        if isinstance(item, Picture):
            return item.canonical()
        return item.checked()
    except KeyError as error:
        raise BadMessage(f"{message.kind}: {error.args[0]!r} is missing or unknown") from error
    except (TypeError, ValueError) as error:
        raise BadMessage(f"{message.kind}: {error}") from error


def _bytes_of(array: np.ndarray[Any, Any]) -> memoryview:
    """Return the memory of a contiguous array, shared."""
    view: memoryview = array.reshape(-1).view(np.uint8).data if array.size else memoryview(b"")
    return view


def _picture_message(picture: Picture, number: int) -> Message:
    array = picture.array
    fields: dict[str, Any] = {
        "id": number, "name": picture.name, "dtype": array.dtype.str, "shape": list(array.shape),
        "axes": picture.axes, "scale": list(picture.scale), "unit": picture.unit,
        "channels": list(picture.channels), "contrast": [list(map(float, pair)) for pair in picture.contrast],
    }  # fmt: skip
    if picture.part is not None:
        fields["part"] = vars(picture.part)
    return Message("image", fields, _bytes_of(array))


def _read_picture(fields: Mapping[str, Any], payload: Buffer) -> Picture:
    dtype, shape = str(fields["dtype"]), tuple(int(n) for n in fields["shape"])
    if dtype not in DTYPES:
        raise BadMessage(f"image: dtype {dtype!r}")
    if any(n < 1 for n in shape):
        raise BadMessage(f"image: shape {shape}")
    array = np.frombuffer(payload, dtype=np.dtype(dtype))
    part = fields.get("part")
    return Picture(
        array.reshape(shape),
        str(fields["name"]),
        axes=str(fields["axes"]),
        scale=tuple(float(n) for n in fields["scale"]),
        unit=str(fields["unit"]),
        channels=tuple(str(name) for name in fields["channels"]),
        contrast=tuple((float(low), float(high)) for low, high in fields["contrast"]),
        part=None if part is None else Part(part["axis"], int(part["index"]), int(part["count"])),
    )


def _shapes_message(shapes: Shapes, number: int) -> Message:
    items = [{"kind": item.kind, "count": len(item.vertices), "label": item.label} for item in shapes.items]
    fields = {"id": number, "name": shapes.name, "on": shapes.on, "items": items}
    return Message("shapes", fields, np.concatenate([item.vertices for item in shapes.items]).astype("<f8").tobytes())


def _read_shapes(fields: Mapping[str, Any], payload: Buffer) -> Shapes:
    vertices = np.frombuffer(payload, dtype="<f8").reshape(-1, 2)
    items, begin = [], 0
    for entry in fields["items"]:
        end = begin + int(entry["count"])
        items.append(Shape(entry["kind"], vertices[begin:end], str(entry["label"])))
        begin = end
    if begin != len(vertices):
        raise BadMessage(f"shapes: {len(vertices)} vertices for {begin}")
    return Shapes(tuple(items), str(fields["name"]), on=str(fields["on"]))


def _read_points(fields: Mapping[str, Any], payload: Buffer) -> Points:
    positions = np.frombuffer(payload, dtype="<f8").reshape(-1, 2)
    return Points(positions, str(fields["name"]), on=str(fields["on"]), size=float(fields["size"]))
