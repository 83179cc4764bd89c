"""Signals, instrument files and the two validators, for tests of reading and of the zarr backend."""

from __future__ import annotations

import struct
import tarfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labrelay_worker.reading.signal import Axis, Signal, Well

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "sessions.tar.xz"


def counts(shape: tuple[int, ...], dtype: str = "uint16", seed: int = 0) -> np.ndarray[Any, Any]:
    """Return what a camera counts: numbers that differ everywhere, so that no two pixels can be mistaken."""
    return np.random.default_rng(seed).poisson(300, shape).astype(dtype)


def image(data: Any, scale: float = 0.25, unit: str = "nm", well: Well | None = None, **given: Any) -> Signal:
    """Return an array as a calibrated image, its last axes being (z,) y and x."""
    names = "zyx"[-data.ndim :]
    return Signal(data, tuple(Axis(name, "space", scale, 0.0, unit) for name in names), well=well, **given)


def write_mrc(path: Path, data: np.ndarray[Any, Any], nanometres: float) -> None:
    """Write an MRC 2014 file of uint16 sections."""
    z, y, x = data.shape
    header = bytearray(1024)
    struct.pack_into("<4i", header, 0, x, y, z, 6)  # mode 6: uint16
    struct.pack_into("<3i", header, 28, x, y, z)
    struct.pack_into("<3f", header, 40, *(size * nanometres * 10 for size in (x, y, z)))  # cell in angstrom
    struct.pack_into("<3f", header, 52, 90.0, 90.0, 90.0)
    struct.pack_into("<3i", header, 64, 1, 2, 3)
    header[208:212] = b"MAP "
    header[212:216] = b"\x44\x44\x00\x00"
    path.write_bytes(bytes(header) + data.astype("<u2").tobytes())


def validate(folder: Any) -> None:
    """Let yaozarrs and ome-zarr-models look for faults."""
    import zarr

    with warnings.catch_warnings():
        # About themselves (pydantic's deprecations) and recommendations; a fault is an exception.
        warnings.simplefilter("ignore")
        import ome_zarr_models
        import yaozarrs

        yaozarrs.validate_zarr_store(folder)
        group = zarr.open_group(folder, mode="r")
        if "ome" in group.attrs:
            ome_zarr_models.open_ome_zarr(group, version="0.5")
        elif "multiscales" in group.attrs:
            # Its 0.4 group models do not load under the newest pydantic; the attributes' models do.
            from ome_zarr_models.v04.image import ImageAttrs

            ImageAttrs.model_validate(dict(group.attrs))


def shared_sessions(folder: Path) -> Path:
    """Unpack real sessions where this machine has them; skip the test otherwise."""
    if not SHARED.is_file():
        pytest.skip("real sessions are not on this machine")
    with tarfile.open(SHARED) as archive:
        archive.extractall(folder, filter="data")
    return folder
