"""Viewers among the destinations of a worker's settings."""

from __future__ import annotations

import asyncio

import pytest

from labrelay_worker.backends.registry import backend_registry
from labrelay_worker.destinations.registry import ExporterRegistry
from labrelay_worker.settings import load_worker_settings


@pytest.fixture
def registry_of():
    registries = []

    def build(**destinations) -> ExporterRegistry:
        registries.append(ExporterRegistry(load_worker_settings(destinations=destinations)))
        return registries[-1]

    yield build
    for registry in registries:
        asyncio.run(registry.close())
        registry.cleanup_backends()


def test_a_configured_viewer_is_lossy_and_leaves_disk_the_default(registry_of) -> None:
    # Given settings that name a viewer alone
    registry = registry_of(wall={"type": "napari_stream", "start": "never"})
    infos = {info.name: info for info in registry.infos()}
    # Then it runs beside the strategy, and sessions are still kept on disk
    assert (infos["wall"].lossy, infos["wall"].enabled) == (True, True)
    assert (infos["disk"].lossy, infos["disk"].enabled) == (False, True)
    assert not infos["fiji_stream"].enabled


def test_a_viewer_under_a_name_of_its_own_is_lossy_too(registry_of) -> None:
    backend_registry().configure("desk", "fiji_stream", {"viewer": "desk", "start": "never"})
    registry = registry_of(desk_view={"type": "backend", "backend": "desk"})
    assert {info.name: info.lossy for info in registry.infos()}["desk_view"]


def test_a_check_says_how_to_start_the_viewer(registry_of) -> None:
    registry = registry_of(wall2={"type": "napari_stream", "start": "never"})
    answers = asyncio.run(registry.check())
    assert answers["wall2"] == "no viewer 'napari' runs for this user; start one with `labrelay viewer napari`"


def test_an_option_that_a_viewer_does_not_have_is_refused_by_name(registry_of) -> None:
    registry = registry_of(wall3={"type": "napari_stream", "colour": "red"})
    info = {info.name: info for info in registry.infos()}["wall3"]
    assert "has no such option" in info.reason


def test_a_worker_without_a_display_leaves_viewers_out() -> None:
    registry = ExporterRegistry(load_worker_settings(worker_profile="headless"))
    assert not {"napari_stream", "fiji_stream"} & {info.name for info in registry.infos()}
    backend_registry().discover(profile="")
