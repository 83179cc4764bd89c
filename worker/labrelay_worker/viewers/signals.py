"""Signals of instrument files as pictures: their axes become letters, their calibration a scale. Pure."""

from __future__ import annotations

import math

import numpy as np

from labrelay_worker.backends.errors import Unsupported
from labrelay_worker.reading.signal import Axis, Signal
from labrelay_worker.viewers.pictures import Picture

_SPACE = {"z": 0, "y": 1, "x": 2}
_COLOURS = ("R", "G", "B")


def picture_of(signal: Signal, name: str) -> Picture:
    """Return the picture of a signal, with pixel size and unit.

    Diffraction axes (kx, ky) are rows and columns, too; an index or energy beside them is shown as depth. Steps along
    axes of another unit than the columns' are shown as 1.

    Raises
    ------
    Unsupported
        Its axes are those of no picture: a spectrum, a map of diffraction patterns.
    """
    if not signal.is_image:
        axes = ", ".join(axis.name for axis in signal.axes)
        raise Unsupported(f"{name}: a signal of {axes} is no picture")
    letters = _letters(signal.axes)
    labels = tuple(channel.label for channel in signal.channels)
    unit = signal.axes[letters.index("X")].unit
    scale = tuple(
        abs(axis.scale) if axis.unit == unit and letter != "C" and _is_step(axis.scale) else 1.0
        for axis, letter in zip(signal.axes, letters, strict=True)
    )
    array = np.asarray(signal.data)
    if labels == _COLOURS and array.dtype == np.uint8:
        at = letters.index("C")
        rest = letters[:at] + letters[at + 1 :]
        return Picture(
            np.moveaxis(array, at, -1), name, axes=rest + "S", scale=(*scale[:at], *scale[at + 1 :], 1.0), unit=unit
        )
    return Picture(array, name, axes=letters, scale=scale, unit=unit, channels=labels)


def _letters(axes: tuple[Axis, ...]) -> str:
    """Return one letter of ``TZCYX`` for each axis of an image."""
    spaces = [index for index, axis in enumerate(axes) if axis.kind == "space"]
    ranks = [_SPACE.get(axes[index].name[-1:].lower()) for index in spaces]
    if None not in ranks and len(set(ranks)) == len(ranks):
        spaces.sort(key=lambda index: _SPACE[axes[index].name[-1:].lower()])
    found = dict(zip(spaces, "ZYX"[-len(spaces) :], strict=True))
    for index, axis in enumerate(axes):
        if axis.kind in ("time", "channel"):
            found[index] = "T" if axis.kind == "time" else "C"
    for index in range(len(axes)):
        if index not in found:
            found[index] = next(letter for letter in "ZTC" if letter not in found.values())
    return "".join(found[index] for index in range(len(axes)))


def _is_step(scale: float) -> bool:
    return bool(scale) and math.isfinite(scale)
