"""Payloads to bytes and back, by the suffix of the address. Bytes and text are written as they are."""

from __future__ import annotations

import csv
import importlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

from labrelay_worker.backends.base import Corrupt, Unsupported

Bytes = bytes | bytearray | memoryview


@dataclass(frozen=True)
class Format:
    """How one kind of file is written from an object and read back.

    `encode` raises TypeError or ValueError, with a text that says what it takes, for anything else.
    """

    encode: Callable[[Any], Bytes]
    decode: Callable[[bytes], Any]


def encode(payload: Any, name: str) -> Bytes:
    """Return the bytes of a payload in the format of this file name.

    Raises
    ------
    Unsupported
        The suffix has no format, its format cannot hold the payload, or its package is not installed.
    """
    if isinstance(payload, str):
        return payload.encode("utf-8", "surrogatepass")
    if isinstance(payload, bytes | bytearray | memoryview):
        return payload
    suffix = PurePosixPath(name).suffix.lower()
    kind = type(payload).__name__
    if suffix not in FORMATS:
        msg = f"{name}: a {kind} cannot be saved as {suffix or 'a file without suffix'}. Use {', '.join(FORMATS)}"
        raise Unsupported(msg)
    try:
        return FORMATS[suffix].encode(payload)
    except Unsupported:
        raise
    # What the writers of the formats raise for a payload they cannot hold is their own business.
    except Exception as error:
        msg = f"{name}: a {kind} cannot be saved as {suffix}: {error}"
        raise Unsupported(msg) from error


def decode(content: bytes, name: str) -> Any:
    """Return the object that the content is in the format of this file name; bytes for an unknown suffix.

    Raises
    ------
    Corrupt
        The content is not of that format.
    Unsupported
        The package for the format is not installed.
    """
    form = FORMATS.get(PurePosixPath(name).suffix.lower())
    if form is None:
        return content
    try:
        return form.decode(content)
    except (Unsupported, MemoryError):
        raise
    # Readers raise anything at all on a torn file: zlib, struct, key and index errors among them.
    except Exception as error:
        msg = f"{name}: cannot be read as {PurePosixPath(name).suffix}: {error}"
        raise Corrupt(msg) from error


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        msg = f'this needs the package {name!r}: pip install "labrelay[worker]"'
        raise Unsupported(msg) from error


def _text(payload: Any) -> bytes:
    msg = "a text file takes str or bytes"
    raise TypeError(msg)


def _json(payload: Any) -> bytes:
    # NaN is refused: Python writes it, and no other reader takes it.
    return json.dumps(payload, indent=2, ensure_ascii=False, allow_nan=False).encode()


def _csv(payload: Any) -> bytes:
    rows = list(payload) if isinstance(payload, list | tuple) else None
    if rows is None or not (
        all(isinstance(row, Mapping) for row in rows) or all(isinstance(row, list | tuple) for row in rows)
    ):
        msg = "a table is a list of rows or a list of dicts"
        raise TypeError(msg)
    if rows and isinstance(rows[0], Mapping):
        columns = list(dict.fromkeys(column for row in rows for column in row))
        rows = [columns, *([row.get(column) for column in columns] for row in rows)]
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _rows(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode(), newline=""), strict=True))


def _array(payload: Any) -> Any:
    if not isinstance(payload, _package("numpy").ndarray):
        msg = "it takes a numpy array"
        raise TypeError(msg)
    return payload


def _npy(payload: Any) -> Bytes:
    file = io.BytesIO()
    # Pickle would run code from a data file when it is loaded.
    _package("numpy").save(file, _array(payload), allow_pickle=False)
    return file.getbuffer()


def _from_npy(content: bytes) -> Any:
    return _package("numpy").lib.format.read_array(io.BytesIO(content), allow_pickle=False)


def _image(payload: Any) -> Any:
    array = _array(payload)
    # tifffile writes long doubles without a word, and nobody can read them back.
    if array.ndim < 2 or not array.size or array.dtype.char not in "?bBhHiIlLqQefdFD":  # noqa: PLR2004
        msg = f"it takes numbers with two or more axes, not {array.dtype} with shape {array.shape}"
        raise ValueError(msg)
    return array


def _tiff(payload: Any) -> Bytes:
    array = _image(payload)
    is_rgb = array.ndim >= 3 and array.shape[-1] in (3, 4) and array.dtype.name in ("uint8", "uint16")  # noqa: PLR2004
    file = io.BytesIO()
    # Said outright, or a stack of three grey planes would be taken for one colour image.
    _package("tifffile").imwrite(file, array, photometric="rgb" if is_rgb else "minisblack")
    return file.getbuffer()


def _from_tiff(content: bytes) -> Any:
    return _package("tifffile").imread(io.BytesIO(content))


def _png(payload: Any) -> Bytes:
    file = io.BytesIO()
    image = _package("PIL.Image")
    picture = payload if isinstance(payload, image.Image) else image.fromarray(_image(payload))
    picture.save(file, format="PNG")
    return file.getbuffer()


def _from_png(content: bytes) -> Any:
    with _package("PIL.Image").open(io.BytesIO(content), formats=["PNG"]) as picture:
        # The numbers of a palette image mean nothing without the palette.
        return _package("numpy").array(picture.convert() if picture.mode == "P" else picture)


def _zip(payload: Any) -> Bytes:
    if not isinstance(payload, Mapping) or not all(isinstance(part, Bytes) for part in payload.values()):
        msg = "an archive takes a dict of names to bytes"
        raise TypeError(msg)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, part in payload.items():
            # ZipInfo's fixed date makes equal content equal bytes, so a repeated delivery is seen as the same.
            archive.writestr(zipfile.ZipInfo(name), bytes(part), zipfile.ZIP_DEFLATED)
    return file.getbuffer()


def _from_zip(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}


_TIFF = Format(_tiff, _from_tiff)

#: Formats by lower-case suffix.
FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        ".txt": Format(_text, bytes.decode),
        ".json": Format(_json, json.loads),
        ".csv": Format(_csv, _rows),
        ".npy": Format(_npy, _from_npy),
        ".tif": _TIFF,
        ".tiff": _TIFF,
        ".png": Format(_png, _from_png),
        ".zip": Format(_zip, _from_zip),
    }
)
