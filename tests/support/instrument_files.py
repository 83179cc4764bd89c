"""Files as DigitalMicrograph 4 and TIA write them, small: rosettasciio reads these formats and writes neither."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

_GROUP, _DATA = 20, 21
_DM_UINT16, _DM_UINT32, _DM_FLOAT, _DM_ARRAY = 4, 5, 6, 20
_IMAGE_OF_UINT16 = 10
_TIA_IMAGES, _TIA_TIMES, _TIA_UINT16 = 0x4122, 0x4152, 2


def write_dm4(path: Path, data: np.ndarray[Any, Any], nanometres: float) -> None:
    """Write one uint16 image of DigitalMicrograph 4: big-endian tags around little-endian numbers."""
    step = {"Origin": 0.0, "Scale": nanometres, "Units": "nm"}
    pixels = {
        "Calibrations": {
            "Brightness": {"Origin": 0.0, "Scale": 1.0, "Units": ""},
            "Dimension": {str(number): step for number in range(data.ndim)},
        },
        "Data": data.astype("<u2"),
        "DataType": _IMAGE_OF_UINT16,
        "Dimensions": {str(number): size for number, size in enumerate(reversed(data.shape))},
        "PixelDepth": 2,
    }
    tags = {"ImageList": {"": {"ImageData": pixels, "ImageTags": {}, "Name": path.stem}}}
    content = _dm_group(tags)
    path.write_bytes(struct.pack(">IQI", 4, len(content), 1) + content)


def write_ser(path: Path, data: np.ndarray[Any, Any], nanometres: float) -> None:
    """Write a series of uint16 images (number, y, x) of TIA, version 0x0210, as lies beside its .emi."""
    count, height, width = data.shape
    dimension = struct.pack("<IddIII", count, 0.0, 1.0, 0, 0, 0)
    begin = 30 + len(dimension)
    metre = nanometres * 1e-9
    elements, offsets = [], []
    for plane in data:
        offsets.append(begin + 8 * count + sum(map(len, elements)))
        head = struct.pack("<ddIddIHII", 0.0, metre, 0, 0.0, metre, 0, _TIA_UINT16, width, height)
        # Rows from the bottom up; then the tag with the time.
        elements.append(
            head + plane[::-1].astype("<u2").tobytes() + struct.pack("<HHI", _TIA_TIMES, 0, 1_700_000_000)
        )
    header = struct.pack("<HHHIIIIII", 0x4949, 0x0197, 0x0210, _TIA_IMAGES, _TIA_TIMES, count, count, begin, 1)
    table = struct.pack(
        f"<{2 * count}I", *offsets, *offsets
    )  # of the images, and of their tags, which nobody follows
    path.write_bytes(header + dimension + table + b"".join(elements))


def _dm_group(tags: dict[str, Any]) -> bytes:
    return struct.pack(">BBQ", 0, 0, len(tags)) + b"".join(_dm_tag(name, value) for name, value in tags.items())


def _dm_tag(name: str, value: Any) -> bytes:
    kind = _GROUP if isinstance(value, dict) else _DATA
    if isinstance(value, dict):
        content = _dm_group(value)
        # A nested group tells its own length between its flags and its count.
        content = content[:2] + struct.pack(">Q", len(content)) + content[2:]
        return struct.pack(">BH", kind, len(name)) + name.encode() + content
    if isinstance(value, np.ndarray):
        types, numbers = [_DM_ARRAY, _DM_UINT16, value.size], value.tobytes()
    elif isinstance(value, str):
        types, numbers = [_DM_ARRAY, _DM_UINT16, len(value)], value.encode("utf-16-le")
    elif isinstance(value, float):
        types, numbers = [_DM_FLOAT], struct.pack("<f", value)
    else:
        types, numbers = [_DM_UINT32], struct.pack("<I", value)
    content = b"%%%%" + struct.pack(f">Q{len(types)}Q", len(types), *types) + numbers
    return struct.pack(">BH", kind, len(name)) + name.encode() + struct.pack(">Q", len(content)) + content
