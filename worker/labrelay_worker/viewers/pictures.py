"""What a viewer can show: pictures, shapes and points, as plain data without a file behind them.

Whatever reads instrument files makes these; whatever draws them takes these. Coordinates are in pixels of the
picture they lie on, in the order of numpy's axes (y before x).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from labrelay_worker.backends.errors import Unsupported

#: Axes in the order a picture is shown in: time, depth, channel, rows, columns. RGB samples (S) come last.
AXES = "TZCYX"
SAMPLES = "S"
#: Of the channels of a picture, in turn, by names that napari and Java share.
CHANNEL_COLORS = ("green", "magenta", "cyan", "yellow", "red", "blue")
#: What an array without named axes is taken for.
_BY_NDIM = {2: "YX", 3: "ZYX", 4: "ZCYX", 5: "TZCYX"}

#: Little-endian types that every viewer can be sent.
DTYPES = ("|b1", "|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<f4", "<f8")
_SAMPLE_COUNTS = (3, 4)

ShapeKind = Literal["rectangle", "ellipse", "polygon", "path", "line"]
SHAPE_KINDS: tuple[ShapeKind, ...] = ("rectangle", "ellipse", "polygon", "path", "line")


@dataclass(frozen=True)
class Part:
    """One plane of a stack that arrives in pieces: its axis, its place from 0, and how many there will be."""

    axis: Literal["T", "Z"]
    index: int
    count: int


@dataclass(frozen=True)
class Picture:
    """An image of two to five axes.

    Parameters
    ----------
    array
        Numbers; a type that no viewer can be sent is refused, never cast.
    name
        What the viewer calls it; showing the same name again replaces it.
    axes
        One letter of ``TZCYX`` per axis of the array, ``S`` last for RGB samples (uint8); empty: by the number of
        axes (``YX``, ``ZYX``, ``ZCYX``, ``TZCYX``).
    scale
        Size of one step along each axis (as `axes`), in `unit`; empty: 1.
    unit
        Unit of the scale, e.g. "nm"; empty: pixels.
    channels
        Names along ``C``, or of the whole picture.
    contrast
        (low, high) shown black and white: one pair, or one for each channel; empty: from the data.
    part
        Set when this is one plane of the stack `name`.
    """

    array: np.ndarray[Any, Any]
    name: str
    axes: str = ""
    scale: tuple[float, ...] = ()
    unit: str = ""
    channels: tuple[str, ...] = ()
    contrast: tuple[tuple[float, float], ...] = ()
    part: Part | None = None

    def canonical(self) -> Picture:
        """Return the same picture with axes in the order of `AXES`, little-endian and contiguous.

        Raises
        ------
        Unsupported
            Nothing can be shown of it; the text names the fault.
        """
        array = np.asarray(self.array)
        axes = self.axes or _guess(array, self.name)
        self._check(array, axes)
        order = [letter for letter in AXES + SAMPLES if letter in axes]
        scale = self.scale or (1.0,) * len(axes)
        moved = array.transpose([axes.index(letter) for letter in order])
        return replace(
            self,
            array=np.ascontiguousarray(moved, dtype=moved.dtype.newbyteorder("<")),
            axes="".join(order),
            scale=tuple(float(scale[axes.index(letter)]) for letter in order),
        )

    def limits(self, channel: int, plane: np.ndarray[Any, Any]) -> tuple[float, float]:
        """Return what to show black and white: as `contrast` says, else the range of a plane's finite numbers."""
        if self.contrast:
            return self.contrast[channel if len(self.contrast) > 1 else 0]
        numbers = plane[np.isfinite(plane)] if plane.dtype.kind == "f" else plane
        low, high = (float(numbers.min()), float(numbers.max())) if numbers.size else (0.0, 1.0)
        return (low, high) if low < high else (low, low + 1)

    def _check(self, array: np.ndarray[Any, Any], axes: str) -> None:
        def refuse(fault: str) -> Unsupported:
            return Unsupported(f"{self.name}: cannot be shown: {fault}")

        if len(set(axes)) != len(axes) or not set(axes) <= {*AXES, *SAMPLES} or not {"Y", "X"} <= set(axes):
            raise refuse(f"axes {axes!r} are not letters of {AXES}, with Y and X, each once")
        if len(axes) != array.ndim:
            raise refuse(f"{array.ndim} axes, and {len(axes)} names for them ({axes})")
        if not array.size:
            raise refuse(f"its shape {array.shape} holds no pixel")
        if array.dtype.newbyteorder("<").str not in DTYPES:
            raise refuse(f"no viewer takes {array.dtype}; convert it as you see fit")
        if SAMPLES in axes and (
            array.dtype != np.uint8 or axes[-1] != SAMPLES or array.shape[-1] not in _SAMPLE_COUNTS or "C" in axes
        ):
            raise refuse("RGB samples are the last axis, 3 or 4 of uint8, without C")
        if len(axes) > len(AXES):
            raise refuse("it has more than five axes")
        if self.scale and (len(self.scale) != len(axes) or not all(s > 0 and math.isfinite(s) for s in self.scale)):
            raise refuse(f"the scale {self.scale} is not one number above 0 per axis")
        count = array.shape[axes.index("C")] if "C" in axes else 1
        if self.channels and len(self.channels) != count:
            raise refuse(f"{len(self.channels)} channel names for {count} channels")
        if self.contrast and len(self.contrast) not in (1, count):
            raise refuse(f"{len(self.contrast)} contrast limits for {count} channels")
        if any(not low < high for low, high in self.contrast):
            raise refuse("a contrast limit is (low, high) with low below high")
        if self.part is not None and (
            axes != "YX" or self.part.axis not in ("T", "Z") or not 0 <= self.part.index < self.part.count
        ):
            raise refuse("a part of a stack is one plane YX with a place below the count")


