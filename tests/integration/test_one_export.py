"""One export, end to end, through a real Redis server and a real worker process."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from labrelay.errors import ExportConflict
from labrelay.results import DeliveryState, ExportState

pytestmark = pytest.mark.integration


def test_a_session_reaches_disk_byte_for_byte_with_a_true_manifest(lab):
    # Given a worker with an archive on disk
    archive = lab.folder / "archive"
    lab.destinations["archive"] = {"type": "disk", "root": str(archive)}
    lab.write_settings()
    lab.start_worker()
    context = lab.session(files=3)

    # When the session is submitted
    with lab.client() as client:
        submission = client.submit(context)
    status = lab.finished(submission.export_id)

    # Then record and files are there as they were, and the manifest tells the truth about them
    assert status.state is ExportState.DELIVERED
    manifest_path = next(archive.rglob("manifest.json"))
    manifest = json.loads(manifest_path.read_text())
    assert len(manifest["files"]) == 4
    for entry in manifest["files"]:
        stored, source = (manifest_path.parent / entry["path"]).read_bytes(), Path(entry["source"]).read_bytes()
        assert stored == source
        assert hashlib.sha256(stored).hexdigest() == entry["sha256"]
        assert len(stored) == entry["size"]


def test_submitting_the_same_session_twice_delivers_it_once(lab):
    # Given a delivered session
    lab.recorder("one")
    lab.start_worker()
    with lab.client() as client:
        first = client.submit(lab.session())
        lab.finished(first.export_id)

        # When it is submitted again
        second = client.submit(lab.session())

    # Then it is the same export, and nothing was sent again
    assert second.is_duplicate
    assert second.export_id == first.export_id
    assert len(lab.events(event="accepted")) == 1


def test_a_changed_record_is_a_conflict_until_it_replaces_the_first(lab):
    # Given a delivered session whose record changed since
    lab.recorder("one")
    lab.start_worker()
    with lab.client() as client:
        first = client.submit(lab.session())
        lab.finished(first.export_id)
        changed = lab.session()
        changed.xml_file_path.write_text("<other/>")

        # When it is submitted as it is, then it is refused with the cure
        with pytest.raises(ExportConflict, match="--replace"):
            client.submit(changed)

        # When it replaces the first, then revision 2 is delivered
        second = client.submit(changed, replace=True)
    status = lab.finished(second.export_id)
    assert (second.outcome, status.revision, status.state) == ("replaced", 2, ExportState.DELIVERED)
    assert [event["revision"] for event in lab.events(event="accepted")] == [1, 2]


def test_a_failing_destination_is_retried_alone(lab):
    # Given two destinations, one of which fails for now
    broken = lab.folder / "broken"
    broken.touch()
    lab.recorder("steady", priority=90)
    lab.recorder("shaky", priority=10, fail_while=broken)
    lab.start_worker()
    with lab.client() as client:
        export_id = client.submit(lab.session()).export_id

    # When it recovers after two attempts
    lab.wait_until(lambda: len(lab.events(event="export", name="shaky")) >= 2)
    broken.unlink()
    status = lab.finished(export_id)

    # Then it is delivered too, and the other was asked once
    assert status.state is ExportState.DELIVERED
    assert len(lab.events(event="export", name="steady")) == 1


def test_first_success_stops_at_the_first_that_takes_it(lab):
    # Given three destinations of which the first fails
    broken = lab.folder / "broken"
    broken.touch()
    lab.recorder("first", priority=90, fail_while=broken)
    lab.recorder("second", priority=50)
    lab.recorder("third", priority=10)
    lab.start_worker()

    # When a session is submitted for the first success
    with lab.client() as client:
        export_id = client.submit(lab.session(), "first_success").export_id
    status = lab.finished(export_id)

    # Then the second has it and the others are not needed
    states = {delivery.destination: delivery.state for delivery in status.deliveries}
    assert states == {
        "first": DeliveryState.SKIPPED,
        "second": DeliveryState.DELIVERED,
        "third": DeliveryState.SKIPPED,
    }


def test_many_sessions_travel_in_few_wake_ups(lab):
    # Given no worker yet
    lab.recorder("one")
    contexts = [lab.session(number) for number in range(150)]

    # When 150 sessions are submitted at once
    with lab.client() as client:
        submissions = client.submit_many(contexts)
        waiting = client.ledger._redis.llen("labrelay:labrelay.exports")

        # Then three messages name them all, and a worker delivers each once
        assert waiting == 3
        lab.start_worker()
        for submission in submissions:
            assert client.wait(submission.export_id, 60).state is ExportState.DELIVERED
    assert len(lab.events(event="accepted")) == 150


def test_a_cancelled_export_is_not_sent(lab):
    # Given an export that no worker has taken
    lab.recorder("one")
    with lab.client() as client:
        export_id = client.submit(lab.session()).export_id

        # When it is cancelled before a worker starts
        assert client.cancel(export_id) == "cancelled"
        lab.start_worker()
        other = client.submit(lab.session(2)).export_id
        client.wait(other, 30)

        # Then it stays cancelled and nothing of it was sent
        assert client.status(export_id).state is ExportState.CANCELLED
    assert [event["id"] for event in lab.events(event="export")] == [other]
