"""A display of its own (Xvfb) whose pixels are read from the X server, not from the program that drew them."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

_WIDTH, _HEIGHT = 1280, 1024


class Screen:
    """What a virtual display shows."""

    def __init__(self, display: str, buffer: Path) -> None:
        self.display, self._buffer = display, buffer

    def pixels(self) -> np.ndarray[Any, Any]:
        """Return the screen as (rows, columns, RGB): the X server's frame buffer, an XWD file (X11/XWDFile.h)."""
        content = self._buffer.read_bytes()
        header = struct.unpack(">25I", content[:100])
        size, width, height, bits, line, colors = (header[n] for n in (0, 4, 5, 11, 12, 19))
        assert bits == 32
        rows = np.frombuffer(content, np.uint8, line * height, size + colors * 12).reshape(height, line // 4, 4)
        return rows[:, :width, 2::-1]

    def save(self, path: Path, colors: int = 64) -> None:
        """Write what is on the screen, without the empty part of it, as a small PNG."""
        pixels = self.pixels()
        rows, columns = np.flatnonzero(pixels.any(axis=(1, 2))), np.flatnonzero(pixels.any(axis=(0, 2)))
        seen = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        Image.fromarray(seen).quantize(colors).save(path, optimize=True)


@contextmanager
def open_screen(folder: Path) -> Iterator[Screen]:
    """Start an X server that listens to nobody but this machine's user; it ends with the block."""
    read, write = os.pipe()
    server = subprocess.Popen(
        [
            shutil.which("Xvfb") or "Xvfb", "-displayfd", str(write), "-screen", "0", f"{_WIDTH}x{_HEIGHT}x24",
            "-nolisten", "tcp", "-fbdir", str(folder),
        ],
        pass_fds=[write], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(write)
    try:
        with os.fdopen(read) as answer:
            number = answer.readline().strip()
        assert number, "Xvfb did not start"
        yield Screen(f":{number}", folder / "Xvfb_screen0")
    finally:
        server.terminate()
        server.wait(10)


def areas(screen: np.ndarray[Any, Any], colors: list[tuple[int, int, int]], tolerance: int = 2) -> list[Any]:
    """Return (top, left, bottom, right, share) of each colour: where its pixels are, and how much of that they fill.

    Strays (text, buttons) are left out by cutting rows and columns that hold few of the pixels.
    """
    found = []
    for color in colors:
        match = (np.abs(screen.astype(int) - color) <= tolerance).all(axis=-1)
        rows, columns = match.sum(axis=1), match.sum(axis=0)
        assert rows.max() > 20, f"{color} is not on the screen"
        rows, columns = np.flatnonzero(rows > rows.max() * 0.5), np.flatnonzero(columns > columns.max() * 0.5)
        top, left, bottom, right = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
        found.append((top, left, bottom, right, match[top:bottom, left:right].mean()))
    return found
