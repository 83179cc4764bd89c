"""Planes of a large image: cut into bands, read in one request, decoded side by side."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from signals import counts, image

from labrelay_worker.backends.base import Corrupt
from labrelay_worker.backends.ngff import layout
from labrelay_worker.backends.ngff import together as room
from labrelay_worker.backends.ngff.sharded import joined
from labrelay_worker.backends.ngff.together import together
from labrelay_worker.backends.zarr import ZarrBackend

SOON = 30.0


@pytest.fixture
def two_processors(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have one helper, whatever this machine is."""
    room._pool.cache_clear()
    monkeypatch.setattr(room, "_processors", lambda: 2)
    yield
    room._pool().shutdown()
    room._pool.cache_clear()


@pytest.mark.usefixtures("two_processors")
def test_two_steps_run_at_the_same_time() -> None:
    # Given steps that each wait until the other one runs
    meeting = threading.Barrier(2, timeout=SOON)
    # Then both end, because neither was left for later
    together([meeting.wait, meeting.wait])


@pytest.mark.usefixtures("two_processors")
def test_every_step_runs_once() -> None:
    done = list[int]()
    together([lambda number=number: done.append(number) for number in range(50)])  # type: ignore[misc]
    assert sorted(done) == list(range(50))


@pytest.mark.usefixtures("two_processors")
def test_a_helper_that_others_keep_busy_is_not_waited_for() -> None:
    # Given the only helper in the middle of somebody else's step
    started, free = threading.Event(), threading.Event()
    theirs = room._pool().submit(lambda: (started.set(), free.wait(SOON)))
    assert started.wait(SOON)
    # When there is work
    done = list[int]()
    together([lambda: done.append(1), lambda: done.append(2), lambda: done.append(3)])
    # Then the caller did all of it
    assert sorted(done) == [1, 2, 3]
    assert not theirs.done()
    free.set()


@pytest.mark.usefixtures("two_processors")
@pytest.mark.parametrize("where", ["caller", "helper"])
def test_what_a_step_raises_reaches_the_caller(where: str) -> None:
    meeting, caller = threading.Barrier(2, timeout=SOON), threading.current_thread()

    def step() -> None:
        meeting.wait()
        if (threading.current_thread() is caller) == (where == "caller"):
            raise Corrupt("damaged")

    with pytest.raises(Corrupt, match="damaged"):
        together([step, step])


@pytest.mark.usefixtures("two_processors")
def test_a_forked_process_has_helpers_of_its_own() -> None:
    # Given a process whose helper has worked
    together([lambda: None, lambda: None])
    # When it forks, as Celery's prefork pool does
    child = os.fork()
    if child == 0:
        meeting = threading.Barrier(2, timeout=SOON)
        try:
            together([meeting.wait, meeting.wait])
            os._exit(0)
        finally:
            os._exit(1)
    # Then the child's steps run side by side, too
    assert os.waitpid(child, 0)[1] == 0


def test_spans_without_a_gap_are_one_read() -> None:
    assert joined([(0, 5), (5, 3), (9, 1), (10, 2), (4, 1)]) == [[(0, 5), (5, 3)], [(9, 1), (10, 2)], [(4, 1)]]
    assert joined([]) == []


def test_a_large_plane_is_several_bands_of_whole_rows_in_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given chunks of at most 64 KiB, and planes of 200 KB
    monkeypatch.setattr("labrelay_worker.backends.ngff.writing.CHUNK_BYTES", 64 << 10)
    backend, data = ZarrBackend(tmp_path), counts((3, 333, 300))
    backend.save(data, "a.ome.zarr")
    # Then a plane is six even bands, and all planes are in one shard
    array = zarr.open_array(tmp_path / "a.ome.zarr/0", mode="r")
    assert (array.chunks, array.shards) == ((1, 56, 300), (3, 336, 300))
    assert np.array_equal(array[...], data)
    # And a plane is read with one request, after that of the shard's index
    stored, asked = backend.open_image("a.ome.zarr"), list[Any]()
    read = type(backend._images.images).read

    def counted(self: Any, address: str, key: str, spans: Any = None) -> Any:
        asked.append(spans)
        return read(self, address, key, spans)

    monkeypatch.setattr(type(backend._images.images), "read", counted)
    assert np.array_equal(stored.plane(1), data[1])
    assert [len(spans) for spans in asked] == [1, 1]


def test_version_0_4_keeps_one_file_per_plane(tmp_path: Path) -> None:
    # Given planes of more bytes than a chunk of a shard has
    data = counts((2, 1100, 1200))
    assert data[0].nbytes > layout.CHUNK_BYTES
    ZarrBackend(tmp_path, ngff="0.4").save(image(data), "a.ome.zarr")
    assert [path.name for path in (tmp_path / "a.ome.zarr/0/0/0").iterdir()] == ["0"]


@pytest.mark.usefixtures("two_processors")
def test_a_damaged_band_is_said_to_be_damaged(tmp_path: Path) -> None:
    # Given an image of which one band of one plane is overwritten
    backend, data = ZarrBackend(tmp_path, levels=1), counts((1, 2100, 1000))
    backend.save(data, "a.ome.zarr")
    (shard,) = (path for path in (tmp_path / "a.ome.zarr/0/c").rglob("*") if path.is_file())
    with shard.open("r+b") as file:
        file.seek(100)
        file.write(bytes(200_000))
    # Then nobody gets its pixels
    with pytest.raises(Corrupt, match="cannot be decoded"):
        backend.open_image("a.ome.zarr").plane(0)
