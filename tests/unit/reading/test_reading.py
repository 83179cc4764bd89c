"""Files become signals: arrays with axes, pixel sizes and units, or a reason why not."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from instrument_files import write_dm4, write_ser
from signals import counts, write_mrc

from labrelay_worker.reading.files import LAZY_ABOVE, Unreadable, read_signals
from labrelay_worker.reading.signal import Axis, Signal, of_array


def test_a_numpy_file_is_an_uncalibrated_stack(tmp_path: Path) -> None:
    np.save(tmp_path / "stack.npy", counts((3, 8, 9)))
    (signal,) = read_signals(tmp_path / "stack.npy")
    assert np.array_equal(signal.data, counts((3, 8, 9)))
    assert [axis.name for axis in signal.axes] == ["z", "y", "x"]
    assert signal.name == "stack"


def test_a_large_file_stays_on_disk_until_it_is_sliced(tmp_path: Path) -> None:
    # Given files above the limit
    np.save(tmp_path / "stack.npy", counts((3, 8, 9)))
    write_mrc(tmp_path / "stack.mrc", counts((3, 8, 9)), 0.5)
    for name in ("stack.npy", "stack.mrc"):
        # When they are read, then the array is no array in memory, and its slices are right
        (signal,) = read_signals(tmp_path / name, lazy_above=10)
        assert type(signal.data) is not np.ndarray
        assert np.array_equal(np.asarray(signal.data[1]), counts((3, 8, 9))[1])


def test_an_mrc_stack_has_its_pixel_size(tmp_path: Path) -> None:
    write_mrc(tmp_path / "tomogram.mrc", counts((4, 10, 12)), 0.5)
    (signal,) = read_signals(tmp_path / "tomogram.mrc")
    assert np.array_equal(signal.data, counts((4, 10, 12)))
    assert [(axis.name, axis.kind, axis.scale, axis.unit) for axis in signal.axes][-2:] == [
        ("y", "space", 0.5, "nm"),
        ("x", "space", 0.5, "nm"),
    ]


def test_a_file_of_several_signals_gives_each_with_its_title(tmp_path: Path) -> None:
    # Given an EMD file with an image and a spectrum image
    from rsciio.emd import file_writer

    def entry(data: np.ndarray, title: str, names: list[str], units: list[str]) -> dict:
        return {
            "data": data,
            "axes": [
                {"name": n, "units": u, "scale": 0.5, "offset": 2.0, "size": s, "navigate": False}
                for n, u, s in zip(names, units, data.shape, strict=True)
            ],
            "metadata": {"General": {"title": title}, "Signal": {"signal_type": ""}},
            "original_metadata": {"microscope": {"HT": 300}},
            "attributes": {},
            "learning_results": {},
        }

    h5py = pytest.importorskip("h5py")
    file_writer(str(tmp_path / "two.emd"), entry(counts((6, 7)), "haadf", ["y", "x"], ["nm", "nm"]))
    with h5py.File(tmp_path / "two.emd", "a") as file:
        (group,) = file["signals"].values()
        file.copy(group, "signals/other")
    # When it is read
    signals = read_signals(tmp_path / "two.emd")
    # Then both are there, calibrated
    assert len(signals) == 2
    for signal in signals:
        assert np.array_equal(signal.data, counts((6, 7)))
        assert signal.axes == (Axis("y", "space", 0.5, 2.0, "nm"), Axis("x", "space", 0.5, 2.0, "nm"))


def test_a_hspy_spectrum_image_keeps_what_its_axes_mean(tmp_path: Path) -> None:
    from rsciio.hspy import file_writer

    data = counts((4, 5, 16))
    axes = [
        {"name": n, "units": u, "scale": s, "offset": 0.0, "size": size, "navigate": nav, "_type": "UniformDataAxis"}
        for n, u, s, size, nav in (
            ("y", "nm", 2.0, 4, True),
            ("x", "nm", 2.0, 5, True),
            ("Energy", "eV", 10.0, 16, False),
        )
    ]
    entry = {
        "data": data, "axes": axes, "metadata": {"General": {"title": "map"}}, "original_metadata": {},
        "attributes": {"_lazy": False, "ragged": False}, "learning_results": {},
        "models": {}, "package_info": {"package": "", "package_version": ""},
        "tmp_parameters": {},
    }  # fmt: skip
    file_writer(str(tmp_path / "map.hspy"), entry)
    (signal,) = read_signals(tmp_path / "map.hspy")
    assert np.array_equal(signal.data, data)
    assert [(axis.name, axis.kind, axis.unit) for axis in signal.axes] == [
        ("y", "space", "nm"), ("x", "space", "nm"), ("Energy", "other", "eV"),
    ]  # fmt: skip
    assert signal.is_image
    assert signal.name == "map"


def test_images_of_digital_micrograph_4_and_of_tia_have_their_pixel_size(tmp_path: Path) -> None:
    # Given the files of a camera and of a series of three, of half a nanometre a pixel
    write_dm4(tmp_path / "grain.dm4", counts((8, 9)), 0.5)
    write_ser(tmp_path / "drift_1.ser", counts((3, 8, 9)), 0.5)
    for name, data in (("grain.dm4", counts((8, 9))), ("drift_1.ser", counts((3, 8, 9)))):
        for limit in (0, LAZY_ABOVE):
            # When they are read, at once or piece by piece
            (signal,) = read_signals(tmp_path / name, lazy_above=limit)
            # Then every number is in its place, and a pixel has its size
            assert np.array_equal(np.asarray(signal.data), data)
            assert signal.axes[-2:] == (Axis("y", "space", 0.5, 0.0, "nm"), Axis("x", "space", 0.5, 0.0, "nm"))


def test_a_blockfile_is_a_map_of_diffraction_patterns(tmp_path: Path) -> None:
    from rsciio.blockfile import file_writer

    # Given 3 by 4 patterns of 8 by 8, 2 nm apart
    data = counts((3, 4, 8, 8), "uint8")
    axes = [
        {"name": n, "units": u, "scale": s, "offset": 0.0, "size": size, "navigate": u == "nm"}
        for n, u, s, size in (("y", "nm", 2.0, 3), ("x", "nm", 2.0, 4), ("dy", "cm", 0.1, 8), ("dx", "cm", 0.1, 8))
    ]
    entry = {
        "data": data, "axes": axes, "metadata": {"General": {"title": "scan"}}, "original_metadata": {},
        "attributes": {"_lazy": False},
    }  # fmt: skip
    file_writer(str(tmp_path / "scan.blo"), entry, navigator=None, show_progressbar=False)
    # When it is read
    (signal,) = read_signals(tmp_path / "scan.blo")
    # Then both the scan and the detector have their steps
    assert np.array_equal(signal.data, data)
    assert [(axis.scale, axis.unit) for axis in signal.axes[:2]] == [(2.0, "nm"), (2.0, "nm")]
    assert [axis.unit for axis in signal.axes[2:]] == ["cm", "cm"]
    assert not signal.is_image


def test_a_reader_whose_package_is_missing_names_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a machine without the package that a reader imports
    load = importlib.import_module

    def lacking(name: str) -> Any:
        if name == "rsciio.blockfile":
            raise ModuleNotFoundError("No module named 'nowhere'", name="nowhere")
        return load(name)

    monkeypatch.setattr("labrelay_worker.reading.rosetta.importlib.import_module", lacking)
    (tmp_path / "scan.blo").write_bytes(b"\x02\x01")
    with pytest.raises(Unreadable, match="Blockfile: needs pip install nowhere"):
        read_signals(tmp_path / "scan.blo")


def test_a_tiff_is_read_with_the_resolution_it_states(tmp_path: Path) -> None:
    # Given a TIFF of ImageJ with 4 pixels per micrometre
    tifffile.imwrite(
        tmp_path / "cells.tif", counts((20, 30)), imagej=True, resolution=(4, 4), metadata={"unit": "micron"}
    )
    (signal,) = read_signals(tmp_path / "cells.tif")
    assert np.array_equal(signal.data, counts((20, 30)))
    assert [round(axis.scale, 6) for axis in signal.axes] == [0.25, 0.25]
    assert {axis.unit for axis in signal.axes} == {"µm"}


# Its reader leaves a damaged file to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("torn.dm3", b"\x00\x00\x00\x03 and then nothing", "DigitalMicrograph"),
        ("empty.mrc", b"", "MRC"),
        ("notes.txt", b"words", "no reader for .txt"),
        ("README", b"words", "no reader for files without a suffix"),
        ("torn.tif", b"II*\x00\xff\xff", "unpack"),
        ("objects.npy", b"\x93NUMPY", "Error"),
    ],
)
def test_what_cannot_be_read_says_why_on_one_line(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Unreadable, match=reason) as caught:
        read_signals(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_an_array_of_no_samples_or_of_text_is_no_signal(tmp_path: Path) -> None:
    for name, data in (("none.npy", np.zeros((0, 5))), ("text.npy", np.array(["a", "b"]))):
        np.save(tmp_path / name, data)
        with pytest.raises(Unreadable):
            read_signals(tmp_path / name)


def test_a_signal_names_every_axis_of_its_array() -> None:
    with pytest.raises(ValueError, match="1 axes are named"):
        Signal(np.zeros((2, 2)), (Axis("x", "space"),))
    assert [axis.name for axis in of_array(np.zeros((1,) * 6)).axes] == [f"axis{n}" for n in range(6)]
    assert not of_array(np.zeros(5)).is_image
