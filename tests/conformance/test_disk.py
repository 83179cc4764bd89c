"""The backend `disk`, used as a destination, holds the contract."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from labrelay.context import ExportContext
from labrelay_worker.backends.registry import backend_registry
from labrelay_worker.conformance.destinations import DestinationConformance, Kept, Server
from labrelay_worker.destinations.backend import MANIFEST, BackendDestination, BackendOptions


class TestDisk(DestinationConformance):
    def make(self, url: str) -> BackendDestination:
        name = f"conformance:{url}"
        backend_registry().configure(name, "disk", {"root": url, "create_root": False})
        return BackendDestination("archive", BackendOptions(backend=name))

    @pytest.fixture
    def server(self, tmp_path: Path) -> Server:
        root = tmp_path / "archive"
        root.mkdir()

        def kept(context: ExportContext) -> list[Kept]:
            found = []
            for path in root.rglob(MANIFEST):
                manifest = json.loads(path.read_bytes())
                if manifest["export_id"] == context.export_id:
                    found.append(Kept((path.parent / manifest["files"][0]["path"]).read_bytes()))
            return found

        return Server(str(root), kept)

    @property
    def dead_url(self) -> str:
        return "/share/that/is/not/mounted"
