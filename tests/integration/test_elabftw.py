"""Sessions on their way to eLabFTW through a real Redis server and real worker processes."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from elab import CDCS_URL, Elab, elab_server
from tests.servers.elabftw import ARCHIVED, NORMAL
from tests.servers.elabftw_calls import WRITER

from labrelay.context import ExportContext
from labrelay.results import ExportState
from labrelay_worker.conformance.faults import Fault

pytestmark = pytest.mark.integration

SHARED = Path(__file__).parents[3] / "shared" / "data" / "sessions.tar.xz"


@pytest.fixture
def elab() -> Iterator[Elab]:
    with elab_server() as elab:
        yield elab


@pytest.fixture
def configured(lab, elab):
    """Return a lab whose worker delivers to eLabFTW, with the key in the environment."""
    lab.destinations["elabftw"] = {"url": elab.url, "timeout": 10}
    lab.environment["LABRELAY_DESTINATIONS__ELABFTW__API_KEY"] = WRITER
    lab.write_settings()
    return lab


def test_a_session_arrives_and_its_next_revision_changes_it_in_place(configured, elab):
    # Given a delivered session
    lab = configured
    lab.start_worker()
    with lab.client() as client:
        first = lab.finished(client.submit(lab.session()).export_id)
        assert first.state is ExportState.DELIVERED
        (delivery,) = first.deliveries
        assert delivery.receipt.verified == "read back: revision 1, record-1.xml attached, same sha256"
        record = lab.session().xml_file_path.read_bytes()
        assert elab.server.content(1) == {"record-1.xml": record}

        # When it is submitted again with another record
        changed = lab.session()
        changed.xml_file_path.write_bytes(record + b"<!-- corrected -->\r\n")
        second = lab.finished(client.submit(changed, replace=True).export_id)

    # Then the same experiment holds the new one, and the old one is archived
    assert (second.state, second.revision) == (ExportState.DELIVERED, 2)
    assert elab.server.content(1) == {"record-1.xml": record + b"<!-- corrected -->\r\n"}
    assert elab.value("labrelay revision") == "2"
    assert [upload["state"] for upload in elab.server.uploads.values()] == [ARCHIVED, NORMAL]


def test_lost_answers_make_one_experiment(configured, elab):
    # Given a server whose answers to what makes things are lost
    lab = configured
    elab.server.faults.plan(
        Fault("close", after=True, method="POST", path="experiments$"),
        Fault("close", after=True, method="POST", path="uploads$"),
    )
    lab.start_worker()

    # When a session is submitted
    with lab.client() as client:
        export_id = client.submit(lab.session()).export_id
        status = lab.finished(export_id)
        trail = [entry.detail for entry in client.trail(export_id)]

    # Then it is there once, and the key of the account is nowhere
    assert status.state is ExportState.DELIVERED
    assert len(elab.server.experiments) == len(elab.server.uploads) == 1
    assert elab.only
    assert WRITER not in json.dumps(trail) + lab.workers[0].output() + status.model_dump_json()


def test_an_experiment_that_went_out_first_gets_its_link_when_the_record_is_there(configured, elab):
    # Given a repository that fails for longer than the notebook waits
    lab = configured
    failing = lab.folder / "cdcs-fails"
    failing.touch()
    lab.options["link_wait"] = 0.5
    lab.recorder("cdcs", 100, fail_while=failing, record_url=CDCS_URL)
    lab.start_worker()
    with lab.client() as client:
        export_id = client.submit(lab.session()).export_id
        lab.wait_until(elab.server.alive, what="the notebook goes out unlinked")

        # When the repository takes the record, then the experiment shows where it is
        failing.unlink()
        status = client.wait(export_id, 60)
    assert status.state is ExportState.DELIVERED
    assert elab.value("CDCS Record") == CDCS_URL
    assert len(elab.server.experiments) == 1


@pytest.mark.skipif(not SHARED.exists(), reason="the shared sessions are not at hand")
def test_real_sessions_arrive_byte_for_byte_with_their_previews(configured, elab):
    # Given real sessions
    lab = configured
    lab.destinations["elabftw"]["attach_previews"] = True
    lab.write_settings()
    with tarfile.open(SHARED) as archive:
        archive.extractall(lab.folder, filter="data")
    folder = next(lab.folder.rglob("contexts")).parent
    lab.start_worker()
    contexts = []
    for path in sorted((folder / "contexts").glob("*.json")):
        text = path.read_text()
        contexts.append(_below(json.loads(text), folder))

    # When they are submitted
    with lab.client() as client:
        for submission in client.submit_many(contexts):
            assert lab.finished(submission.export_id).state is ExportState.DELIVERED

    # Then every record and preview is as it was
    assert elab.server.violations == []
    assert len(elab.server.alive()) == len(contexts) > 1
    for entry in elab.server.alive():
        stem = entry["title"].removeprefix("NexusLIMS Experiment - ")
        context = next(one for one in contexts if one.xml_file_path.stem == stem)
        sent = {context.xml_file_path} | {p for a in context.activities for p in a.previews if p is not None}
        assert elab.server.content(entry["id"]) == {path.name: path.read_bytes() for path in sent}


def _below(document, folder: Path) -> ExportContext:
    """Return a context with its relative paths below a folder."""

    def absolute(path):
        return None if path is None else str(folder / path)

    document["xml_file_path"] = absolute(document["xml_file_path"])
    for activity in document["activities"]:
        for kind in ("files", "previews"):
            activity[kind] = [absolute(path) for path in activity.get(kind, [])]
    return ExportContext.parse(document)
