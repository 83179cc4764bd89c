"""Every backend of the project keeps the contract; viewers and object stores do so in tests/integration."""

from __future__ import annotations

from pathlib import Path

from labrelay_worker.backends.disk import DiskBackend
from labrelay_worker.backends.memory import MemoryBackend
from labrelay_worker.backends.zarr import ZarrBackend
from labrelay_worker.conformance.backends import StorageConformance


class TestDisk(StorageConformance):
    def make(self, folder: Path) -> DiskBackend:
        return DiskBackend(root=folder)


class TestMemory(StorageConformance):
    def make(self, folder: Path) -> MemoryBackend:
        return MemoryBackend()


class TestZarr(StorageConformance):
    array_name = "plane.ome.zarr"

    def make(self, folder: Path) -> ZarrBackend:
        return ZarrBackend(folder)
