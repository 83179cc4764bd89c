"""What is delivered is what was submitted, or the export says why not."""

from __future__ import annotations

import os
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


def test_a_share_that_hangs_holds_up_only_the_exports_that_need_it(lab):
    # Given more sessions than this machine has processors, whose records lie on a share that does not answer
    lab.recorder("one")
    lab.options["call_timeout"] = 1
    lab.write_settings()
    hung = [lab.session(number) for number in range(1, 17)]
    with lab.client() as client:
        ids = [client.submit(context).export_id for context in hung]
        for context in hung:
            context.xml_file_path.rename(context.xml_file_path.with_suffix(".kept"))
            os.mkfifo(context.xml_file_path)  # opening it waits for a writer that never comes
        lab.start_worker()
        lab.wait_until(lambda: all("has not answered" in error_of(client, i) for i in ids), what="all of them hang")

        # When another session is submitted, then it is delivered meanwhile
        assert client.wait(client.submit(lab.session(100)).export_id, 30).state is ExportState.DELIVERED

        # And when the share answers again, so are the others, once each
        for context in hung:
            release(context.xml_file_path, context.xml_file_path.with_suffix(".kept"))
        assert {client.wait(i, 60).state for i in ids} == {ExportState.DELIVERED}
        assert len(lab.events(event="accepted")) == 17


def error_of(client, export_id: str) -> str:
    return next((d.error_message or "" for d in client.status(export_id).deliveries), "")


def release(fifo: Path, kept: Path) -> None:
    """Put the record back, and let whoever waits to read it have its content."""
    content = kept.read_bytes()
    waiting = os.open(fifo, os.O_RDWR)
    kept.replace(fifo)
    os.write(waiting, content)
    os.close(waiting)
