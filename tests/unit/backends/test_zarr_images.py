"""Images as the zarr backend stores them, looked at with zarr, yaozarrs and ome-zarr-models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from signals import counts, image, validate

from labrelay_worker.backends.base import AlreadyExists, BackendError, Corrupt, NotADirectory, NotFound, Unsupported
from labrelay_worker.backends.ngff.codecs import CODECS
from labrelay_worker.backends.ngff.pyramid import halve
from labrelay_worker.backends.zarr import ZarrBackend
from labrelay_worker.reading.signal import Axis, Channel, Signal, of_array

SHAPES = {"yx": (70, 130), "zyx": (5, 33, 41), "czyx": (2, 3, 40, 50), "tczyx": (2, 1, 2, 30, 20)}


@pytest.fixture
def backend(tmp_path: Path) -> ZarrBackend:
    return ZarrBackend(tmp_path / "root")


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Return inode and time of every file: equal only if nothing was written."""
    return {str(p): (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("ngff", ["0.5", "0.4"])
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("axes", SHAPES)
def test_arrays_come_back_equal_through_us_and_through_zarr(tmp_path: Path, ngff: Any, codec: str, axes: str) -> None:
    # Given chunks that do not divide the image
    backend = ZarrBackend(tmp_path, ngff=ngff, codec=codec, chunk=32)
    data = counts(SHAPES[axes])
    # When it is stored
    backend.save(data, "a.ome.zarr")
    # Then zarr, our planes and our whole are what was given, and no validator finds a fault
    assert np.array_equal(zarr.open_group(tmp_path / "a.ome.zarr", mode="r")["0"][...], data)
    assert np.array_equal(backend.load("a.ome.zarr"), data)
    last = tuple(-1 for _ in data.shape[:-2])
    assert np.array_equal(backend.open_image("a.ome.zarr").plane(*last), data[last])
    validate(tmp_path / "a.ome.zarr")


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "uint8", "int16", ">u2", "int32", "uint64", "float16", "float32", ">f8", "complex64"]
)
@pytest.mark.parametrize("ngff", ["0.5", "0.4"])
def test_every_type_of_number_is_kept(tmp_path: Path, dtype: str, ngff: Any) -> None:
    backend = ZarrBackend(tmp_path, ngff=ngff)
    data = (counts((2, 9, 7)) % 100).astype(dtype)
    backend.save(data, "a.ome.zarr")
    loaded = backend.load("a.ome.zarr")
    assert np.array_equal(loaded, data)
    assert loaded.dtype == np.dtype(dtype).newbyteorder("=")
    validate(tmp_path / "a.ome.zarr")


def test_a_batch_of_mixed_types_keeps_each(backend: ZarrBackend) -> None:
    # Given an 8-bit image before a 16-bit one that counts to 300
    small, large = np.zeros((4, 4), "uint8"), np.full((4, 4), 300, "uint16")
    backend.save_batch([small, large], ["a.zarr", "b.zarr"])
    # Then 300 is 300
    assert backend.load("b.zarr").max() == 300
    assert [backend.load(name).dtype for name in ("a.zarr", "b.zarr")] == ["uint8", "uint16"]


@pytest.mark.parametrize("ngff", ["0.5", "0.4"])
def test_pixel_sizes_units_and_offsets_are_the_signals_own(tmp_path: Path, ngff: Any) -> None:
    # Given an image of 0.0157 nm a pixel whose first pixel lies at 10 nm
    axes = (Axis("y", "space", 0.0157, 10.0, "nm"), Axis("x", "space", 0.0157, -3.0, "nm"))
    ZarrBackend(tmp_path, ngff=ngff).save(Signal(counts((1200, 1100)), axes, "grain"), "a.ome.zarr")
    # Then the full resolution says so
    attributes = dict(zarr.open_group(tmp_path / "a.ome.zarr", mode="r").attrs)
    (multiscale,) = attributes.get("ome", attributes)["multiscales"]
    assert multiscale["name"] == "grain"
    assert [(axis["name"], axis["unit"]) for axis in multiscale["axes"]] == [("y", "nanometer"), ("x", "nanometer")]
    first, second = (level["coordinateTransformations"] for level in multiscale["datasets"][:2])
    assert first == [
        {"type": "scale", "scale": [0.0157, 0.0157]},
        {"type": "translation", "translation": [10.0, -3.0]},
    ]
    # And the next one has pixels twice as large, whose centres lie half a pixel further in
    assert second[0]["scale"] == [0.0314, 0.0314]
    assert second[1]["translation"] == pytest.approx([10.0 + 0.0157 / 2, -3.0 + 0.0157 / 2])


