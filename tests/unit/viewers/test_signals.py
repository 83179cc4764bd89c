"""Which letters, scale and unit the axes of a signal get in a viewer."""

from __future__ import annotations

import math

import numpy as np
import pytest

from labrelay_worker.backends.base import Unsupported
from labrelay_worker.backends.napari_stream import NapariStreamBackend
from labrelay_worker.backends.streaming import _showable
from labrelay_worker.reading.signal import Axis, Channel, Signal, of_array
from labrelay_worker.viewers.pictures import Picture
from labrelay_worker.viewers.signals import picture_of

NM = {"scale": 0.25, "unit": "nm"}


def signal(*axes: Axis, dtype: str = "uint16", channels: tuple[Channel, ...] = ()) -> Signal:
    shape = tuple(range(3, 3 + len(axes)))
    return Signal(np.arange(math.prod(shape)).reshape(shape).astype(dtype), axes, channels=channels)


@pytest.mark.parametrize(
    ("axes", "letters", "scale"),
    [
        ([Axis("y", "space", **NM), Axis("x", "space", **NM)], "YX", (0.25, 0.25)),
        ([Axis("x", "space", **NM), Axis("y", "space", **NM)], "XY", (0.25, 0.25)),
        ([Axis("ky", "space", 0.1, 0, "1/nm"), Axis("kx", "space", 0.1, 0, "1/nm")], "YX", (0.1, 0.1)),
        ([Axis("height", "space", **NM), Axis("width", "space", **NM)], "YX", (0.25, 0.25)),
        (
            [Axis("t", "time", 2.0, 0, "s"), *(Axis(n, "space", **NM) for n in "zyx")],
            "TZYX",
            (1.0, 0.25, 0.25, 0.25),
        ),
        (
            [*(Axis(n, "space", **NM) for n in "yx"), Axis("Energy", "other", 10.0, 0, "eV")],
            "YXZ",
            (0.25, 0.25, 1.0),
        ),
        ([Axis("c", "channel", **NM), *(Axis(n, "space", **NM) for n in "yx")], "CYX", (1.0, 0.25, 0.25)),
        ([Axis("y", "space", -0.25, 0, "nm"), Axis("x", "space", math.inf, 0, "nm")], "YX", (0.25, 1.0)),
    ],
)  # fmt: skip
def test_axes_become_letters_and_steps_a_scale(axes, letters, scale) -> None:
    given = signal(*axes)
    picture = picture_of(given, "n")
    assert (picture.axes, picture.scale) == (letters, scale)
    assert picture.unit == axes[letters.index("X")].unit
    # And the viewer takes it so, with every number where it was
    shown = picture.canonical()
    assert np.array_equal(shown.array, given.data.transpose([letters.index(letter) for letter in shown.axes]))


def test_channels_keep_their_names_and_red_green_and_blue_their_colours() -> None:
    axes = [Axis("c", "channel"), Axis("y", "space", **NM), Axis("x", "space", **NM)]
    named = picture_of(signal(*axes, channels=(Channel("DAPI"), Channel("GFP"), Channel("RFP"))), "n")
    assert named.channels == ("DAPI", "GFP", "RFP")
    colours = picture_of(signal(*axes, dtype="uint8", channels=(Channel("R"), Channel("G"), Channel("B"))), "n")
    assert (colours.axes, colours.array.shape, colours.scale[:2]) == ("YXS", (4, 5, 3), (0.25, 0.25))
    assert colours.canonical().axes == "YXS"


@pytest.mark.parametrize("names", [["Energy"], ["x", "Energy"], ["x", "y", "kx", "ky"]])
def test_a_spectrum_or_a_map_of_patterns_is_refused_by_name(names) -> None:
    axes = [Axis(name, "other" if name == "Energy" else "space") for name in names]
    with pytest.raises(Unsupported, match=f"a signal of {', '.join(names)} is no picture"):
        picture_of(signal(*axes), "n")


def test_a_signal_can_be_saved_to_a_viewer() -> None:
    shown = _showable(signal(Axis("y", "space", **NM), Axis("x", "space", **NM)), "name")
    assert isinstance(shown, Picture)
    assert (shown.name, shown.unit) == ("name", "nm")
    with pytest.raises(Unsupported, match="no picture"):
        NapariStreamBackend(start="never").save(of_array(np.arange(5)), "spectrum")
