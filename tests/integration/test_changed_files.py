"""What is delivered is what was submitted, or the export says why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from labrelay.results import DeliveryState, ExportState

pytestmark = pytest.mark.integration


@pytest.fixture
def archive(lab):
    lab.destinations["archive"] = {"type": "disk", "root": str(lab.folder / "archive")}
    lab.write_settings()
    return lab.folder / "archive"


def refused(lab, context):
    with lab.client() as client:
        export_id = client.submit(context).export_id
        yield export_id
        status = client.wait(export_id, 60)
    assert status.state is ExportState.DEAD
    assert status.deliveries[0].state is DeliveryState.FAILED
    assert "changed since it was submitted" in status.deliveries[0].error_message


def test_a_record_that_changed_since_submit_is_refused(lab, archive):
    # Given an accepted session whose record changes before a worker sees it
    context = lab.session()
    for _ in refused(lab, context):
        context.xml_file_path.write_text("<changed/>")

        # When a worker takes it, then it is refused with the repair
        lab.start_worker()
    assert not list(archive.rglob("manifest.json"))


def test_a_file_that_changed_since_submit_is_refused(lab, archive):
    # Given an accepted session of which a data file changes
    context = lab.session()
    for _ in refused(lab, context):
        with Path(context.activities[0].files[0]).open("ab") as file:
            file.write(b"more")

        # When a worker takes it, then nothing of it looks complete
        lab.start_worker()
    assert not list(archive.rglob("manifest.json"))


def test_a_file_outside_the_data_roots_of_the_worker_is_never_opened(lab, archive):
    # Given a worker that may read one folder only
    context = lab.session()
    elsewhere = lab.folder / "elsewhere"
    elsewhere.mkdir()
    with lab.client() as client:
        export_id = client.submit(context).export_id

        # When the session lies in another
        lab.start_worker(LABRELAY_DATA_ROOTS=str(elsewhere))
        status = client.wait(export_id, 60)

    # Then it is refused by name
    assert "data_roots" in status.deliveries[0].error_message
    assert not archive.exists()
