"""Look at an image with other eyes before it becomes visible: zarr's own reader and an NGFF validator."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import Any

from labrelay_worker.backends.base import Corrupt
from labrelay_worker.backends.ngff.images import own_attributes


def check_image(place: Any, root: bytes) -> None:
    """Raise Corrupt unless zarr opens every array of an image and yaozarrs finds no fault in its root document.

    Parameters
    ----------
    place
        A path or a zarr store, in which the root document need not be yet.
    root
        The root document.
    """
    import zarr  # noqa: PLC0415  loads when the first image is written

    try:
        for name in own_attributes(root)["arrays"]:
            array = zarr.open_array(place / str(name), mode="r")
            if not array.size:
                raise ValueError(f"array {name} is empty")
        document = json.loads(root)
        attributes = document["attributes"].get("ome", {}) if "node_type" in document else document
        if "multiscales" in attributes:
            _validate(attributes)
    # Whatever a reader stumbles over would meet every later reader, too.
    except Exception as error:
        msg = f"the image as written cannot be read back, nothing was stored: {type(error).__name__}: {error}"
        raise Corrupt(msg) from error


def _validate(attributes: Mapping[str, Any]) -> None:
    try:
        import yaozarrs  # noqa: PLC0415
    except ImportError:
        return
    with warnings.catch_warnings():  # recommendations, such as units for every axis, that a file may not know
        warnings.simplefilter("ignore")
        yaozarrs.validate_ome_object({key: value for key, value in attributes.items() if key != "labrelay"})
