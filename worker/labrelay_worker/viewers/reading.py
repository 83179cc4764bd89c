"""Artifacts to pictures: the one place where the pixels of a file come from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from labrelay_worker.backends.errors import BackendError, Unsupported, translated
from labrelay_worker.backends.formats import decode
from labrelay_worker.reading.files import Unreadable, read_signals
from labrelay_worker.reading.signal import Signal
from labrelay_worker.viewers.pictures import Part, Picture, as_showable
from labrelay_worker.viewers.signals import picture_of

#: Suffixes of pictures and bare arrays, which need no reader of instrument files.
PICTURE_SUFFIXES = (".npy", ".tif", ".tiff", ".png")
_TIFF = (".tif", ".tiff")
_NUMBER = re.compile(r"\d+")


def read_pictures(path: Path, name: str) -> list[Picture]:
    """Return every picture of a file, with the pixel size and unit that it has.

    Parameters
    ----------
    path
        A .npy, .tif or .png, or a file of an instrument (dm3, emd, mrc and whatever else rosettasciio reads).
    name
        Of the pictures.

    Raises
    ------
    BackendError
        It cannot be read, or holds no picture; says why.
    """
    suffix = path.suffix.lower()
    is_plain = suffix in PICTURE_SUFFIXES and suffix not in _TIFF
    if is_plain or (suffix in _TIFF and find_spec("rsciio") is None):
        with translated(path):
            content = path.read_bytes()
        return [as_picture(decode(content, path.name), name)]
    with translated(path):
        try:
            signals = read_signals(path)
        except Unreadable as reason:
            raise Unsupported(f"{path.name}: {reason}") from None
        # Some readers keep the file open until the pixels are read.
        return _pictures_among(signals, name)


def _pictures_among(signals: Sequence[Signal], name: str) -> list[Picture]:
    images = [signal for signal in signals if signal.is_image] or signals[:1]
    return [picture_of(signal, name) for signal in images]


def as_picture(payload: Any, name: str) -> Picture:
    """Return the picture of a decoded payload. Raises Unsupported when it is none."""
    item = as_showable(payload, name)
    if not isinstance(item, Picture):
        raise Unsupported(f"{name}: a {type(payload).__name__} is no picture")
    return item


def series(paths: Sequence[Path]) -> list[tuple[Path, str, Part | None]]:
    """Name what each file is shown as; pictures of one folder that differ in a number alone are planes of one stack.

    Files of instruments stand alone: what is numbered there are acquisitions, of any size and magnification.

    Returns
    -------
    list of (path, name, part)
        In the order given; ``part`` is None for a file on its own, and the name then the file's.
    """
    groups: dict[tuple[Path, str], list[Path]] = {}
    for path in paths:
        groups.setdefault(_group(path), []).append(path)
    result: list[tuple[Path, str, Part | None]] = []
    for path in paths:
        members = groups[_group(path)]
        if len(members) == 1:
            result.append((path, path.name, None))
        else:
            result.append((path, _group(path)[1], Part("T", members.index(path), len(members))))
    return result


def planes_of(path: Path, name: str, part: Part | None, session: str) -> Iterator[Picture]:
    """Yield the pictures of a file as parts of its stack; what is no single plane is shown under the file's name.

    Raises
    ------
    BackendError
        The file holds nothing that can be shown.
    """
    pictures = read_pictures(path, name)
    if part is not None and len(pictures) == 1 and pictures[0].array.ndim == 2:  # noqa: PLR2004
        yield replace(pictures[0], name=f"{session} · {name}", part=part)
        return
    for number, picture in enumerate(pictures):
        suffix = "" if number == 0 else f" · {number + 1}"
        yield replace(picture, name=f"{session} · {path.name}{suffix}", part=None)


def _group(path: Path) -> tuple[Path, str]:
    # The last number counts planes; those before it are dates, wells and instruments.
    numbers = list(_NUMBER.finditer(path.name))
    if not numbers or path.suffix.lower() not in PICTURE_SUFFIXES:
        return path.parent, path.name
    return path.parent, f"{path.name[: numbers[-1].start()]}#{path.name[numbers[-1].end() :]}"


__all__ = ["PICTURE_SUFFIXES", "BackendError", "as_picture", "planes_of", "read_pictures", "series"]
