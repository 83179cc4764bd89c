"""A worker killed at any request of a delivery to S3: nothing half visible, and the next delivery makes it whole."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from s3 import CREDENTIALS, Service, s3, s3_service
from signals import counts, write_mrc
from zarr_writers import deliver, destination

from labrelay.context import ExportContext
from labrelay.manifest import make_manifest
from labrelay.settings import ProducerSettings
from labrelay_worker.backends.zarr import ZarrBackend

__all__ = ["s3", "s3_service"]
pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

FOLDER = "FEI-Titan/2026-11-20/session-1"
PLATE = "FEI-Titan/plates/screen.ome.zarr"
IMAGES = {"image": f"{FOLDER}/images/tilt.mrc.ome.zarr", "well": f"{PLATE}/B/3/0"}
#: What a delivery writes besides the image.
FILES = {f"{FOLDER}/record.xml", f"{FOLDER}/files/notes.txt", f"{FOLDER}/manifest.json"}
#: Two revisions of one session, the second with more pixels.
SHAPES = {1: (3, 40, 50), 2: (4, 60, 70)}


@pytest.fixture(scope="module")
def processes() -> Any:
    context = multiprocessing.get_context("forkserver")
    # By the names of installed modules: the server does not know the tests' folders.
    ours = "labrelay_worker.destinations.backend", "labrelay_worker.backends.ngff.stored", "labrelay.manifest"
    theirs = "pytest", "rsciio.mrc", "zarr.storage", "yaozarrs", "obstore.store", "google_crc32c", "numcodecs"
    context.set_forkserver_preload([*ours, "labrelay_worker.backends.zarr", *theirs])
    return context


@pytest.fixture
def kill(s3_service: Service) -> Iterator[Callable[[Any, int], None]]:
    """Return what kills a process when the service has its changing request of this number, which is then lost."""

    def at(writer: Any, step: int) -> None:
        remaining = iter(range(step - 1))

        def opening() -> None:
            if next(remaining, None) is None:
                os.kill(writer.pid, signal.SIGKILL)
                wait([writer.sentinel])  # not joined: only one thread may ask for the exit code
                raise ConnectionError("nobody is there to hear the answer")

        s3_service.gate.opening = opening

    yield at
    s3_service.gate.opening = None


@pytest.fixture
def revisions(tmp_path: Path) -> Callable[[str], dict[int, ExportContext]]:
    """Return a function that writes a session twice, as submitted and as submitted again with other pixels."""

    def build(kind: str) -> dict[int, ExportContext]:
        found = {}
        for revision, shape in SHAPES.items():
            folder = tmp_path / str(revision)
            folder.mkdir()
            (folder / "record.xml").write_text("<Experiment/>")
            (folder / "notes.txt").write_text("as it is")
            write_mrc(folder / "tilt.mrc", counts(shape, seed=revision), 0.5)
            context = ExportContext.parse(
                {
                    "xml_file_path": str(folder / "record.xml"),
                    "session_identifier": "session-1",
                    "instrument_pid": "FEI-Titan",
                    "dt_from": "2026-11-20T10:00:00+01:00",
                    "dt_to": "2026-11-20T11:00:00+01:00",
                    "activities": [{"files": [str(folder / "tilt.mrc"), str(folder / "notes.txt")]}],
                    "metadata": {"plate": {"name": "screen", "wells": {"tilt.mrc": "B03"}}} if kind == "well" else {},
                }
            )
            submitted = make_manifest(context, ProducerSettings(settle_seconds=0)).context
            found[revision] = submitted if revision == 1 else submitted.of_revision(revision, {})
        return found

    return build


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("kind", "first"), [("well", True), ("image", False)], ids=["first well of a plate", "replacement of an image"]
)
def test_a_delivery_killed_at_any_request_is_whole_after_the_next(
    s3: dict[str, Any], s3_service: Service, processes: Any, revisions: Any, kill: Any, kind: str, first: bool
) -> None:
    contexts, address = revisions(kind), IMAGES[kind]
    pixels = {revision: counts(shape, seed=revision) for revision, shape in SHAPES.items()}
    states = set[int]()
    for step in itertools.count(1):
        # Given an empty store, or one with the revision before
        options = {**s3, "root": f"{s3['root']}/{step}"}
        store, backend = destination(options), ZarrBackend(**options)
        if not first:
            store.export(contexts[1])
        # When a worker is killed while the service has its next request
        writer = processes.Process(target=deliver, args=(CREDENTIALS, options, contexts[2]))
        kill(writer, step)
        writer.start()
        writer.join()
        s3_service.gate.opening = None
        # Then the image is the old one or the new one, whole, or not there, and nothing else is seen
        visible = {str(path) for path in backend.list_files(".", recursive=True)}
        assert visible <= FILES | {address}
        assert visible >= (set() if first else FILES | {address})
        state = 0
        if address in visible:
            found = backend.load(address)
            state = 1 if found.shape == SHAPES[1] else 2
            assert np.array_equal(found, pixels[state])
        states.add(state)
        # And the delivery is said to be complete only if it is
        assert (store.find(contexts[2]) is not None) == (writer.exitcode == 0)
        # And the next one makes it whole, once, and leaves no pixels that nothing names
        assert store.export(contexts[2]).success
        assert {str(path) for path in backend.list_files(".", recursive=True)} == FILES | {address}
        assert np.array_equal(backend.load(address), pixels[2])
        assert len(generations(backend, address)) <= 2 - first
        if writer.exitcode == 0:
            break
        assert writer.exitcode == -signal.SIGKILL
    # The kills were before and after the request that makes it visible
    print(f"{step - 1} requests")
    assert step > 10
    assert states == ({0, 2} if first else {1, 2})


def generations(backend: ZarrBackend, address: str) -> set[str]:
    """Return which writings have pixels at an address: the image's own, and that of the one before it."""
    names = backend._images.images.sizes(address)
    return {name.partition("-")[0] for name in names if "/c/" in name}