def test_a_pyramid_halves_planes_until_they_are_small(backend: ZarrBackend, tmp_path: Path) -> None:
    data = counts((2, 1300, 2050))
    backend.save(image(data), "a.ome.zarr")
    group = zarr.open_group(tmp_path / "root/a.ome.zarr", mode="r")
    assert [group[name].shape for name in sorted(group.array_keys())] == [
        (2, 1300, 2050), (2, 650, 1025), (2, 325, 512), (2, 162, 256),
    ]  # fmt: skip
    means = data.reshape(2, 650, 2, 1025, 2).mean((2, 4))
    assert np.abs(group["1"][...] - means).max() <= 0.5


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32", "float64"])
def test_the_mean_of_four_does_not_overflow(dtype: str) -> None:
    top = np.iinfo(dtype).max if np.dtype(dtype).kind in "iu" else 1e30
    assert halve(np.full((2, 3, 5), top, dtype)).tolist() == np.full((2, 1, 2), top, dtype).tolist()


def test_channels_have_labels_colours_and_contrast(backend: ZarrBackend, tmp_path: Path) -> None:
    axes = (Axis("c", "channel"), Axis("y", "space"), Axis("x", "space"))
    data = np.stack([np.full((8, 8), 5, "u2"), np.full((8, 8), 90, "u2")])
    data[:, 0, 0] = 7, 95
    signal = Signal(data, axes, channels=(Channel("DAPI", "0000FF"), Channel("GFP", "00FF00")))
    backend.save(signal, "a.ome.zarr")
    channels = dict(zarr.open_group(tmp_path / "root/a.ome.zarr", mode="r").attrs)["ome"]["omero"]["channels"]
    assert [(channel["label"], channel["color"]) for channel in channels] == [("DAPI", "0000FF"), ("GFP", "00FF00")]
    # Each with its own: a bright channel does not leave a faint one black
    assert [(channel["window"]["start"], channel["window"]["end"]) for channel in channels] == [(5, 7), (90, 95)]


def test_a_spectrum_image_is_stored_energy_first(backend: ZarrBackend, tmp_path: Path) -> None:
    # Given a map with its energies last
    data = counts((6, 7, 20))
    axes = (
        Axis("y", "space", 2.0, 0.0, "nm"),
        Axis("x", "space", 2.0, 0.0, "nm"),
        Axis("Energy", "other", 10, 0, "eV"),
    )
    backend.save(Signal(data, axes), "map.ome.zarr")
    # Then it is an image with a slider over the energies
    assert np.array_equal(backend.load("map.ome.zarr"), data.transpose(2, 0, 1))
    assert [axis.name for axis in backend.open_image("map.ome.zarr").signal.axes] == ["Energy", "y", "x"]
    validate(tmp_path / "root/map.ome.zarr")


def test_what_ngff_cannot_say_is_a_plain_array_with_its_axes(backend: ZarrBackend) -> None:
    # Given a spectrum, and diffraction patterns at every point of a scan
    spectrum = Signal(counts((50,)), (Axis("Energy", "other", 10.0, 5.0, "eV"),), "edx")
    scan = Signal(counts((3, 4, 8, 8)), tuple(Axis(name, "space", 1.0, 0.0, "nm") for name in ("y", "x", "dy", "dx")))
    backend.save_batch([spectrum, scan], ["edx.zarr", "scan.zarr"])
    for name, signal in (("edx.zarr", spectrum), ("scan.zarr", scan)):
        stored = backend.open_image(name).signal
        assert np.array_equal(np.asarray(stored.data[...]), signal.data)
        assert stored.axes == signal.axes
    assert np.array_equal(backend.open_image("scan.zarr").plane(2, 1), scan.data[2, 1])


