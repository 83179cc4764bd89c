"""Signals through rosettasciio: its dictionaries become axes with kinds, units and offsets."""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Mapping
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from labrelay_worker.discovery import missing_package
from labrelay_worker.reading.files import Unreadable, one_line
from labrelay_worker.reading.signal import Axis, AxisKind, Channel, Signal

#: Readers of formats that are pictures or tables for everybody; those files go on as they are.
_NOT_SIGNALS = frozenset({"Image", "Impulse", "Protochips", "JobinYvon", "EMPAD", "ZSPY"})
_LONG_NAMES: Mapping[str, str] = {
    "width": "x", "height": "y", "depth": "z", "time": "t", "channel": "c", "channels": "c",
}  # fmt: skip
_NAMED: Mapping[str, AxisKind] = {"x": "space", "y": "space", "z": "space", "t": "time", "c": "channel"}
_PRIMARIES = {"R": "FF0000", "G": "00FF00", "B": "0000FF"}
_MOST_VALUES = 1000  # of one list in the metadata: look-up tables are not what people search for


def read(path: Path, *, lazy: bool) -> list[Signal]:
    """Return the signals of a file; see `labrelay_worker.reading.files.read_signals`."""
    try:
        import rsciio  # noqa: PLC0415
    except ImportError:
        raise Unreadable('reading it needs rosettasciio: pip install "labrelay[reading]"') from None
    suffix = path.suffix.lower().removeprefix(".")
    plugins = [
        plugin
        for plugin in rsciio.IO_PLUGINS
        if plugin["name"] not in _NOT_SIGNALS and suffix in map(str.lower, plugin["file_extensions"])
    ]
    if not suffix or not plugins:
        raise Unreadable(f"there is no reader for {path.suffix or 'files without a suffix'}")
    failures = []
    for plugin in plugins:
        try:
            with warnings.catch_warnings():  # about details of a vendor's format that nobody here can change
                warnings.simplefilter("ignore")
                found = importlib.import_module(plugin["api"]).file_reader(str(path), lazy=lazy)
                return [_signal(entry) for entry in found]
        except MemoryError:
            raise
        # Readers raise anything at all; another one may know the same suffix.
        except (Exception, SystemExit) as error:  # noqa: BLE001
            missing = missing_package(error)
            reason = f"{type(error).__name__}: {error}" if missing is None else f"needs {missing[1]}"
            failures.append(f"{plugin['name']}: {reason}")
    raise Unreadable(one_line("; ".join(failures)))


def _signal(entry: Mapping[str, Any]) -> Signal:
    data, axes = entry["data"], [_axis(axis) for axis in _ordered(entry)]
    channels: tuple[Channel, ...] = ()
    if data.dtype.names:  # colour pixels: (R, G, B[, A]) records
        import numpy as np  # noqa: PLC0415

        names = [name for name in data.dtype.names if name != "A"]
        channels = tuple(Channel(name, _PRIMARIES.get(name, "FFFFFF")) for name in names)
        data = np.stack([np.asarray(data[name]) for name in names])
        axes.insert(0, Axis("c", "channel"))
    understood = entry.get("metadata") or {}
    title = (understood.get("General") or {}).get("title")
    metadata = {**plain(understood), "original": plain(entry.get("original_metadata") or {})}
    return Signal(data, _distinct(axes), str(title or ""), channels, metadata)


def _ordered(entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    axes = list(entry["axes"])
    if all(axis.get("index_in_array") is not None for axis in axes):
        axes.sort(key=lambda axis: int(axis["index_in_array"]))
    return axes


def _axis(axis: Mapping[str, Any]) -> Axis:
    name = _text(axis.get("name"))
    letter = _LONG_NAMES.get(name.lower(), name.lower())
    unit = _text(axis.get("units"))
    values = axis.get("axis")  # a non-uniform axis lists its values: the first step stands for all
    if values is not None and len(values) > 1:
        scale, offset = float(values[1]) - float(values[0]), float(values[0])
    else:
        scale, offset = float(axis.get("scale") or 1.0), float(axis.get("offset") or 0.0)
    # A step of zero or below cannot be drawn, and NGFF refuses a scale that is no finite number.
    if not math.isfinite(scale) or not scale:
        scale = 1.0
    offset = offset + 0.0 if math.isfinite(offset) else 0.0  # plus zero: -0.0 is a riddle for readers
    return Axis(letter if letter in _NAMED else name, _kind(letter, unit), scale, offset, unit)


def _kind(letter: str, unit: str) -> AxisKind:
    if "eV" in unit or "energy" in letter:
        return "other"
    if letter in _NAMED:
        return _NAMED[letter]
    # Positions in a diffraction pattern are places on the detector.
    return "space" if letter in {"kx", "ky", "dx", "dy"} else "other"


def _distinct(axes: list[Axis]) -> tuple[Axis, ...]:
    """Give nameless axes a name, and the second of two equal names a number."""
    result: list[Axis] = []
    for number, axis in enumerate(axes):
        name = axis.name or f"axis{number}"
        if name in {other.name for other in result}:
            name = f"{name}{number}"
        result.append(Axis(name, axis.kind, axis.scale, axis.offset, axis.unit))
    return tuple(result)


def _text(value: Any) -> str:
    # traits.Undefined and None both mean that the file does not say.
    text = "" if value is None else str(value).strip()
    return "" if text.startswith("<") else text


def plain(value: Any) -> Any:  # noqa: PLR0911  one line for each kind of value
    """Return a value as JSON has it: numpy numbers as numbers, bytes and long lists as what they are, in words."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, str | bool) or value is None:
        return value
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if hasattr(value, "tolist"):  # numpy
        return plain(value.tolist()) if getattr(value, "size", 0) <= _MOST_VALUES else f"{value.shape} {value.dtype}"
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in value] if len(value) <= _MOST_VALUES else f"{len(value)} values"
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return str(value)
