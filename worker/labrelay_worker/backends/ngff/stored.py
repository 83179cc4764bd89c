"""A stored image, opened: its axes, its levels through zarr, and single planes at the price of one plane."""

from __future__ import annotations

import json
from typing import Any

from labrelay_worker.backends.base import Unsupported
from labrelay_worker.backends.ngff.images import Images, own_attributes
from labrelay_worker.backends.ngff.sharded import ShardedArray, sharding_of
from labrelay_worker.reading.signal import Axis, Signal


class StoredImage:
    """An image of a zarr backend.

    Parameters
    ----------
    images
        Where it is.
    address
        Its address there.
    root
        Its root document.
    """

    def __init__(self, images: Images, address: str, root: bytes) -> None:
        self._images, self._address = images, address
        self._own = own_attributes(root)
        self._root = root
        self._first = self._first_array()
        self._sharded = self._understand()

    @property
    def data(self) -> Any:
        """The full resolution as a zarr array; slicing reads the chunks that are touched."""
        import zarr  # noqa: PLC0415

        found = zarr.open(self._images.place(self._address), mode="r")
        return found if isinstance(found, zarr.Array) else found[self._first]

    @property
    def signal(self) -> Signal:
        """The image with its axes; the data stay in the store until they are sliced."""
        data = self.data
        if not self._own:
            return Signal(data, tuple(Axis(f"axis{number}", "other") for number in range(data.ndim)))
        axes = tuple(Axis(**axis) for axis in self._own["axes"])
        return Signal(data, axes, self._own["name"], (), self._own["metadata"], self._own["identity"])

    def plane(self, *index: int) -> Any:
        """Return one plane, a new numpy array of (y, x).

        Parameters
        ----------
        index
            Position on every axis before the last two; negative ones count from the end.

        Raises
        ------
        IndexError
            There is no such plane.
        Corrupt
            It cannot be decoded.
        """
        import numpy as np  # noqa: PLC0415

        if self._sharded is None:
            return np.asarray(self.data[index])
        shape = self._sharded.shape
        if len(index) != len(shape) - 2 or any(
            not -size <= at < size for at, size in zip(index, shape, strict=False)
        ):
            msg = f"{self._address}: there is no plane {index} in an image of shape {shape}"
            raise IndexError(msg)
        out = self._sharded.empty(shape[-2:])
        self._sharded.fill(out, [at % size for at, size in zip(index, shape, strict=False)])
        return out

    def whole(self) -> Any:
        """Return the full resolution as a new numpy array."""
        import numpy as np  # noqa: PLC0415

        if self._sharded is None:
            return np.asarray(self.data[...])
        out = self._sharded.empty(self._sharded.shape)
        for index in np.ndindex(*out.shape[:-2]):
            self._sharded.fill(out[index], index)
        return out

    def _first_array(self) -> str:
        if self._own:
            return str(self._own["arrays"][0])
        try:
            document = json.loads(self._root)
            if document.get("node_type") == "array":
                return ""
            attributes = document["attributes"]["ome"] if "node_type" in document else document
            return str(attributes["multiscales"][0]["datasets"][0]["path"])
        except (ValueError, KeyError, IndexError, TypeError) as error:
            msg = f"{self._address}: this is no OME-Zarr image ({error!r})"
            raise Unsupported(msg) from error

    def _understand(self) -> ShardedArray | None:
        """Return what reads planes without zarr; None: let zarr read them."""
        if not self._own:
            return None
        try:
            document = self._images.read(self._address, f"{self._first}/zarr.json")[0]
        except FileNotFoundError:
            return None
        sharding = sharding_of(document)
        return None if sharding is None else ShardedArray(self._images, self._address, self._first, sharding)
