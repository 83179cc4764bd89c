"""Exports beside a viewer that is killed or stopped: nothing else notices, and what was not shown is counted."""

from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest
from lab import wait_until

from labrelay.context import ExportContext
from labrelay.results import DeliveryState, ExportState

pytestmark = [pytest.mark.timeout(300), pytest.mark.integration]

TYPES = {"napari": "napari_stream", "imagej": "fiji_stream"}
PLANES = 12


def session_of_planes(lab, number: int) -> ExportContext:
    """Write a record and PLANES planes of 2048 x 2048 uint16."""
    context = lab.session(number, files=0)
    files = []
    for index in range(PLANES):
        path = lab.folder / "data" / str(number) / f"plane_{index:02}.npy"
        np.save(path, np.full((2048, 2048), 100 * index, "uint16"))
        files.append(str(path))
    given = json.loads(context.model_dump_json(exclude_none=True))
    given["activities"] = [{"start": None, "files": files, "previews": []}]
    return ExportContext.parse({key: given[key] for key in _FIELDS})


_FIELDS = ("xml_file_path", "session_identifier", "instrument_pid", "dt_from", "dt_to", "activities")


def deliveries(lab, context, **names):
    with lab.client() as client:
        submission = client.submit(context, **names)
    return submission.export_id


def manifest_files(root) -> int:
    return sum(len(json.loads(path.read_text())["files"]) for path in root.rglob("manifest.json"))


@pytest.fixture
def archive(lab, kind):
    """An archive on disk beside a viewer."""
    root = lab.folder / "archive"
    lab.destinations["archive"] = {"type": "disk", "root": str(root)}
    lab.destinations["screen"] = {"type": TYPES[kind], "start": "never", "patience": 30.0}
    lab.write_settings()
    return root


def test_a_session_is_archived_and_seen(lab, kind, screen, start_viewer, archive) -> None:
    # Given a worker with an archive and a viewer
    viewer = start_viewer(kind)
    lab.start_worker()
    # When a session of a stack is exported
    status = lab.finished(deliveries(lab, session_of_planes(lab, 1)))
    # Then it is archived, and the receipt of the viewer says how much was seen
    assert status.state is ExportState.DELIVERED
    assert status.summary == "1 of 1 delivered"
    screen_delivery = next(d for d in status.deliveries if d.destination == "screen")
    assert screen_delivery.receipt is not None, screen_delivery
    assert screen_delivery.receipt.verified == f"{PLANES} of {PLANES} displayed"
    assert screen_delivery.receipt.metadata["displayed"] == PLANES
    assert manifest_files(archive) == PLANES + 1
    items = json.loads(viewer.command("--status"))["items"]
    assert [item["name"].endswith("session-1 · plane_#.npy") for item in items] == [True]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_viewer_that_dies_or_freezes_costs_the_export_nothing(
    lab, kind, screen, start_viewer, archive, number
) -> None:
    # Given a worker that archives and shows
    viewer = start_viewer(kind)
    worker = lab.start_worker()
    assert lab.finished(deliveries(lab, session_of_planes(lab, 1))).state is ExportState.DELIVERED
    # When the viewer is killed or stopped, and sessions come
    os.kill(viewer.process.pid, number)
    ids = [deliveries(lab, session_of_planes(lab, n)) for n in (2, 3, 4)]
    statuses = [lab.finished(export_id) for export_id in ids]
    # Then each is archived at the first attempt, whole, once
    for status in statuses:
        assert (status.state, status.summary) == (ExportState.DELIVERED, "1 of 1 delivered")
        kept = next(d for d in status.deliveries if d.destination == "archive")
        assert (kept.state, kept.attempts) == (DeliveryState.DELIVERED, 1)
        # And the viewer's delivery says what was dropped, and is not tried again
        seen = next(d for d in status.deliveries if d.destination == "screen")
        assert (seen.state, seen.attempts) == (DeliveryState.SKIPPED, 1)
        assert f"nothing was shown: 0 of {PLANES} displayed, {PLANES} dropped" in seen.reason
    assert manifest_files(archive) == 4 * (PLANES + 1)
    # And the log counts the drops
    wait_until(lambda: "since the start; exports are not affected" in worker.output(), what="the drops in the log")
    # And when a viewer is there again, sessions are seen again
    if number == signal.SIGSTOP:
        os.kill(viewer.process.pid, signal.SIGCONT)
    else:
        start_viewer(kind)

    def is_seen() -> bool:
        session = session_of_planes(lab, 100 + len(ids))
        ids.append(deliveries(lab, session))
        screen_delivery = next(d for d in lab.finished(ids[-1]).deliveries if d.destination == "screen")
        return screen_delivery.state is DeliveryState.DELIVERED

    wait_until(is_seen, 90, "seen again")


def test_a_viewer_that_dies_in_the_middle_leaves_the_archive_whole(lab, kind, screen, start_viewer, archive) -> None:
    # Given a session that is being shown
    viewer = start_viewer(kind)
    lab.start_worker()
    export_id = deliveries(lab, session_of_planes(lab, 1))
    wait_until(lambda: json.loads(viewer.command("--status"))["shown"] > 0, 60, "the first plane shown")
    # When the viewer is killed
    viewer.process.kill()
    # Then the export ends as delivered, with every file in the archive, and nothing of the count is missing
    status = lab.finished(export_id)
    assert status.state is ExportState.DELIVERED
    assert manifest_files(archive) == PLANES + 1
    seen = next(d for d in status.deliveries if d.destination == "screen")
    if seen.receipt is not None:
        counts = seen.receipt.metadata
        assert (
            sum(counts[fate] for fate in ("displayed", "dropped", "refused", "pending", "dropped_unread")) == PLANES
        )
    else:
        assert "dropped" in seen.reason


def test_an_export_for_a_viewer_alone_that_shows_nothing_is_not_called_delivered(lab, kind, screen, archive) -> None:
    # Given no viewer
    lab.start_worker()
    # When an export names nothing but the viewer
    status = lab.finished(deliveries(lab, session_of_planes(lab, 1), destinations=["screen"]))
    # Then a person is told instead of a success
    assert (status.state, status.summary) == (ExportState.DEAD, "0 of 1 delivered")
