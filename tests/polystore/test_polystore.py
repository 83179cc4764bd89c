"""The classes of the real polystore package, used as they are, keep our contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("polystore", reason="polystore has an environment of its own: make test-polystore")

from polystore.disk import DiskStorageBackend
from polystore.memory import MemoryStorageBackend

from labrelay_worker.backends.adoption import adopt
from labrelay_worker.backends.base import (
    AlreadyExists,
    Corrupt,
    NotFound,
    StorageBackend,
    Unsupported,
)
from labrelay_worker.backends.registry import BackendRegistry
from labrelay_worker.conformance.backends import StorageConformance

DISK, MEMORY, ZARR = (
    "polystore.disk:DiskStorageBackend", "polystore.memory:MemoryStorageBackend", "polystore.zarr:ZarrStorageBackend",
)  # fmt: skip


class TestDisk(StorageConformance):
    def make(self, folder: Path) -> Any:
        return adopt(DiskStorageBackend)(root=folder)


class TestMemory(StorageConformance):
    def make(self, folder: Path) -> Any:
        return adopt(MemoryStorageBackend)(root=folder)


@pytest.fixture
def registry() -> BackendRegistry:
    registry = BackendRegistry()
    registry.discover(explicit=[DISK, MEMORY, ZARR])
    return registry


def test_they_are_registered_by_name_beside_ours(registry: BackendRegistry) -> None:
    assert {"disk", "memory", "polystore_disk", "polystore_memory", "polystore_zarr"} <= set(registry.names)
    assert registry.unavailable == []
    assert type(registry.get("polystore_memory")).hosted is MemoryStorageBackend


def test_a_name_of_ones_own_takes_their_options_and_a_root(registry: BackendRegistry, tmp_path: Path) -> None:
    shared: dict[str, Any] = {}
    registry.configure("scratch", "polystore_memory", {"shared_dict": shared, "root": str(tmp_path)})
    registry.get("scratch").save(b"x", "a/b")
    assert shared[f"{tmp_path}/a/b"] == b"x"
    with pytest.raises(Exception, match="Its options are: shared_dict, root"):
        registry.configure("other", "polystore_memory", {"shared_dct": {}})


def test_discovering_twice_changes_nothing(registry: BackendRegistry) -> None:
    first = registry.get("polystore_memory")
    registry.discover()
    assert registry.get("polystore_memory") is first
    assert registry.unavailable == []


@pytest.fixture
def disk(registry: BackendRegistry, tmp_path: Path) -> StorageBackend:
    registry.configure("archive", "polystore_disk", {"root": tmp_path / "root"})
    backend = registry.get("archive")
    assert isinstance(backend, StorageBackend)
    return backend


def test_what_is_missing_is_not_found_though_polystore_says_value_error(disk: StorageBackend) -> None:
    with pytest.raises(ValueError, match="Error loading"):
        DiskStorageBackend().load("/nowhere/x.npy")
    with pytest.raises(NotFound):
        disk.load("x.npy")


def test_a_torn_file_is_corrupt(disk: StorageBackend, tmp_path: Path) -> None:
    disk.save(np.zeros(3), "x.npy")
    (tmp_path / "root" / "x.npy").write_bytes(b"torn")
    with pytest.raises(Corrupt, match=r"x\.npy"):
        disk.load("x.npy")


def test_nothing_is_overwritten_in_silence(disk: StorageBackend) -> None:
    disk.save({"a": 1}, "x.json")
    with pytest.raises(AlreadyExists):
        disk.save({"a": 2}, "x.json")
    assert disk.load("x.json") == {"a": 1}


def test_a_file_that_polystore_puts_under_another_name_is_refused(disk: StorageBackend) -> None:
    # Given that it writes a.npz as a.npz.npy
    with pytest.raises(Unsupported, match="another name"):
        disk.save(np.zeros(3), "a.npz")
    assert disk.list_dir(".") == []


def test_raw_instrument_files_can_be_read_back_though_polystore_has_no_reader(disk: StorageBackend) -> None:
    disk.save(b"\x00raw", "x.dm3")
    assert disk.load("x.dm3") == b"\x00raw"


def test_a_payload_of_none_does_not_become_a_directory(registry: BackendRegistry) -> None:
    backend = registry.get("polystore_memory")
    with pytest.raises(Unsupported, match="None"):
        backend.save(None, "x")


def test_zarr_keeps_arrays_and_says_what_it_cannot_do(registry: BackendRegistry, tmp_path: Path) -> None:
    registry.configure("arrays", "polystore_zarr", {"root": tmp_path / "root"})
    backend = registry.get("arrays")
    assert isinstance(backend, StorageBackend)
    plane = np.arange(300, 320, dtype="uint16").reshape(4, 5)
    # When an array is saved
    backend.save(plane, "plate/plane.tif")
    # Then it is there, and not replaced in silence
    assert np.array_equal(backend.load("plate/plane.tif"), plane)
    assert backend.is_file("plate/plane.tif")
    assert backend.list_files("plate") == [Path("plate/plane.tif")]
    with pytest.raises(AlreadyExists):
        backend.save(plane, "plate/plane.tif")
    with pytest.raises(NotFound):
        backend.load("plate/other.tif")
    # And what it would lose or change is refused
    for refused in (
        lambda: backend.save(b"raw", "x.dm3"), lambda: backend.save_batch([plane, plane], ["a.tif", "b.tif"]),
        lambda: backend.save(plane, "plate/plane.tif", if_exists="replace"),
        lambda: backend.move("plate/plane.tif", "b.tif"), lambda: backend.create_symlink("plate/plane.tif", "c.tif"),
    ):  # fmt: skip
        with pytest.raises(Unsupported, match="polystore_zarr"):
            refused()
    backend.delete("plate/plane.tif")
    assert not backend.exists("plate/plane.tif")


def test_a_viewers_stream_says_what_it_wants_with_every_call(registry: BackendRegistry) -> None:
    registry.discover(explicit=["polystore.napari_stream:NapariStreamingBackend"])
    assert "polystore_napari_stream" in registry.names
    registry.configure("window", "polystore_napari_stream", {"deadline": 0.5})
    backend = registry.get("window")
    with pytest.raises(Unsupported, match="stream_request"):
        backend.save(np.zeros((4, 4), "uint16"), "plane.tif")
    with pytest.raises(Unsupported):
        backend.save("text", "plane.tif")
    # And a headless worker leaves it out
    registry.discover(profile="headless")
    assert "polystore_napari_stream" not in registry.names
