"""The native destinations of the three repositories hold the contract."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from repositories import Cdcs, Elabftw, LabArchives, Repository

from labrelay_worker.conformance.destinations import HttpDestinationConformance, Server


class RepositoryConformance(HttpDestinationConformance):
    kind: type[Repository]
    #: Options that make its own limit small.
    small: ClassVar[dict[str, Any]] = {}

    @pytest.fixture
    def server(self) -> Iterator[Server]:
        self.repository = self.kind()
        with self.repository.serving() as server:
            yield server

    def make(self, url: str) -> Any:
        return self.repository.destination(url, timeout=5, **self.small)


class TestCdcs(RepositoryConformance):
    kind = Cdcs
    small: ClassVar = {"max_record_mib": 1}
    too_large = 2**20


class TestElabftw(RepositoryConformance):
    kind = Elabftw
    small: ClassVar = {"max_upload": "1MiB"}
    too_large = 2**20


class TestLabArchives(RepositoryConformance):
    kind = LabArchives
    too_large = 2**20

    @pytest.fixture
    def server(self) -> Iterator[Server]:
        self.repository = LabArchives()
        self.repository.server.store.users[0].max_file_size = 2**20
        with self.repository.serving() as server:
            yield server
