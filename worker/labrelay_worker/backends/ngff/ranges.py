"""The range of values of each channel, noted while an image is written: what a viewer shows black and white."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labrelay_worker.backends.ngff.layout import Shape
from labrelay_worker.reading.signal import Axis


@dataclass(frozen=True)
class Window:
    """Least and greatest value of a channel, as far as its smallest level shows them."""

    low: float
    high: float

    def joined(self, other: Window) -> Window:
        """Return the range of both."""
        return Window(min(self.low, other.low), max(self.high, other.high))


class Ranges:
    """Ranges by channel number; an image without a channel axis is one channel.

    Parameters
    ----------
    axes
        Of the image, in the order of storage.
    """

    def __init__(self, axes: Sequence[Axis]) -> None:
        self._axis = next((index for index, axis in enumerate(axes) if axis.kind == "channel"), None)
        self._windows: dict[int, Window] = {}

    @property
    def windows(self) -> Mapping[int, Window]:
        """What was seen, by channel number; channels of which nothing finite was seen are not in it."""
        return self._windows

    def look(self, block: Any, coordinates: Sequence[int], shard: Shape) -> None:
        """Note the values of a block, of whatever level, that lies at these coordinates in steps of a shard."""
        if not block.size or block.dtype.kind == "c":
            return
        if self._axis is None:
            self._note(0, block)
            return
        first = coordinates[self._axis] * shard[self._axis]
        for index in range(block.shape[self._axis]):
            self._note(first + index, block.take(index, axis=self._axis))

    def _note(self, channel: int, values: Any) -> None:
        import numpy as np  # noqa: PLC0415

        finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
        if finite.size:
            seen = Window(float(finite.min()), float(finite.max()))
            before = self._windows.get(channel)
            self._windows[channel] = seen if before is None else before.joined(seen)
