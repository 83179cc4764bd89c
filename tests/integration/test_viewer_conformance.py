"""The viewer backends keep the contract of a stream: with a viewer that runs, that is away, and that hangs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from viewing import NotedCanvas, noted_viewer

from labrelay_worker.backends.fiji_stream import FijiStreamBackend
from labrelay_worker.backends.napari_stream import NapariStreamBackend
from labrelay_worker.backends.streaming import ViewerBackend
from labrelay_worker.conformance.backends import StreamConformance
from labrelay_worker.viewers.places import Place

pytestmark = pytest.mark.integration


class _Viewers(StreamConformance):
    cls: ClassVar[type[ViewerBackend]]

    def make(self, folder: Path) -> ViewerBackend:
        return self.cls(start="never", patience=1.0, stall=0.5, home=str(folder))


class _WithViewer(_Viewers):
    """A viewer that runs without a window."""

    @pytest.fixture(autouse=True)
    def _viewer(self, tmp_path: Path) -> Iterator[None]:
        with noted_viewer(Place.of(self.cls.viewer_kind, tmp_path / "backend")) as canvas:
            self.arrange(canvas)
            yield

    def arrange(self, canvas: NotedCanvas) -> None:
        """Leave the viewer as it is."""


class _WithHungViewer(_WithViewer):
    def arrange(self, canvas: NotedCanvas) -> None:
        canvas.goes_on.clear()


class TestNapari(_WithViewer):
    cls = NapariStreamBackend


class TestFiji(_WithViewer):
    cls = FijiStreamBackend


class TestNapariAway(_Viewers):
    cls = NapariStreamBackend


class TestFijiAway(_Viewers):
    cls = FijiStreamBackend


class TestNapariHung(_WithHungViewer):
    cls = NapariStreamBackend


class TestFijiHung(_WithHungViewer):
    cls = FijiStreamBackend
