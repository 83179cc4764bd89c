"""Writes micrographs as the file kinds that instruments leave behind: MRC, TIFF and PNG previews."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from labrelay_worker.demo.micrographs import Micrograph

_PREVIEW_SIZE = 256
_MRC_UINT16 = 6
_MRC_LITTLE_ENDIAN = [0x44, 0x44, 0, 0]
_WRITER = "labrelay demo"

#: ImageJ's own spelling of µm in a TIFF description, which is ASCII.
_IMAGEJ_MICROMETRE = r"\u00B5m"

#: The 1024-byte main header of MRC2014, every field little-endian.
_MRC_HEADER = np.dtype(
    [
        ("size", "<i4", 3),
        ("mode", "<i4"),
        ("start", "<i4", 3),
        ("sampling", "<i4", 3),
        ("cell_angstrom", "<f4", 3),
        ("cell_angles", "<f4", 3),
        ("axes", "<i4", 3),
        ("minimum_maximum_mean", "<f4", 3),
        ("space_group", "<i4"),
        ("extended_bytes", "<i4"),
        ("extra_1", "V8"),
        ("extended_type", "S4"),
        ("version", "<i4"),
        ("extra_2", "V84"),
        ("origin", "<f4", 3),
        ("map", "S4"),
        ("machine_stamp", "u1", 4),
        ("rms", "<f4"),
        ("label_count", "<i4"),
        ("labels", "S80", 10),
    ]
)


def write_mrc(path: Path, image: Micrograph, *, pixel_nm: float) -> None:
    """Write an MRC2014 image of mode 6 (uint16) with its pixel size in the header."""
    height, width = image.shape
    header = np.zeros((), dtype=_MRC_HEADER)
    header["size"] = header["sampling"] = (width, height, 1)
    header["mode"] = _MRC_UINT16
    header["cell_angstrom"] = (width * pixel_nm * 10, height * pixel_nm * 10, pixel_nm * 10)
    header["cell_angles"] = 90
    header["axes"] = (1, 2, 3)
    header["minimum_maximum_mean"] = (image.min(), image.max(), image.mean())
    header["version"] = 20140
    header["map"] = b"MAP "
    header["machine_stamp"] = _MRC_LITTLE_ENDIAN
    header["rms"] = image.std()
    header["label_count"] = 1
    header["labels"][0] = _WRITER.encode()
    path.write_bytes(header.tobytes() + image.astype("<u2").tobytes())


def write_tiff(path: Path, signals: dict[str, Micrograph], *, pixel_nm: float) -> None:
    """Write one signal as an ImageJ TIFF, several as an OME-TIFF with a named channel each."""
    pixels_per_cm = 1e7 / pixel_nm
    images = list(signals.values())
    options: dict[str, Any] = {
        "resolution": (pixels_per_cm, pixels_per_cm),
        "resolutionunit": "CENTIMETER",
        "software": _WRITER,  # else the library's version makes the bytes of every release differ
        "byteorder": "<",
    }
    if len(images) == 1:
        # ImageJ reads the resolution in the unit it names, so it is given in pixels per micrometre.
        options |= {"resolution": (1e3 / pixel_nm, 1e3 / pixel_nm), "resolutionunit": "NONE"}
        tifffile.imwrite(
            path, images[0], imagej=True, metadata={"unit": _IMAGEJ_MICROMETRE, "Info": path.name}, **options
        )
        return
    metadata = {
        "axes": "CYX",
        "Channel": {"Name": list(signals)},
        "PhysicalSizeX": pixel_nm,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": pixel_nm,
        "PhysicalSizeYUnit": "nm",
        "Creator": _WRITER,
        "UUID": str(uuid.uuid5(uuid.NAMESPACE_URL, path.name)),  # the writer's own would be a new one each time
    }
    tifffile.imwrite(path, np.stack(images), ome=True, photometric="minisblack", metadata=metadata, **options)


def write_preview(path: Path, image: Micrograph) -> None:
    """Write a small grey PNG, stretched between the darkest and brightest half per cent."""
    low, high = np.percentile(image, (0.5, 99.5))
    grey = np.clip((image - low) / max(high - low, 1) * 255, 0, 255).astype(np.uint8)
    Image.fromarray(grey).resize((_PREVIEW_SIZE, _PREVIEW_SIZE), Image.Resampling.BOX).save(path, optimize=False)
