"""One signal: an array that knows what its axes mean. What readers give and what image stores and viewers take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

AxisKind = Literal["space", "time", "channel", "other"]

#: Names of the axes of a bare array, by number of axes.
_BARE: Mapping[int, str] = {1: "x", 2: "yx", 3: "zyx", 4: "czyx", 5: "tczyx"}
_KINDS: Mapping[str, AxisKind] = {"x": "space", "y": "space", "z": "space", "t": "time", "c": "channel"}


@dataclass(frozen=True)
class Axis:
    """One axis of an array.

    Parameters
    ----------
    name
        As the file has it, in lower case where it is one of t, c, z, y, x.
    kind
        What it runs over; an energy or a stack index is "other".
    scale, offset
        Step between neighbours and value at index 0, in `unit`.
    unit
        As the file has it: ``nm``, ``1/nm``, ``eV``; empty: not calibrated.
    """

    name: str
    kind: AxisKind
    scale: float = 1.0
    offset: float = 0.0
    unit: str = ""


@dataclass(frozen=True)
class Channel:
    """How one channel is called and coloured (six hexadecimal digits, red first)."""

    label: str
    color: str = "FFFFFF"


@dataclass(frozen=True)
class Well:
    """Where in a plate an image belongs.

    Parameters
    ----------
    plate
        Name of the plate.
    row, column
        Names of row and column, letters and digits only.
    field
        Which of the well's images it is, from 0.
    rows, columns
        Every name the plate has, whether imaged or not; those of images may be left out.
    """

    plate: str
    row: str
    column: str
    field: int = 0
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Signal:
    """An array with its meaning.

    Parameters
    ----------
    data
        Anything with ``shape``, ``dtype`` and slicing that ends in a numpy array: numpy, dask, zarr.
    axes
        One per dimension of the data, in its order.
    name
        Title for people.
    channels
        Labels and colours along the channel axis; may be empty.
    metadata
        What the reader understood, and under ``original`` all the file said; JSON values only.
    identity
        Equal for equal content, e.g. the source's sha256 and the signal's number; empty: not known.
    well
        Its place in a plate, if it has one.
    """

    data: Any
    axes: tuple[Axis, ...]
    name: str = ""
    channels: tuple[Channel, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    identity: str = ""
    well: Well | None = None

    def __post_init__(self) -> None:
        if len(self.axes) != len(self.data.shape):
            msg = f"{len(self.axes)} axes are named for an array of {len(self.data.shape)} dimensions"
            raise ValueError(msg)

    @property
    def is_image(self) -> bool:
        """Whether it has planes: 2 or 3 axes in space, at most one in time and one other (NGFF 0.5, multiscales)."""
        kinds = [axis.kind for axis in self.axes]
        others = kinds.count("channel") + kinds.count("other")
        return kinds.count("space") in {2, 3} and kinds.count("time") <= 1 and others <= 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of samples along each axis."""
        return tuple(int(size) for size in self.data.shape)


def of_array(data: Any, name: str = "") -> Signal:
    """Return a bare array as an uncalibrated signal: yx, zyx, czyx or tczyx by its number of dimensions."""
    names = _BARE.get(len(data.shape), "")
    axes = tuple(Axis(letter, _KINDS[letter]) for letter in names) or tuple(
        Axis(f"axis{number}", "other") for number in range(len(data.shape))
    )
    return Signal(data, axes, name)
