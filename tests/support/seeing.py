"""Pictures whose place and grey on a screen are known, and the look at the screen."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from screen import Screen, areas

from labrelay_worker.backends.fiji_stream import FijiStreamBackend
from labrelay_worker.backends.napari_stream import NapariStreamBackend
from labrelay_worker.backends.streaming import ViewerBackend

BACKENDS: dict[str, type[ViewerBackend]] = {"napari": NapariStreamBackend, "imagej": FijiStreamBackend}
#: Grey levels of the four quarters, as they must be seen with the contrast below.
LEVELS = (40, 100, 160, 220)
CONTRAST = ((0.0, 65280.0),)  # 255 steps of 256, so the grey seen is number / 256
PATIENCE = 120.0


def backend(kind: str, **options: Any) -> ViewerBackend:
    """Return a backend that is patient with a busy machine and starts no viewer."""
    return BACKENDS[kind](**{"start": "never", "patience": PATIENCE, "stall": 60} | options)


def quarters(turn: int = 0, size: int = 2048) -> np.ndarray:
    """Return a plane of four quarters: top left, top right, bottom left, bottom right."""
    half = size // 2
    levels = np.roll(LEVELS, turn).astype("uint16") * 256
    return np.repeat(np.repeat(levels.reshape(2, 2), half, axis=0), half, axis=1)


def assert_seen(pixels: np.ndarray | Path, turn: int, tolerance: int = 2) -> None:
    """Assert that these pixels, or those of a file, hold the four quarters, in place, each of its grey."""
    if isinstance(pixels, Path):
        pixels = np.asarray(Image.open(pixels).convert("RGB"))
    levels = np.roll(LEVELS, turn)
    found = areas(pixels, [(int(n),) * 3 for n in levels], tolerance)
    (t1, l1, b1, r1, _), (t2, l2, _, r2, _), (t3, l3, b3, _, _), (t4, l4, b4, r4, _) = found
    assert min(share for *_, share in found) > 0.97
    assert b1 - t1 > 100
    assert max(abs(t1 - t2), abs(l1 - l3), abs(b1 - t3), abs(r1 - l2), abs(b3 - b4), abs(r2 - r4), abs(l2 - l4)) <= 3
    assert abs((b1 - t1) - (b3 - t4)) <= 3


def see(screen: Screen, turn: int) -> None:
    """Await the picture on the screen: the X server may lag behind the program by a moment."""

    def is_seen() -> bool:
        try:
            assert_seen(screen.pixels(), turn)
        except AssertionError:
            return False
        return True

    deadline = time.monotonic() + 15
    while not is_seen() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert_seen(screen.pixels(), turn)
