"""Formats by suffix."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image

from labrelay_worker.backends.base import Corrupt, Unsupported
from labrelay_worker.backends.disk import DiskBackend
from labrelay_worker.backends.formats import FORMATS, decode, encode


@pytest.mark.parametrize("suffix", [*FORMATS, ".unknown", ""])
def test_bytes_and_text_are_written_as_they_are_whatever_the_suffix(suffix: str) -> None:
    assert encode(b"\x00\r\n", f"x{suffix}") == b"\x00\r\n"
    assert encode("ü\r\n", f"x{suffix}") == "ü\r\n".encode()


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "uint32", "float32", "float64", "complex64"])
@pytest.mark.parametrize("name", ["x.npy", "x.tif", "x.TIFF"])
@pytest.mark.parametrize("shape", [(5, 7), (3, 5, 7), (4, 5, 7), (2, 3, 5, 7), (1, 1), (5, 7, 3)], ids=str)
def test_arrays_keep_shape_type_and_values(name: str, dtype: str, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    back = decode(bytes(encode(array, name)), name)
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert np.array_equal(back, array)


def test_a_stack_of_three_grey_planes_does_not_become_a_colour_image() -> None:
    import io

    import tifffile

    with tifffile.TiffFile(io.BytesIO(encode(np.zeros((3, 5, 7), "uint8"), "x.tif"))) as file:
        assert file.pages[0].photometric.name == "MINISBLACK"
        assert len(file.pages) == 3


@pytest.mark.parametrize(
    ("shape", "dtype"), [((5, 7), "uint8"), ((5, 7), "uint16"), ((5, 7, 3), "uint8"), ((5, 7, 4), "uint8")], ids=str
)
def test_pictures_come_back_as_arrays(shape: tuple[int, ...], dtype: str) -> None:
    array = (np.arange(np.prod(shape)) * 100).reshape(shape).astype(dtype)
    back = decode(bytes(encode(array, "x.png")), "x.png")
    assert (back.dtype, back.tolist()) == (array.dtype, array.tolist())
    back[:] = 0  # it is the caller's own


def test_palette_pictures_come_back_as_colours() -> None:
    picture = Image.new("RGB", (2, 1), (255, 0, 10)).convert("P", palette=Image.Palette.ADAPTIVE)
    assert decode(bytes(encode(picture, "x.png")), "x.png").tolist() == [[[255, 0, 10]] * 2]


def test_json_is_for_people_too() -> None:
    text = bytes(encode({"Größe": 1}, "x.JSON")).decode()
    assert text == '{\n  "Größe": 1\n}'
    assert decode(text.encode(), "x.json") == {"Größe": 1}
    assert decode(bytes(encode(None, "x.json")), "x.json") is None


def test_tables_keep_their_first_row_and_come_back_as_text() -> None:
    rows = [["a", 'with "quotes", comma\nand line'], [1, None]]
    assert decode(bytes(encode(rows, "x.csv")), "x.csv") == [["a", 'with "quotes", comma\nand line'], ["1", ""]]
    dicts = [{"a": 1, "b": 2}, {"b": 3, "ü": 4}]
    assert decode(bytes(encode(dicts, "x.csv")), "x.csv") == [["a", "b", "ü"], ["1", "2", ""], ["", "3", "4"]]
    assert decode(bytes(encode([], "x.csv")), "x.csv") == []


def test_equal_archives_are_equal_bytes() -> None:
    parts = {"a.roi": b"1", "ü/b.roi": bytearray(b"2")}
    assert bytes(encode(parts, "x.roi.zip")) == bytes(encode(dict(parts), "y.zip"))
    assert decode(bytes(encode(parts, "x.roi.zip")), "x.roi.zip") == {"a.roi": b"1", "ü/b.roi": b"2"}


@pytest.mark.parametrize(
    ("payload", "name"),
    [
        ({"a": 1}, "x.txt"), ({"a": 1}, "x.npy"), ([1], "x.tif"), ([1], "x.csv"), (["ab"], "x.csv"),
        ([{"a": 1}, [1]], "x.csv"), ({"a": "text"}, "x.zip"), ({"a"}, "x.json"), (float("nan"), "x.json"),
        (np.zeros(3), "x.bin"), (np.zeros(3), "x"), (np.array([{}]), "x.npy"), (np.zeros((2, 2), "float64"), "x.png"),
        (object(), "x.json"), (np.array([["a"]]), "x.tif"), (np.zeros((2, 2), "longdouble"), "x.tif"),
        (np.zeros(3), "x.tif"), (np.zeros((2, 2), "int32"), "x.png"), (np.zeros((0, 2), "uint8"), "x.png"),
        ([[object]], "x.json"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)  # fmt: skip
def test_what_a_format_cannot_hold_is_refused_by_name_and_kind(payload: Any, name: str) -> None:
    with pytest.raises(Unsupported, match=f"{name}: a {type(payload).__name__} cannot be saved as"):
        encode(payload, name)


@pytest.mark.parametrize("name", ["x.json", "x.npy", "x.tif", "x.png", "x.zip", "x.txt", "x.csv"])
def test_torn_files_are_corrupt_and_named(disk: DiskBackend, name: str) -> None:
    disk.save(b'\xff"torn', name)
    with pytest.raises(Corrupt, match=name):
        disk.load(name)


def test_arrays_are_never_unpickled() -> None:
    import io

    file = io.BytesIO()
    np.save(file, np.array([{}]), allow_pickle=True)
    with pytest.raises(Corrupt, match=r"[Pp]ickle|Object arrays"):
        decode(file.getvalue(), "x.npy")


def test_an_unknown_suffix_gives_bytes() -> None:
    assert decode(b"x", "x.dm3") == b"x"
    assert decode(b"x", "no suffix") == b"x"


@pytest.mark.parametrize(("package", "name"), [("numpy", "x.npy"), ("tifffile", "x.tif"), ("PIL.Image", "x.png")])
def test_a_missing_package_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch, package: str, name: str) -> None:
    array = np.zeros((2, 2), "uint8")
    content = bytes(encode(array, name))
    monkeypatch.setitem(sys.modules, package, None)
    for call in (lambda: encode(array, name), lambda: decode(content, name)):
        with pytest.raises(Unsupported, match=rf"{package}.*pip install \"labrelay\[worker\]\""):
            call()


def test_importing_the_backends_loads_no_array_package() -> None:
    import subprocess

    code = (
        "import sys; from labrelay_worker.backends import registry; registry.create_storage_registry();"
        "print(sorted({'numpy', 'tifffile', 'PIL', 'celery', 'redis'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_text_that_is_json_is_not_encoded_twice() -> None:
    assert decode(bytes(encode(json.dumps([1]), "x.json")), "x.json") == [1]
