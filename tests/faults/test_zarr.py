"""Plates that many processes fill, writers killed at every step, full disks: nothing is lost, nothing half there."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from disks import fill, small_file_system
from signals import counts, image, validate
from zarr_writers import die_at, write_wells

from labrelay_worker.backends.base import Unavailable
from labrelay_worker.backends.zarr import ZarrBackend

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

#: `LABRELAY_PLATE_ROUNDS=20` is the long version.
ROUNDS = int(os.environ.get("LABRELAY_PLATE_ROUNDS", "2"))
PLATE = "p/plate.ome.zarr"


@pytest.fixture(scope="module")
def processes() -> Any:
    context = multiprocessing.get_context("forkserver")
    # By the names of installed modules: the server does not know the tests' folders.
    context.set_forkserver_preload(["pytest", "labrelay_worker.backends.zarr", "zarr", "yaozarrs", "numcodecs"])
    return context


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 1 MiB."""
    with small_file_system(tmp_path / "small", "1m") as folder:
        yield folder


def wells_of(folder: Path) -> list[str]:
    document = json.loads((folder / "zarr.json").read_text())
    return [well["path"] for well in document["attributes"]["ome"]["plate"]["wells"]]


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_four_processes_fill_a_fresh_plate(tmp_path: Path, processes: Any, round_: int) -> None:
    # Given a plate of 8 by 12 that does not exist, and four processes with 24 of its wells each, mixed
    everything = [(row, str(column)) for row in "ABCDEFGH" for column in range(1, 13)]
    barrier = processes.Barrier(4)
    arguments = [(str(tmp_path), PLATE, everything[number::4], 8, 12, barrier) for number in range(4)]
    # When they write at the same time
    writers = [processes.Process(target=write_wells, args=given) for given in arguments]
    for writer in writers:
        writer.start()
    # Then whoever looks meanwhile can read every well that the plate declares
    backend, looks = ZarrBackend(tmp_path), 0
    while any(writer.is_alive() for writer in writers):
        declared = wells_of(tmp_path / PLATE) if (tmp_path / PLATE / "zarr.json").exists() else []
        for path in declared[-4:]:
            assert np.array_equal(backend.load(f"{PLATE}/{path}/0"), counts((16, 16)))
            looks += 1
    assert looks > 10
    # And none failed, every well is declared, on disk and readable, and nothing else is
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0, 0]
    assert wells_of(tmp_path / PLATE) == [f"{row}/{column}" for row, column in everything]
    on_disk = {
        str(path.parent.parent.relative_to(tmp_path / PLATE)) for path in (tmp_path / PLATE).glob("*/*/0/zarr.json")
    }
    assert on_disk == set(wells_of(tmp_path / PLATE))
    assert not list(tmp_path.rglob("*.partial"))
    validate(tmp_path / PLATE)
    for path in on_disk:
        assert np.array_equal(backend.load(f"{PLATE}/{path}/0"), counts((16, 16)))


@pytest.mark.parametrize("address", ["a.ome.zarr", f"{PLATE}/A/1/0"])
@pytest.mark.parametrize("fresh", [True, False], ids=["first", "replacement"])
def test_a_writer_killed_at_any_step_leaves_the_old_or_the_new(
    tmp_path: Path, processes: Any, address: str, fresh: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # a killed process loses nothing that it had written
    # Given other images beside it, and the old content unless it is the first
    backend = ZarrBackend(tmp_path)
    # The new content is more than a buffer, so that a kill can leave half a file
    old, new = counts((20, 30)), counts((100, 120), seed=5)
    beside = f"{PLATE}/B/2/0"
    backend.save(image(counts((8, 8))), beside)
    step, ended, old_seen, new_seen = 0, False, 0, 0
    while not ended:
        step += 1
        if backend.exists(address):
            backend.delete(address)
        if not fresh:
            backend.save(image(old), address)
        # When a writer of the new content is killed before its next write, rename, removal or other change
        writer = processes.Process(target=die_at, args=(step, str(tmp_path), address, new.shape, 5))
        writer.start()
        writer.join()
        assert writer.exitcode in {0, -9}
        ended = writer.exitcode == 0
        # Then the image is the old one or the new one, whole; a first one may not be there yet
        if backend.is_file(address):
            found = backend.load(address)
            assert np.array_equal(found, old if found.shape == old.shape else new)
            assert not (fresh and found.shape == old.shape)
            old_seen += found.shape == old.shape
            new_seen += found.shape == new.shape
            validate(tmp_path / address)
        else:
            assert fresh
        # And every other image and the plate stay readable
        assert np.array_equal(backend.load(beside), counts((8, 8)))
        validate(tmp_path / PLATE)
        assert "B/2" in wells_of(tmp_path / PLATE)
        # And doing it again completes it
        backend.save(image(new), address, if_exists="replace")
        assert np.array_equal(backend.load(address), new)
        if address.startswith(PLATE):
            assert wells_of(tmp_path / PLATE) == ["A/1", "B/2"]
    # The kills were before, at and after the step that makes it visible
    print(f"{step - 1} steps, {old_seen} with the old content and {new_seen} with the new")
    assert step > (25 if fresh else 35)
    assert new_seen > 1
    assert fresh or old_seen > 10


@pytest.mark.parametrize("address", ["a.ome.zarr", f"{PLATE}/A/1/0"])
def test_a_disk_that_fills_up_at_any_moment_keeps_the_old_image(small_disk: Path, address: str) -> None:
    # Given an image on a small disk
    backend = ZarrBackend(small_disk)
    old, new = counts((60, 70)), counts((400, 500), seed=3)
    backend.save(image(old), address)
    said = list[str]()
    for room in itertools.count(0, 20_000):
        # When it is replaced by a larger one with a little more room each time, a later write fails each time
        leave_room(small_disk, room)
        before = sorted(str(path) for path in small_disk.rglob("*"))
        try:
            backend.save(image(new), address, if_exists="replace")
        except Unavailable as error:
            # Then the old one is there, whole, and the disk is as it was
            said.append(str(error))
            assert np.array_equal(backend.load(address), old)
            assert sorted(str(path) for path in small_disk.rglob("*")) == before
        else:
            break
    # And with room enough it is replaced
    assert len(said) > 5
    assert all("disk is full" in text for text in said)
    assert np.array_equal(zarr.open_group(small_disk / address, mode="r")["0"][...], new)


def leave_room(disk: Path, room: int) -> None:
    (disk / "filler").unlink(missing_ok=True)
    fill(disk / "filler")
    os.truncate(disk / "filler", (disk / "filler").stat().st_size - room)
