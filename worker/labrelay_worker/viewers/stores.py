"""OME-Zarr images as layers of napari: levels, pixel size, units and channels, which its own reader leaves out.

NGFF 0.4 and 0.5, "multiscales" and "omero" metadata. Pixels are read when they are looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SUFFIX = ".zarr"
_PIXEL = "pixel"


def layers_of(path: Path) -> list[dict[str, Any]]:
    """Return what `add_image` takes for each channel of an OME-Zarr image.

    Parameters
    ----------
    path
        Of the image; one of a plate is below it (``PLATE.ome.zarr/B/3/0``).

    Returns
    -------
    list
        Empty when it is no OME-Zarr image, or the package zarr is not installed.
    """
    if not any(part.lower().endswith(SUFFIX) for part in path.parts) or not path.is_dir():
        return []
    try:
        import dask.array  # noqa: PLC0415  napari brings it
        import zarr  # noqa: PLC0415
    except ImportError:
        return []
    try:
        group = zarr.open_group(path, mode="r")
    except (FileNotFoundError, ValueError):  # a single array: napari opens it
        return []
    attributes: Mapping[str, Any] = dict(group.attrs)
    ome = attributes.get("ome", attributes)
    if not ome.get("multiscales"):
        return []
    multiscale = ome["multiscales"][0]
    lazily: Any = dask.array.from_zarr
    levels = [lazily(group[dataset["path"]]) for dataset in multiscale["datasets"]]
    return _layers(levels, multiscale, ome.get("omero", {}).get("channels", []), path.name)


def _layers(
    levels: Sequence[Any], multiscale: Mapping[str, Any], channels: Sequence[Mapping[str, Any]], title: str
) -> list[dict[str, Any]]:
    axes = multiscale["axes"]
    at = next((index for index, axis in enumerate(axes) if axis.get("type") == "channel"), None)
    kept = [index for index in range(len(axes)) if index != at]
    scale, shift = [1.0] * len(axes), [0.0] * len(axes)
    # A dataset's own steps come first, then those of all of them (NGFF 0.5, multiscales).
    for step in (
        *multiscale["datasets"][0]["coordinateTransformations"],
        *multiscale.get("coordinateTransformations", ()),
    ):
        if step["type"] == "scale":
            scale = [a * b for a, b in zip(scale, step["scale"], strict=True)]
            shift = [a * b for a, b in zip(shift, step["scale"], strict=True)]
        elif step["type"] == "translation":
            shift = [a + b for a, b in zip(shift, step["translation"], strict=True)]
    count = 1 if at is None else levels[0].shape[at]
    name = multiscale.get("name") or title
    result = []
    for number in range(count):
        channel = channels[number] if number < len(channels) else {}
        data = [level if at is None else level[(slice(None),) * at + (number,)] for level in levels]
        layer: dict[str, Any] = {
            "data": data if len(data) > 1 else data[0],
            "multiscale": len(data) > 1,
            "name": name if count == 1 else f"{name} · {channel.get('label') or number + 1}",
            "scale": [scale[index] for index in kept],
            "translate": [shift[index] for index in kept],
            "units": [axes[index].get("unit") or _PIXEL for index in kept],
            "blending": "additive" if count > 1 else "translucent",
        }
        window = channel.get("window", {})
        if window.get("start", 0) < window.get("end", 0):
            layer["contrast_limits"] = window["start"], window["end"]
        if count > 1 and channel.get("color"):
            layer["colormap"] = f"#{channel['color']}"
        result.append(layer)
    return result
