"""What a viewer makes of OME-Zarr images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from signals import counts, image

from labrelay_worker.backends.zarr import ZarrBackend
from labrelay_worker.reading.signal import Axis, Channel, Signal
from labrelay_worker.viewers.stores import layers_of


@pytest.mark.parametrize("ngff", ["0.5", "0.4"])
def test_an_image_is_a_layer_of_its_levels_with_pixel_size_and_unit(tmp_path: Path, ngff) -> None:
    data = counts((3, 1100, 1000))
    axes = (Axis("z", "space", 2.0, 0, "nm"), *(Axis(n, "space", 0.25, 7.0, "nm") for n in "yx"))
    ZarrBackend(tmp_path, ngff=ngff).save(Signal(data, axes, "tilt"), "a.ome.zarr")
    (layer,) = layers_of(tmp_path / "a.ome.zarr")
    assert [level.shape for level in layer["data"]] == [(3, 1100, 1000), (3, 550, 500), (3, 275, 250)]
    assert np.array_equal(layer["data"][0].compute(), data)
    assert (layer["name"], layer["scale"], layer["translate"]) == ("tilt", [2.0, 0.25, 0.25], [0.0, 7.0, 7.0])
    assert layer["units"] == ["nanometer"] * 3
    assert layer["contrast_limits"][0] < layer["contrast_limits"][1]


def test_each_channel_is_a_layer_of_its_name_and_colour(tmp_path: Path) -> None:
    axes = (Axis("c", "channel"), *(Axis(n, "space", 0.65, 0.0, "um") for n in "yx"))
    channels = (Channel("nuclei", "0000FF"), Channel("actin", "00FF00"))
    data = counts((2, 40, 50))
    ZarrBackend(tmp_path).save(Signal(data, axes, "cells", channels), "p.ome.zarr/B/3/0")
    layers = layers_of(tmp_path / "p.ome.zarr/B/3/0")
    assert [(layer["name"], layer["colormap"]) for layer in layers] == [
        ("cells · nuclei", "#0000FF"), ("cells · actin", "#00FF00"),
    ]  # fmt: skip
    assert [np.array_equal(layer["data"].compute(), plane) for layer, plane in zip(layers, data, strict=True)]
    assert {(*layer["scale"], *layer["units"]) for layer in layers} == {(0.65, 0.65, "micrometer", "micrometer")}


def test_steps_of_the_whole_image_follow_those_of_its_levels(tmp_path: Path) -> None:
    ZarrBackend(tmp_path).save(image(counts((40, 50)), 0.5), "a.ome.zarr")
    group = zarr.open_group(tmp_path / "a.ome.zarr", mode="r+")
    ome = dict(group.attrs["ome"])  # type: ignore[arg-type]
    ome["multiscales"][0]["coordinateTransformations"] = [
        {"type": "translation", "translation": [1.0, 2.0]},
        {"type": "scale", "scale": [3.0, 3.0]},
    ]
    group.attrs["ome"] = ome
    (layer,) = layers_of(tmp_path / "a.ome.zarr")
    assert (layer["scale"], layer["translate"]) == ([1.5, 1.5], [3.0, 6.0])


def test_what_is_no_ome_zarr_image_is_left_to_others(tmp_path: Path) -> None:
    ZarrBackend(tmp_path).save(counts((2, 2, 2, 2, 2, 2)), "map.zarr")
    ZarrBackend(tmp_path).save(image(counts((8, 8))), "p.ome.zarr/B/3/0")
    zarr.create_array(tmp_path / "bare.zarr", shape=(4, 4), dtype="u1")
    (tmp_path / "file.zarr").write_bytes(b"")
    for name in ("map.zarr", "p.ome.zarr", "bare.zarr", "file.zarr", "missing.zarr", "."):
        assert layers_of(tmp_path / name) == []
