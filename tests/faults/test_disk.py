"""Disks that are full, read-only or lose a file: the delivery waits, says why, and completes when it is repaired."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from disks import fill, small_file_system

from labrelay.results import ExportState

pytestmark = [pytest.mark.faults, pytest.mark.integration]


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system of 256 KiB."""
    with small_file_system(tmp_path / "small", "256k") as folder:
        yield folder


def error_of(lab, export_id: str) -> str:
    with lab.client() as client:
        deliveries = client.status(export_id).deliveries
    return (deliveries[0].error_message or "") if deliveries else ""


def test_a_full_disk_keeps_what_was_there_and_is_tried_again(lab, small_disk):
    # Given an archive that has delivered one session and then fills up
    lab.destinations["archive"] = {"type": "disk", "root": str(small_disk / "archive")}
    lab.write_settings()
    lab.start_worker()
    with lab.client() as client:
        first = client.submit(lab.session(1)).export_id
        client.wait(first, 30)
        before = {path: path.read_bytes() for path in (small_disk / "archive").rglob("*") if path.is_file()}
        filler = small_disk / "filler"
        fill(filler)

        # When another session is submitted
        second = client.submit(lab.session(2, files=20)).export_id
        lab.wait_until(lambda: "disk is full" in error_of(lab, second), 30, "the disk is full")

        # Then the first is whole and nothing half-written is to be seen
        assert {path: path.read_bytes() for path in before} == before
        assert not [p for p in (small_disk / "archive").rglob("manifest.json") if p not in before]

        # And when there is room again, it completes
        filler.unlink()
        assert client.wait(second, 60).state is ExportState.DELIVERED


def test_a_file_that_went_away_is_waited_for(lab):
    # Given an accepted session of which a file is gone, as when a share is not mounted
    lab.destinations["archive"] = {"type": "disk", "root": str(lab.folder / "archive")}
    lab.write_settings()
    context = lab.session()
    image = Path(context.activities[0].files[0])
    with lab.client() as client:
        export_id = client.submit(context).export_id
        image.rename(image.with_suffix(".away"))
        lab.start_worker()
        lab.wait_until(lambda: "is not there" in error_of(lab, export_id))

        # When it is back, then the export completes
        image.with_suffix(".away").rename(image)
        assert client.wait(export_id, 60).state is ExportState.DELIVERED


def test_a_read_only_disk_is_named_and_tried_again(lab, small_disk):
    # Given an archive on a file system that is mounted read-only
    lab.destinations["archive"] = {"type": "disk", "root": str(small_disk / "archive")}
    lab.write_settings()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    lab.start_worker()
    with lab.client() as client:
        export_id = client.submit(lab.session()).export_id
        lab.wait_until(lambda: "read-only" in error_of(lab, export_id))

        # When it is writable again, then the export completes
        subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
        assert client.wait(export_id, 60).state is ExportState.DELIVERED
