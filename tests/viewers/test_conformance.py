"""The viewer backends keep the contract of a stream with real viewers, a new one after each that showed something."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from real_viewers import Viewer, display_of, end, launch, require
from screen import open_screen
from seeing import BACKENDS

from labrelay_worker.backends.streaming import ViewerBackend
from labrelay_worker.conformance.backends import StreamConformance
from labrelay_worker.viewers.places import Place

pytestmark = [pytest.mark.timeout(300), pytest.mark.integration]


class _RealViewer(StreamConformance):
    kind: ClassVar[str]
    bound = 60.0
    home: ClassVar[Path]
    environment: ClassVar[dict[str, str]]
    running: ClassVar[Viewer | None] = None

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _display(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        require(cls.kind)
        folder = tmp_path_factory.mktemp(cls.kind)
        cls.home = folder / "home"
        with open_screen(folder) as screen:
            cls.environment = os.environ | display_of(screen, folder) | {"LABRELAY_HOME": str(cls.home)}
            yield
            if cls.running is not None:
                end(cls.running)

    @pytest.fixture(autouse=True)
    def _viewer(self, _display: None) -> Iterator[None]:
        cls, self.made = type(self), list[ViewerBackend]()
        if cls.running is None:
            cls.running = launch(self.kind, environment=cls.environment, log=cls.home.parent / "viewer.log")
        yield
        if any(backend.totals.offered for backend in self.made):
            # It was asked to close, and may be about to; the next test has another one.
            end(cls.running)
            Place.of(self.kind, cls.home).note_file.unlink(missing_ok=True)
            cls.running = None

    def make(self, folder: Path) -> ViewerBackend:
        self.made.append(BACKENDS[self.kind](start="never", patience=30.0, stall=30.0, home=str(self.home)))
        return self.made[-1]

    def test_an_image_is_on_the_screen_when_saving_returns(self, backend: ViewerBackend) -> None:
        # With a viewer that is there, saving does not end in an error that says to try again
        backend.save_batch([self.payload(1), self.payload(2)], ["a.tif", "b.tif"])
        assert str(backend.totals) == "2 of 2 displayed"


class TestNapari(_RealViewer):
    kind = "napari"


class TestImageJ(_RealViewer):
    kind = "imagej"
