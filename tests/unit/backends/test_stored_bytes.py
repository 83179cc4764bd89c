"""The bytes of an image: read in part, read back, noted in the inventory, and made smaller."""

from __future__ import annotations

import json
import os
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from signals import counts

from labrelay_worker.backends import files
from labrelay_worker.backends.base import Corrupt
from labrelay_worker.backends.files import CHUNK, read_span
from labrelay_worker.backends.ngff.pyramid import halve
from labrelay_worker.backends.zarr import ZarrBackend

PIECES = [b"begin", os.urandom(2 * CHUNK + 7), np.arange(6, dtype="u2"), b"end"]


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """Write the pieces as one file."""
    path = tmp_path / "pieces"
    path.write_bytes(b"".join(bytes(piece) for piece in PIECES))
    return path


@pytest.mark.parametrize("span", [(0, 4), (5, 2 * CHUNK), (7, CHUNK + 1), (-3, 3), (-CHUNK - 3, CHUNK)])
@pytest.mark.parametrize("can_map", [True, False])
def test_a_part_is_read_the_same_with_and_without_a_copy(
    stored: Path, span: tuple[int, int], can_map: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a system that can promise mapped pages, or one that cannot
    if not can_map:
        monkeypatch.setattr(files, "_POPULATE_READ", -1)
    start, length = span
    content = stored.read_bytes()
    begin = start % len(content)
    # Then the part is that of the file, and it outlives the file's replacement and its descriptor
    with stored.open("rb") as file:
        found = read_span(file.fileno(), start, length)
    stored.with_name("new").write_bytes(b"new")
    stored.with_name("new").replace(stored)
    assert bytes(found) == content[begin : begin + length]


def test_a_part_beyond_the_end_is_cut_off(stored: Path) -> None:
    with stored.open("rb") as file:
        assert len(read_span(file.fileno(), 5, 4 * CHUNK)) == stored.stat().st_size - 5


@pytest.mark.parametrize("fault", ["first byte", "last byte", "longer", "shorter"])
def test_a_device_that_gives_back_something_else_is_caught_before_anything_is_visible(
    tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a device that changes the shard of an image
    def sync(descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        if size > 2 * CHUNK:
            if fault == "shorter":
                os.ftruncate(descriptor, size - 1)
            else:
                os.pwrite(descriptor, b"\xee", {"first byte": 0, "last byte": size - 1, "longer": size}[fault])

    monkeypatch.setattr("labrelay_worker.backends.ngff.staging.sync", sync)
    # When it is saved, then it is refused, and nothing of it stays
    with pytest.raises(Corrupt, match="did not give back"):
        ZarrBackend(tmp_path, codec="none").save(np.ones((1200, 1000), "u2"), "a.zarr")
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize("codec", ["lz4", "none"])
def test_the_inventory_has_size_and_checksum_of_every_other_file(tmp_path: Path, codec: str) -> None:
    ZarrBackend(tmp_path, codec=codec).save(counts((3, 40, 50)), "a.ome.zarr")
    folder = tmp_path / "a.ome.zarr"
    inventory = json.loads((folder / "0/labrelay.json").read_text())["files"]
    others = {path for path in folder.rglob("*") if path.is_file() and path.name != "labrelay.json"}
    assert {folder / key for key in inventory} == others
    for key, note in inventory.items():
        content = (folder / key).read_bytes()
        assert note == {"size": len(content), "crc32c": f"{google_crc32c.value(content):08x}"}


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "uint64", "float16", "float32"])
def test_each_smaller_pixel_is_the_mean_of_four(dtype: str) -> None:
    # Given planes of many bands, with an odd row and column, not contiguous
    values = np.random.default_rng(3).integers(-90 if dtype.startswith("int") else 0, 250, (2, 303, 205))
    block = values.astype(dtype)[:, ::-1]
    # Then each pixel is the mean, integers rounded half up
    four = block[:, :302, :204].astype(float).reshape(2, 151, 2, 102, 2).mean(axis=(2, 4))
    mean = four if dtype.startswith("float") else np.floor(four + 0.5)
    assert np.array_equal(halve(block), mean.astype(dtype))


def test_a_smaller_pixel_is_true_where_any_of_four_is() -> None:
    block = np.random.default_rng(4).random((151, 90)) > 0.7
    assert np.array_equal(halve(block), block[:150].reshape(75, 2, 45, 2).any(axis=(1, 3)))
