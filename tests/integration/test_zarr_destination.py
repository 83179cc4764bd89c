"""Sessions delivered as OME-Zarr: from the context, through a real worker, to images that others open."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from s3 import s3, s3_service
from signals import counts, shared_sessions, validate, write_mrc

from labrelay.context import ExportContext
from labrelay.errors import Rejected
from labrelay.inputs import read_contexts
from labrelay.manifest import make_manifest
from labrelay.results import ExportState
from labrelay.settings import ProducerSettings
from labrelay_worker.backends.registry import backend_registry
from labrelay_worker.backends.zarr import ZarrBackend
from labrelay_worker.destinations.backend import BackendDestination, BackendOptions

__all__ = ["s3", "s3_service"]
pytestmark = pytest.mark.integration

Make = Callable[..., BackendDestination]


@pytest.fixture
def make_store() -> Make:
    """Return a function that makes a zarr destination of its own."""
    made: list[int] = []

    def make(**options: Any) -> BackendDestination:
        made.append(1)
        name = f"zarr-test-{id(made)}-{len(made)}"
        backend_registry().discover()
        backend_registry().configure(name, "zarr", options)
        return BackendDestination("store", BackendOptions(backend=name))

    return make


@pytest.fixture
def session(tmp_path: Path) -> Callable[..., ExportContext]:
    """Return a function that writes a session of a tomogram, notes and a damaged file, as it is submitted."""

    def build(number: int = 1, **fields: Any) -> ExportContext:
        folder = tmp_path / f"data-{number}"
        folder.mkdir(exist_ok=True)
        (folder / "record.xml").write_text(f"<Experiment>{number}</Experiment>")
        if not (folder / "tilt.mrc").exists():
            write_mrc(folder / "tilt.mrc", counts((3, 40, 50), seed=number), 0.5)
            (folder / "notes.txt").write_text("as it is")
            (folder / "torn.dm3").write_bytes(b"\x00\x00\x00\x03 torn")
        given = {
            "xml_file_path": str(folder / "record.xml"),
            "session_identifier": f"session-{number}",
            "instrument_pid": "FEI-Titan",
            "dt_from": "2026-11-20T10:00:00+01:00",
            "dt_to": "2026-11-20T11:00:00+01:00",
            "activities": [{"files": [str(folder / n) for n in ("tilt.mrc", "notes.txt", "torn.dm3")]}],
        }
        context = ExportContext.parse(given | fields)
        return make_manifest(context, ProducerSettings(settle_seconds=0)).context

    return build


def test_a_worker_delivers_images_and_everything_else_beside_them(lab: Any, session: Any) -> None:
    # Given a worker with a store
    store = lab.folder / "store"
    lab.destinations["store"] = {"type": "zarr", "root": str(store), "originals": False}
    lab.write_settings()
    lab.start_worker()
    # When a session with an image, notes and a damaged file is submitted
    with lab.client() as client:
        export_id = client.submit(session()).export_id
    status = lab.finished(export_id)
    # Then the image is an image, and the rest is there byte for byte
    assert status.state is ExportState.DELIVERED
    folder = store / "FEI-Titan/2026-11-20/session-1"
    backend = ZarrBackend(store)
    assert np.array_equal(backend.load(folder / "images/tilt.mrc.ome.zarr"), counts((3, 40, 50), seed=1))
    assert (folder / "files/notes.txt").read_text() == "as it is"
    assert (folder / "record.xml").read_text() == "<Experiment>1</Experiment>"
    assert not (folder / "files/tilt.mrc").exists()
    validate(folder / "images/tilt.mrc.ome.zarr")
    # And the receipt says which files are no images, and why
    (delivery,) = status.deliveries
    told = delivery.receipt.metadata
    assert (told["images"], told["delivered_as_bytes"]) == (1, 2)
    assert "files/notes.txt: there is no reader for .txt" in told["not_an_image"]
    assert "files/torn.dm3: DigitalMicrograph" in told["not_an_image"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("where", ["folder", "s3"])
def test_a_lost_answer_is_found_and_not_sent_again(
    make_store: Make, session: Any, tmp_path: Path, where: str, request: pytest.FixtureRequest
) -> None:
    options = {"root": tmp_path / "store"} if where == "folder" else request.getfixturevalue("s3")
    store, context = make_store(**options), session()
    # Given nothing there, nothing is found
    assert store.find(context) is None
    # When it was delivered, then it is found with the same words, and sending again changes nothing
    sent = store.export(context)
    found = store.find(context)
    assert found is not None
    assert (found.record_id, found.record_url, found.metadata) == (sent.record_id, sent.record_url, sent.metadata)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.joinpath("store").rglob("*")}
    assert store.export(context).success
    assert {p: p.stat().st_mtime_ns for p in tmp_path.joinpath("store").rglob("*")} == before
    # And another revision, or a damaged image, is not taken for it
    assert store.find(context.of_revision(2, {})) is None
    backend: Any = store._backend()
    address = f"{sent.record_id}/images/tilt.mrc.ome.zarr"
    backend.delete(address)
    assert store.find(context) is None
    store.export(context)
    assert np.array_equal(backend.load(address), counts((3, 40, 50), seed=1))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_file_that_changed_since_is_refused(make_store: Make, session: Any, tmp_path: Path) -> None:
    context = session()
    write_mrc(tmp_path / "data-1/tilt.mrc", counts((3, 40, 50), seed=9), 0.5)
    with pytest.raises(Rejected, match="changed since it was submitted"):
        make_store(root=tmp_path / "store").export(context)
    assert not list((tmp_path / "store").rglob("*.zarr"))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_sessions_fill_the_plate_they_name(make_store: Make, session: Any, tmp_path: Path) -> None:
    # Given two sessions of one plate, of a well each
    store = make_store(root=tmp_path / "store", originals=True)
    for number, well in ((1, "A01"), (2, "H12")):
        plate = {"name": "Screen 7/3", "rows": 8, "columns": 12, "wells": {"tilt.mrc": well}}
        result = store.export(session(number, metadata={"plate": plate}))
        assert result.success
    # Then the plate is beside the sessions' folders, declared as it is
    (folder,) = (tmp_path / "store/FEI-Titan/plates").iterdir()
    plate = dict(zarr.open_group(folder, mode="r").attrs)["ome"]["plate"]
    assert (plate["name"], len(plate["rows"]), len(plate["columns"])) == ("Screen 7/3", 8, 12)
    assert [well["path"] for well in plate["wells"]] == ["A/1", "H/12"]
    assert np.array_equal(zarr.open_group(folder, mode="r")["H/12/0/0"][...], counts((3, 40, 50), seed=2))
    validate(folder)
    # And each session's manifest says where its image is, and its original beside
    assert store.find(session(2, metadata={"plate": plate | {}})) is not None
    manifest = json.loads((tmp_path / "store/FEI-Titan/2026-11-20/session-1/manifest.json").read_text())
    (entry,) = [entry for entry in manifest["files"] if "signal" in entry]
    assert entry["address"].endswith(".ome.zarr/A/1/0")
    assert (tmp_path / "store/FEI-Titan/2026-11-20/session-1/files/tilt.mrc").is_file()


def test_real_sessions_are_what_rosettasciio_reads(make_store: Make, tmp_path: Path) -> None:
    # Given real sessions of DigitalMicrograph files
    root = shared_sessions(tmp_path / "sessions")
    from rsciio.digitalmicrograph import file_reader

    store, seen = make_store(root=tmp_path / "store"), 0
    backend: Any = store._backend()
    for document in sorted((root / "contexts").glob("*.json")):
        for context in read_contexts(str(document), root=root, limit=1 << 24):
            # When they are delivered
            result = store.export(make_manifest(context, ProducerSettings(settle_seconds=0)).context)
            assert result.metadata["delivered_as_bytes"] == 0
            manifest = backend.load(f"{result.record_id}/manifest.json")
            # Then every signal is equal to what rosettasciio reads, with the pixel size of the file
            for entry in (entry for entry in manifest["files"] if "signal" in entry):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    signal = file_reader(entry["source"])[entry["signal"]]
                folder = tmp_path / "store" / entry["address"]
                group = zarr.open_group(folder, mode="r")
                assert np.array_equal(group["0"][...], signal["data"])
                assert group["0"].dtype == signal["data"].dtype
                multiscale = dict(group.attrs)["ome"]["multiscales"][0]
                scale = multiscale["datasets"][0]["coordinateTransformations"][0]["scale"]
                assert scale == [float(axis["scale"]) for axis in signal["axes"]]
                units = [axis.get("unit") for axis in multiscale["axes"]]
                assert units == [{"nm": "nanometer"}.get(axis["units"]) for axis in signal["axes"]]
                validate(folder)
                seen += 1
    assert seen == 12
