"""Which files are shown as what: single pictures, and planes of one stack."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
from rsciio.digitalmicrograph import file_reader
from signals import counts, shared_sessions, write_mrc

from labrelay_worker.backends.base import BackendError
from labrelay_worker.viewers.pictures import Part
from labrelay_worker.viewers.reading import planes_of, series


def test_files_that_differ_in_their_last_number_are_planes_of_one_stack() -> None:
    paths = [Path(f"/d/A1_t{n:03}.tif") for n in range(3)] + [Path("/d/overview.tif"), Path("/e/A1_t000.tif")]
    assert series(paths) == [
        (paths[0], "A1_t#.tif", Part("T", 0, 3)),
        (paths[1], "A1_t#.tif", Part("T", 1, 3)),
        (paths[2], "A1_t#.tif", Part("T", 2, 3)),
        (paths[3], "overview.tif", None),
        (paths[4], "A1_t000.tif", None),
    ]


def test_a_plane_joins_its_stack_and_a_volume_stands_alone(tmp_path) -> None:
    np.save(tmp_path / "a1.npy", np.zeros((3, 4), "uint16"))
    np.save(tmp_path / "a2.npy", np.zeros((2, 3, 4), "uint16"))
    part = Part("T", 0, 2)
    plane = next(planes_of(tmp_path / "a1.npy", "a#.npy", part, "session"))
    assert (plane.name, plane.part) == ("session · a#.npy", part)
    volume = next(planes_of(tmp_path / "a2.npy", "a#.npy", part, "session"))
    assert (volume.name, volume.part) == ("session · a2.npy", None)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY torn", None])
def test_a_file_without_pixels_says_so_and_harms_nothing(tmp_path, content) -> None:
    path = tmp_path / "x.npy"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BackendError):
        next(planes_of(path, "x", None, "session"))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("x.dm3", b"\x00\x00\x00\x03 torn", "x.dm3: DigitalMicrograph"),
        ("notes.txt", b"as it is", "there is no reader for .txt"),
        ("torn.tif", b"II*\x00 torn", "torn.tif: "),
        ("gone.mrc", None, "gone.mrc"),
    ],
)
def test_a_file_that_is_no_picture_says_why(tmp_path, name, content, reason) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BackendError, match=reason):
        next(planes_of(tmp_path / name, name, None, "session"))


def test_a_file_of_an_instrument_is_a_picture_with_pixel_size_and_unit(tmp_path) -> None:
    # Given a tomogram of half a nanometre a pixel
    write_mrc(tmp_path / "tilt.mrc", counts((3, 40, 50)), 0.5)
    # When it is read, then it is a stack of planes with that size
    (picture,) = planes_of(tmp_path / "tilt.mrc", "tilt.mrc", None, "session 1")
    assert (picture.name, picture.axes, picture.unit) == ("session 1 · tilt.mrc", "ZYX", "nm")
    assert picture.scale[1:] == (0.5, 0.5)
    assert np.array_equal(picture.canonical().array, counts((3, 40, 50)))


def test_numbered_files_of_an_instrument_stand_alone() -> None:
    paths = [Path("/d/image_1.dm3"), Path("/d/image_2.dm3")]
    assert series(paths) == [(path, path.name, None) for path in paths]


@pytest.mark.parametrize("has_readers", [True, False])
def test_a_coloured_tiff_stays_coloured_with_and_without_readers(tmp_path, has_readers, monkeypatch) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (30, 20, 3), "uint8")
    tifffile.imwrite(tmp_path / "colours.tif", pixels, photometric="rgb")
    if not has_readers:
        monkeypatch.setattr("labrelay_worker.viewers.reading.find_spec", lambda _: None)
    (picture,) = planes_of(tmp_path / "colours.tif", "colours.tif", None, "s")
    shown = picture.canonical()
    assert shown.axes == "YXS"
    assert np.array_equal(shown.array, pixels)


def test_the_pixel_size_of_a_tiff_is_kept(tmp_path) -> None:
    size = {"resolution": (4.0, 4.0), "metadata": {"axes": "ZYX", "spacing": 0.5, "unit": "nm"}}
    tifffile.imwrite(tmp_path / "a.tif", counts((4, 20, 30)), imagej=True, **size)
    (picture,) = planes_of(tmp_path / "a.tif", "a.tif", None, "s")
    assert (picture.canonical().axes, picture.scale) == ("ZYX", (0.5, 0.25, 0.25))


def test_real_files_are_shown_with_the_pixel_size_that_they_have(tmp_path) -> None:
    # Given files of a real microscope
    files = sorted(shared_sessions(tmp_path).rglob("sample_*.dm3"))
    assert files
    for path in files:
        # When one is read for a viewer
        (picture,) = planes_of(path, path.name, None, "s")
        # Then its pixels and their size are those that rosettasciio reads
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            (entry,) = file_reader(path)
        assert np.array_equal(picture.array, entry["data"])
        assert picture.scale == tuple(axis["scale"] for axis in entry["axes"])
        assert picture.unit == "nm"
