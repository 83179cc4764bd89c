"""The zarr backend keeps the contract of every backend on an object store, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from s3 import s3, s3_service

from labrelay_worker.backends.zarr import ZarrBackend
from labrelay_worker.conformance.backends import StorageConformance

__all__ = ["s3", "s3_service"]
pytestmark = pytest.mark.integration


class TestZarrOnS3(StorageConformance):
    array_name = "plane.ome.zarr"
    refused_names = frozenset({"new\nline.bin"})

    @pytest.fixture(autouse=True)
    def _service(self, s3: dict[str, Any]) -> None:
        self.options = s3

    def make(self, folder: Path) -> ZarrBackend:
        return ZarrBackend(**self.options)
