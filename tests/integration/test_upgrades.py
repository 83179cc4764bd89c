"""Old producers with new workers and the reverse: the shapes that each release wrote are kept in tests/wire."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import redis
from tools import ROOT
from wire_shapes import record, replay

from labrelay.results import ExportState

pytestmark = pytest.mark.integration

_RELEASES = sorted(path for path in (ROOT / "tests" / "wire").iterdir() if path.is_dir())
#: What a worker of 0.1 reads of a row that was just submitted.
_READ_BY_WORKERS = {"state", "digest", "context", "strategy", "destinations", "session", "instrument", "revision"} | {
    "created", "updated", "not_before", "token", "runs",
}  # fmt: skip


def connection(lab: Any) -> redis.Redis:
    return redis.Redis.from_url(lab.environment["LABRELAY_REDIS_URL"], decode_responses=True)


def shapes_of(release: Path) -> dict[str, Any]:
    return json.loads((release / "keys.json").read_text())


def wake_up(shapes: dict[str, Any]) -> dict[str, Any]:
    """Return the last wake-up in a queue, its body decoded."""
    import base64

    message = json.loads(shapes["labrelay:labrelay.exports"]["value"][0])
    _, kwargs, _ = json.loads(base64.b64decode(message["body"]))
    return {"task": message["headers"]["task"], "kwargs": sorted(kwargs), "types": message["content-type"]}


@pytest.mark.parametrize("release", _RELEASES, ids=lambda path: path.name)
def test_a_worker_of_today_finishes_what_an_earlier_release_accepted_and_began(lab, release):
    # Given a ledger as an earlier release left it: an export with its wake-up, one cut off between intent and
    # receipt, and one that needs a person
    dead, waiting, begun = (lab.session(number).export_id for number in (1, 2, 3))
    with connection(lab) as client:
        replay(client, shapes_of(release), lab.folder)
    lab.recorder("archive", find_in_log=True)
    lab.recorder("portal", find_in_log=True)

    # When a worker of today starts
    lab.start_worker()
    with lab.client() as client:
        for export_id in (waiting, begun):
            assert client.wait(export_id, 30).state is ExportState.DELIVERED
        assert client.status(dead).state is ExportState.DEAD

    # Then nothing that had its receipt was sent again, and the rest arrived once
    accepted = Counter((event["name"], event["id"]) for event in lab.events(event="accepted"))
    assert accepted == {("portal", begun): 1, ("archive", waiting): 1, ("portal", waiting): 1}


@pytest.mark.parametrize("release", _RELEASES, ids=lambda path: path.name)
def test_a_worker_of_an_earlier_release_can_read_what_a_producer_of_today_submits(lab, release):
    # Given what a producer of today writes
    with lab.client() as client:
        export_id = client.submit(lab.session(2)).export_id
    with connection(lab) as client:
        shapes = record(client, lab.folder)
    row = shapes[f"labrelay:export:{export_id}"]["value"]

    # When the earlier release reads it: its schema refuses what it does not know
    jsonschema.validate(json.loads(row["context"]), json.loads((release / "export_context.json").read_text()))

    # Then every field that it needs is there, and the wake-up is the one that it waits for
    assert row.keys() >= _READ_BY_WORKERS
    # (A later wake-up may say more than an old worker takes: its reconciler then finds the export when it is due.)
    told, known = wake_up(shapes), wake_up(shapes_of(release))
    assert told["task"] == known["task"]
    assert set(told["kwargs"]) >= set(known["kwargs"])
    assert shapes["labrelay:due"]["value"][0][0] == export_id
