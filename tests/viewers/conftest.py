"""Real viewers on a display of their own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from lab import lab
from real_viewers import Viewer, display_of, end, launch, require
from screen import Screen, open_screen

__all__ = ["lab"]


@pytest.fixture(params=["napari", "imagej"])
def kind(request) -> str:
    return request.param


@pytest.fixture
def screen(tmp_path, request, monkeypatch) -> Iterator[Screen]:
    """A display, when the viewer of this test can be had."""
    require(request.getfixturevalue("kind") if "kind" in request.fixturenames else "napari")
    folder = tmp_path / "screen"
    folder.mkdir()
    with open_screen(folder) as screen:
        for name, value in display_of(screen, folder).items():
            monkeypatch.setenv(name, value)
        yield screen


@pytest.fixture
def start_viewer(tmp_path, screen) -> Iterator[Callable[..., Viewer]]:
    """Return a function that starts a viewer and awaits it."""
    started: list[Viewer] = []

    def start(kind: str, *arguments: str) -> Viewer:
        log = tmp_path / f"viewer-{len(started)}.log"
        started.append(launch(kind, *arguments, environment=dict(os.environ), log=log))
        return started[-1]

    yield start
    for viewer in started:
        end(viewer)