@dataclass(frozen=True)
class Shape:
    """One region of interest: `vertices` is an array (n, 2) of y, x in pixels; rectangles and ellipses by corners."""

    kind: ShapeKind
    vertices: np.ndarray[Any, Any]
    label: str = ""


@dataclass(frozen=True)
class Shapes:
    """Regions of interest on the picture `on` (empty: on their own), shown under `name`."""

    items: tuple[Shape, ...]
    name: str
    on: str = ""

    def checked(self) -> Shapes:
        """Return the same with float64 vertices. Raises Unsupported, naming the fault."""
        items = []
        for item in self.items:
            vertices = np.asarray(item.vertices, dtype=np.float64)
            if item.kind not in SHAPE_KINDS:
                raise Unsupported(
                    f"{self.name}: no shape is called {item.kind!r}; use one of {', '.join(SHAPE_KINDS)}"
                )
            if vertices.ndim != 2 or vertices.shape[1] != 2 or len(vertices) < 2 or not np.isfinite(vertices).all():  # noqa: PLR2004
                raise Unsupported(f"{self.name}: a {item.kind} needs two or more finite vertices (y, x)")
            items.append(replace(item, vertices=vertices))
        if not items:
            raise Unsupported(f"{self.name}: there is no shape in it")
        return replace(self, items=tuple(items))


@dataclass(frozen=True)
class Points:
    """Positions (n, 2) as y, x in pixels of the picture `on`, drawn `size` pixels wide."""

    positions: np.ndarray[Any, Any]
    name: str
    on: str = ""
    size: float = 10.0

    def checked(self) -> Points:
        """Return the same with float64 positions. Raises Unsupported, naming the fault."""
        positions = np.ascontiguousarray(self.positions, dtype=np.float64)
        if positions.ndim != 2 or positions.shape[1] != 2 or not len(positions) or not np.isfinite(positions).all():  # noqa: PLR2004
            raise Unsupported(f"{self.name}: points are a list of finite (y, x), at least one")
        if not (math.isfinite(self.size) and self.size > 0):
            raise Unsupported(f"{self.name}: the size {self.size} of a point is not above 0")
        return replace(self, positions=positions)


Showable = Picture | Shapes | Points


def as_showable(payload: Any, name: str) -> Showable:
    """Return what to show for a payload: an array becomes a picture, what is showable gets the name if it has none.

    Raises
    ------
    Unsupported
        It is nothing that can be shown.
    """
    if isinstance(payload, Picture | Shapes | Points):
        return payload if payload.name else replace(payload, name=name)
    if isinstance(payload, np.ndarray):
        return Picture(payload, name)
    raise Unsupported(
        f"{name}: a {type(payload).__name__} cannot be shown; a viewer takes arrays, pictures and shapes"
    )


def box(top: float, left: float, bottom: float, right: float) -> Sequence[tuple[float, float]]:
    """Return the four corners of a rectangle in pixels, in the order a rectangle or ellipse is given."""
    return [(top, left), (top, right), (bottom, right), (bottom, left)]


def _guess(array: np.ndarray[Any, Any], name: str) -> str:
    if array.ndim == 3 and array.shape[-1] in _SAMPLE_COUNTS and array.dtype == np.uint8:  # noqa: PLR2004
        return "YXS"
    if array.ndim not in _BY_NDIM:
        raise Unsupported(f"{name}: an array of {array.ndim} axes cannot be shown; a viewer takes 2 to 5")
    return _BY_NDIM[array.ndim]