def test_reading_one_plane_reads_one_plane(backend: ZarrBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given an image of 40 planes in one shard
    data = counts((40, 64, 64))
    backend.save(data, "a.ome.zarr")
    stored, taken = backend.open_image("a.ome.zarr"), []
    read = type(backend._images.images).read

    def counted(self: Any, address: str, key: str, spans: Any = None) -> list[bytes]:
        content = read(self, address, key, spans)
        taken.append(sum(map(len, content)))
        return content

    # When one of them is read
    monkeypatch.setattr(type(backend._images.images), "read", counted)
    assert np.array_equal(stored.plane(17), data[17])
    # Then it cost its own share of the file and the index, and the next one not even that
    assert sum(taken) < 2 * backend.size("a.ome.zarr") / 40 + 1000
    first, _ = sum(taken), taken.clear()
    stored.plane(18)
    assert sum(taken) < first
    with pytest.raises(IndexError, match="no plane"):
        stored.plane(40)


def test_a_plane_larger_than_a_shard_is_cut_into_bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given shards of at most 64 KiB
    monkeypatch.setattr("labrelay_worker.backends.ngff.layout.SHARD_BYTES", 64 << 10)
    monkeypatch.setattr("labrelay_worker.backends.ngff.layout.SMALLEST_SIDE", 64)
    backend = ZarrBackend(tmp_path, chunk=64)
    data = counts((2, 517, 300))
    backend.save(data, "a.ome.zarr")
    # Then every level is whole
    group = zarr.open_group(tmp_path / "a.ome.zarr", mode="r")
    assert len(list((tmp_path / "a.ome.zarr/0/c/0").iterdir())) > 1
    assert np.array_equal(group["0"][...], data)
    assert np.array_equal(group["1"][...], halve(data))
    assert np.array_equal(group["2"][...], halve(halve(data)))
    assert np.array_equal(backend.load("a.ome.zarr"), data)
    validate(tmp_path / "a.ome.zarr")


def test_a_large_file_is_stored_a_shard_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given shards of 64 KiB, and an array of a megabyte that is read from its file as it is sliced
    monkeypatch.setattr("labrelay_worker.backends.ngff.layout.SHARD_BYTES", 64 << 10)
    data, taken = counts((32, 128, 128)), list[int]()

    class OnDisk:
        shape, dtype, ndim = data.shape, data.dtype, data.ndim

        def __getitem__(self, where: Any) -> Any:
            taken.append(data[where].nbytes)
            return data[where]

    # When it is stored
    backend = ZarrBackend(tmp_path)
    backend.save(image(OnDisk()), "a.ome.zarr")
    # Then no more than a shard was ever asked for, and everything once
    assert max(taken) <= 64 << 10
    assert sum(taken) == data.nbytes
    assert np.array_equal(backend.load("a.ome.zarr"), data)


def test_the_same_content_again_writes_nothing(backend: ZarrBackend, tmp_path: Path) -> None:
    signal = image(counts((30, 30)), identity="sha:0")
    backend.save(signal, "a.ome.zarr", if_exists="replace")
    before = snapshot(tmp_path)
    backend.save(signal, "a.ome.zarr", if_exists="replace")
    assert snapshot(tmp_path) == before
    # But a file that went missing is written again
    next((tmp_path / "root/a.ome.zarr/0/c").rglob("0")).joinpath("0").unlink()
    backend.save(signal, "a.ome.zarr", if_exists="replace")
    assert np.array_equal(backend.load("a.ome.zarr"), signal.data)


def test_other_content_replaces_the_whole_image(backend: ZarrBackend, tmp_path: Path) -> None:
    backend.save(image(counts((3, 1200, 600))), "a.ome.zarr")
    backend.save(image(counts((20, 10), "float32")), "a.ome.zarr", if_exists="replace")
    assert np.array_equal(backend.load("a.ome.zarr"), counts((20, 10), "float32"))
    # And nothing of the old one is left
    assert not (tmp_path / "root/a.ome.zarr/1").exists()
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["a.ome.zarr"]


def test_the_overwrite_policy_holds_for_images(backend: ZarrBackend) -> None:
    backend.save(counts((4, 4)), "a.zarr")
    with pytest.raises(AlreadyExists, match="if_exists"):
        backend.save(counts((5, 5)), "a.zarr")
    backend.save(counts((5, 5)), "a.zarr", if_exists="skip")
    assert backend.load("a.zarr").shape == (4, 4)


def test_a_batch_that_fails_leaves_everything_as_it_was(backend: ZarrBackend, tmp_path: Path) -> None:
    # Given an image, and a file in the way of the batch
    backend.save(counts((4, 4)), "old.zarr")
    backend.save(b"x", "taken.bin")
    before = snapshot(tmp_path)
    # When images and files are stored together
    with pytest.raises(BackendError):
        backend.save_batch([counts((5, 5)), counts((6, 6)), b"y"], ["new/a.zarr", "new/b.zarr", "taken.bin"])
    # Then nothing happened
    assert snapshot(tmp_path) == before
    assert not backend.exists("new")


def test_an_image_is_one_file_to_those_who_list_move_copy_and_delete(backend: ZarrBackend) -> None:
    backend.save_batch([counts((4, 4)), b"notes"], ["s/a.ome.zarr", "s/notes.txt"])
    assert backend.list_files(".", recursive=True) == [Path("s/a.ome.zarr"), Path("s/notes.txt")]
    assert backend.is_file("s/a.ome.zarr")
    assert not backend.is_dir("s/a.ome.zarr")
    assert backend.stat("s/a.ome.zarr")["type"] == "file"
    with pytest.raises(NotADirectory):
        backend.list_dir("s/a.ome.zarr")
    digest, size = backend.sha256("s/a.ome.zarr"), backend.size("s/a.ome.zarr")
    backend.copy("s/a.ome.zarr", "t/b.ome.zarr")
    backend.move("t/b.ome.zarr", "u/c.ome.zarr")
    assert (backend.sha256("u/c.ome.zarr"), backend.size("u/c.ome.zarr")) == (digest, size)
    backend.delete("s/a.ome.zarr")
    assert not backend.exists("s/a.ome.zarr")
    assert np.array_equal(backend.load("u/c.ome.zarr"), counts((4, 4)))
    with pytest.raises(NotFound):
        backend.open_image("s/a.ome.zarr")


def test_damage_is_seen(backend: ZarrBackend, tmp_path: Path) -> None:
    backend.save(counts((40, 40)), "a.ome.zarr")
    digest = backend.sha256("a.ome.zarr")
    shard = tmp_path / "root/a.ome.zarr/0/c/0/0"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x00")
    assert backend.sha256("a.ome.zarr") != digest
    with pytest.raises(Corrupt, match="damaged"):
        backend.load("a.ome.zarr")


def test_what_the_file_said_of_itself_is_kept(backend: ZarrBackend, tmp_path: Path) -> None:
    signal = replace(of_array(counts((4, 4))), metadata={"General": {"title": "t"}, "original": {"HT": 300}})
    backend.save(signal, "a.ome.zarr")
    assert backend.open_image("a.ome.zarr").signal.metadata == {"General": {"title": "t"}}
    assert (tmp_path / "root/a.ome.zarr/0/original_metadata.json").read_text() == '{"HT": 300}'


@pytest.mark.parametrize(
    ("payload", "address", "cure"),
    [
        (counts((0, 4)), "a.zarr", "holds nothing"),
        (np.array([["a"]]), "a.zarr", "have no type in Zarr"),
        (b"bytes", "a.zarr", "does not end in .zarr"),
        (image(counts((4, 4))), "a.tif", "ends in .zarr"),
        (counts((4, 4)), "a.zarr/B/3", "ROW/COLUMN/NUMBER"),
    ],
)
def test_what_cannot_be_stored_is_refused_with_the_cure(
    backend: ZarrBackend, payload: Any, address: str, cure: str
) -> None:
    with pytest.raises(Unsupported, match=cure):
        backend.save(payload, address)
    assert not backend.exists("a.zarr")


@pytest.mark.parametrize(
    "options",
    [{"ngff": "0.6"}, {"codec": "gzip"}, {"chunk": 1000}, {"levels": 0}],
    ids=lambda given: next(iter(given)),
)
def test_options_that_cannot_be_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(Unsupported, match=str(next(iter(options)))):
        ZarrBackend(tmp_path, **options)
