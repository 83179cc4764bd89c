"""Read one file into its signals, whatever made it; the one door to the readers, which load on first use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from labrelay_worker.reading.signal import Signal, of_array

#: Files larger than this many bytes are read piece by piece as they are used.
LAZY_ABOVE = 256 << 20

_TIFF = (".tif", ".tiff")
_LONGEST_REASON = 300


class Unreadable(Exception):
    """A file is not a signal we can read; its text says why, on one line. It can still be delivered as bytes."""


def read_signals(path: Path, *, lazy_above: int = LAZY_ABOVE) -> list[Signal]:
    """Return every signal of a file.

    Parameters
    ----------
    path
        An instrument file (what rosettasciio reads), a TIFF or a ``.npy``.
    lazy_above
        Size in bytes above which arrays stay on disk until they are sliced.

    Raises
    ------
    Unreadable
        There is no reader for it, its reader is not installed, or the content is damaged.
    """
    lazy = path.stat().st_size > lazy_above
    suffix = path.suffix.lower()
    try:
        signals = [_read_npy(path, lazy=lazy)] if suffix == ".npy" else _read_instrument(path, lazy=lazy)
        checked = [_checked(signal) for signal in signals]
    except (Unreadable, MemoryError):
        raise
    # Readers raise anything at all on a damaged file.
    except (Exception, SystemExit) as error:
        raise Unreadable(one_line(f"{type(error).__name__}: {error}")) from error
    if not checked:
        raise Unreadable("there is no signal in it")
    many = len(checked) > 1
    return [
        replace(signal, name=signal.name or (f"{path.stem} {number}" if many else path.stem))
        for number, signal in enumerate(checked)
    ]


def one_line(text: str) -> str:
    """Return a text on one line, of a bounded length."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_REASON else f"{line[:_LONGEST_REASON]} …"


def _read_npy(path: Path, *, lazy: bool) -> Signal:
    import numpy as np  # noqa: PLC0415  a worker that reads no files does not load it

    # Pickle would run code from a data file.
    return of_array(np.load(path, mmap_mode="r" if lazy else None, allow_pickle=False))


def _read_instrument(path: Path, *, lazy: bool) -> list[Signal]:
    from labrelay_worker.reading import rosetta  # noqa: PLC0415  pulls a reader and dask

    try:
        return rosetta.read(path, lazy=lazy)
    except Unreadable:
        if path.suffix.lower() not in _TIFF:
            raise
        return _read_tiff(path)


def _read_tiff(path: Path) -> list[Signal]:
    """Read a TIFF that rosettasciio cannot: every series of it, without calibration."""
    import tifffile  # noqa: PLC0415

    with tifffile.TiffFile(path) as file:
        return [of_array(series.asarray(), series.name) for series in file.series]


def _checked(signal: Signal) -> Signal:
    data: Any = signal.data
    if data.dtype.kind not in "biufc":
        raise Unreadable(f"its values are {data.dtype}, not numbers")
    if 0 in signal.shape or not signal.shape:
        raise Unreadable(f"it holds no samples (shape {signal.shape})")
    return signal
