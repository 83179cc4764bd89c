"""The documents of an OME-Zarr image and plate, NGFF 0.5 on Zarr 3 and NGFF 0.4 on Zarr 2. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from types import MappingProxyType
from typing import Any, Literal

from labrelay_worker.backends.ngff.codecs import Codec
from labrelay_worker.backends.ngff.layout import Layout, Level
from labrelay_worker.backends.ngff.ranges import Window
from labrelay_worker.reading.signal import Axis, Channel

Version = Literal["0.5", "0.4"]
#: Units of NGFF 0.5, multiscales, by how instruments write them.
UNITS: Mapping[str, str] = MappingProxyType(
    {
        "m": "meter", "cm": "centimeter", "mm": "millimeter", "um": "micrometer", "µm": "micrometer",
        "μm": "micrometer", "micron": "micrometer", "nm": "nanometer", "pm": "picometer", "Å": "angstrom",
        "A": "angstrom", "angstrom": "angstrom", "s": "second", "ms": "millisecond", "us": "microsecond",
        "µs": "microsecond", "μs": "microsecond", "ns": "nanosecond", "min": "minute", "h": "hour",
    }
)  # fmt: skip
_TIME_UNITS = frozenset({"second", "millisecond", "microsecond", "nanosecond", "minute", "hour"})


def array_document(level: Level, axes: Sequence[Axis], dtype: Any, codec: Codec, version: Version) -> bytes:
    """Return the metadata of one array."""
    blosc = {"cname": codec.cname, "clevel": codec.clevel}
    fill: Any = False if dtype.kind == "b" else [0.0, 0.0] if dtype.kind == "c" else 0.0 if dtype.kind == "f" else 0
    if version == "0.4":
        shuffles = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}
        compressor = {"id": "blosc", **blosc, "shuffle": shuffles[codec.shuffle], "blocksize": 0}
        return document(
            {
                "zarr_format": 2,
                "shape": level.shape,
                "chunks": level.chunk,
                "dtype": dtype.str,
                "compressor": compressor if codec.cname else None,
                "fill_value": fill,
                "order": "C",
                "filters": None,
                "dimension_separator": "/",
            }
        )
    little = [_little(dtype)]
    packed = {"name": "blosc", "configuration": {
        **blosc, "shuffle": codec.shuffle, "typesize": dtype.itemsize, "blocksize": 0,
    }}  # fmt: skip
    index = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
    sharding = {
        "chunk_shape": level.chunk,
        "codecs": [*little, packed] if codec.cname else little,
        "index_codecs": index,
        "index_location": "end",
    }
    return document(
        {
            "zarr_format": 3,
            "node_type": "array",
            "shape": level.shape,
            "data_type": dtype.name,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": level.shard}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": fill,
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
            "attributes": {},
            "dimension_names": [axis.name for axis in axes],
            "storage_transformers": [],
        }
    )


def image_attributes(
    name: str,
    layout: Layout,
    paths: Sequence[str],
    channels: Sequence[Channel],
    windows: Mapping[int, Window],
    version: Version,
) -> dict[str, Any]:
    """Return the NGFF attributes of an image.

    Pixel sizes and units are the axes' own; a smaller level's first pixel lies half a step further in.
    """
    datasets = []
    for level, path in enumerate(paths):
        factors = [2**level if index >= len(layout.axes) - 2 else 1 for index in range(len(layout.axes))]
        scale = [axis.scale * factor for axis, factor in zip(layout.axes, factors, strict=True)]
        shift = [
            axis.offset + axis.scale * (factor - 1) / 2 for axis, factor in zip(layout.axes, factors, strict=True)
        ]
        steps: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
        if any(shift):
            steps.append({"type": "translation", "translation": shift})
        datasets.append({"path": path, "coordinateTransformations": steps})
    multiscale: dict[str, Any] = {
        "name": name,
        "axes": [_axis(axis) for axis in layout.axes],
        "datasets": datasets,
        "type": "mean",
    }
    result: dict[str, Any] = {"multiscales": [multiscale]}
    if windows:
        result["omero"] = _omero(layout, channels, windows)
    return _versioned(result, "multiscales", version)


def well_attributes(fields: Iterable[int], version: Version) -> dict[str, Any]:
    """Return the NGFF attributes of a well with these images."""
    return _versioned({"well": {"images": [{"path": str(number)} for number in sorted(fields)]}}, "well", version)


def plate_attributes(
    name: str, rows: Sequence[str], columns: Sequence[str], wells: Mapping[tuple[str, str], int], version: Version
) -> dict[str, Any]:
    """Return the NGFF attributes of a plate.

    Parameters
    ----------
    name
        For people.
    rows, columns
        All names, in the order of the plate.
    wells
        Number of images by (row, column), of the wells that have any.
    version
        Of NGFF.
    """
    plate = {
        "name": name,
        "rows": [{"name": row} for row in rows],
        "columns": [{"name": column} for column in columns],
        "wells": [
            {"path": f"{row}/{column}", "rowIndex": rows.index(row), "columnIndex": columns.index(column)}
            for row, column in sorted(wells, key=lambda well: (rows.index(well[0]), columns.index(well[1])))
        ],
        "field_count": max(wells.values(), default=1),
    }
    return _versioned({"plate": plate}, "plate", version)


def group_documents(attributes: Mapping[str, Any] | None, version: Version) -> dict[str, bytes]:
    """Return the files that make a group, by key; the last is the one that says what it is."""
    if version == "0.4":
        result = {".zgroup": document({"zarr_format": 2})}
        return result if attributes is None else {**result, ".zattrs": document(attributes)}
    content = {"zarr_format": 3, "node_type": "group", "attributes": attributes or {}}
    return {"zarr.json": document(content)}


def root_key(version: Version) -> str:
    """Return the key whose presence makes an image or plate."""
    return ".zattrs" if version == "0.4" else "zarr.json"


def document(content: Mapping[str, Any]) -> bytes:
    """Return a JSON document; what is not a number in JSON (NaN) is refused."""
    return json.dumps(content, ensure_ascii=False, allow_nan=False).encode()


def natural(name: str) -> tuple[int, int, str]:
    """Return a key that sorts row and column names as people count: 2 before 10, Z before AA."""
    return (0, int(name), "") if re.fullmatch(r"[0-9]+", name) else (1, len(name), name)


def _axis(axis: Axis) -> dict[str, Any]:
    unit = UNITS.get(axis.unit)
    if axis.kind == "other":  # a type of one's own is allowed (NGFF 0.5, axes), and its unit is free
        return {"name": axis.name, "type": "other", **({"unit": axis.unit} if axis.unit else {})}
    fits = unit is not None and axis.kind != "channel" and (unit in _TIME_UNITS) == (axis.kind == "time")
    return {"name": axis.name, "type": axis.kind, **({"unit": unit} if fits else {})}


def _omero(layout: Layout, channels: Sequence[Channel], windows: Mapping[int, Window]) -> dict[str, Any]:
    counts = [size for axis, size in zip(layout.axes, layout.levels[0].shape, strict=True) if axis.kind == "channel"]
    named = channels or [Channel(f"Channel {number}") for number in range(counts[0] if counts else 1)]
    # A channel of nothing but NaN has no range of its own, and a limit is no option of the format.
    everything = reduce(Window.joined, windows.values())
    return {
        "channels": [
            {"label": channel.label, "color": channel.color, "active": True, "window": _limits(window)}
            for channel, window in ((c, windows.get(number, everything)) for number, c in enumerate(named))
        ]
    }


def _limits(window: Window) -> dict[str, float]:
    return {"min": window.low, "max": window.high, "start": window.low, "end": window.high}


def _versioned(attributes: dict[str, Any], key: str, version: Version) -> dict[str, Any]:
    main = attributes[key]
    if version == "0.4" or key != "multiscales":  # plates and wells of 0.5 may repeat it, and readers look for it
        (main[0] if isinstance(main, list) else main)["version"] = version
    return attributes if version == "0.4" else {"ome": {"version": version, **attributes}}


def _little(dtype: Any) -> dict[str, Any]:
    if dtype.itemsize == 1:
        return {"name": "bytes"}
    return {"name": "bytes", "configuration": {"endian": "little"}}
