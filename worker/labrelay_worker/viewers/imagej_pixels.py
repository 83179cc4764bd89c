"""Numbers as ImageJ 1 has them: unsigned 8 and 16 bits, 32-bit float and packed RGB, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np

from labrelay_worker.viewers.imagej_java import Java
from labrelay_worker.viewers.pictures import SAMPLES, Picture

Plane = np.ndarray[Any, Any]


def displayable(item: Picture) -> tuple[list[Plane], str]:
    """Return the planes in a type that ImageJ has, and how that differs from what was sent."""
    array, note = item.array, ""
    if SAMPLES in item.axes:
        red, green, blue = (array[..., n].astype(np.int32) for n in range(3))
        array, note = (red << 16) | (green << 8) | blue, "as packed RGB"
    elif array.dtype == np.bool_:
        array, note = array.astype(np.uint8), "as 0 and 1"
    elif array.dtype not in (np.uint8, np.uint16, np.float32):
        array = array.astype(np.float32)
        note = "as 32-bit float" if np.array_equal(array, item.array) else "as 32-bit float, rounded"
    return list(array.reshape(-1, *array.shape[-2:])), note


def processor(java: Java, plane: Plane) -> Any:
    """Return an ImageProcessor of a displayable plane."""
    height, width = plane.shape[:2]
    flat = plane.reshape(-1)
    if plane.dtype == np.uint8:  # Java's integers are signed
        return java("ij.process.ByteProcessor")(width, height, java.array(flat.view(np.int8)))
    if plane.dtype == np.uint16:
        return java("ij.process.ShortProcessor")(width, height, java.array(flat.view(np.int16)), None)
    kind = "ij.process.ColorProcessor" if plane.dtype == np.int32 else "ij.process.FloatProcessor"
    return java(kind)(width, height, java.array(flat))


def held(pixels: Any, plane: Plane) -> Plane:
    """Return the pixels of a slice in the type and shape of a plane."""
    signed = np.asarray(memoryview(pixels)).reshape(-1)
    found: Plane = signed.view(plane.dtype).reshape(plane.shape)
    return found
