"""Planted secrets appear nowhere they could be read: not in Redis, logs, trails, errors, archives or Flower."""

from __future__ import annotations

import json
import re
import signal

import pytest
from planted import HEADER, IN_URL, PASSWORD, TOKEN, everything_in_files, everything_in_redis, leaks, said_by_command

from labrelay.results import ExportState
from labrelay_worker.demo.receiver import Answer, Receiver

pytestmark = pytest.mark.integration

FLOWER_PAGES = ("/api/tasks", "/tasks", "/api/workers?refresh=1", "/workers", "/broker", "/api/queues/length")
COMMANDS = ("settings", "settings --json", "destinations --check", "destinations --json", "list", "list --json")
COMMANDS_OF_ONE = ("status {}", "status {} --json", "trail {}", "trail {} --json")
COMMANDS_OF_A_DEAD_ONE = ("dead list", "dead list --json", "dead show {}", "dead show {} --json")
CREDENTIALS = {
    "LABRELAY_DESTINATIONS__HOOK__TOKEN": TOKEN,
    "LABRELAY_DESTINATIONS__HOOK__HEADERS": json.dumps({"X-Key": HEADER}),
    "LABRELAY_DESTINATIONS__DENIED__TOKEN": TOKEN,
    "LABRELAY_DESTINATIONS__LEAKY__PASSWORD": PASSWORD,
}


@pytest.fixture
def receiver():
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def places(lab, flower, receiver):
    """Return all that can be read after deliveries that failed in every way, and one that arrived, by place."""
    url, reports = f"{receiver.url}/in?sig={IN_URL}", lab.folder / "reports"
    # Servers that repeat the request in their errors.
    echo = f"denied: Authorization: Bearer {TOKEN}; X-Key: {HEADER}; {url}".encode()
    receiver.script("/in", [Answer(status=500, body=echo), Answer(drop=True, accept=False)])
    receiver.script("/in", [Answer(status=422, body=echo)])
    receiver.script("/denied", [Answer(status=401, body=echo)] * 3)
    lab.destinations |= {
        "hook": {"type": "webhook", "idempotent": True, "url": url},
        "denied": {"type": "webhook", "url": f"{receiver.url}/denied?sig={IN_URL}"},
        "gone": {"type": "webhook", "url": f"http://anna:{PASSWORD}@127.0.0.1:1/?sig={IN_URL}"},
        "leaky": {"type": "leaky", "reports_while": str(reports)},
    }
    lab.options["retention_days"] = 0.00001
    lab.write_settings()
    worker = lab.start_worker(LABRELAY_RETRY__ATTEMPTS="4", LABRELAY_RETRY__LONGEST_DELAY="0.2", **CREDENTIALS)
    lab.wait_until(lambda: "w0@test" in (flower("/api/workers?refresh=1") or ""), 30, "Flower sees the worker")

    with lab.client() as client:

        def end_of(number: int, destination: str) -> tuple[str, ExportState]:
            export_id = client.submit(lab.session(number), destinations=[destination]).export_id
            lab.wait_until(lambda: _has_failed(client.status(export_id)), 60, f"the end at {destination}")
            return export_id, client.status(export_id).state

        refused, raised = end_of(1, "hook"), end_of(2, "leaky")
        reports.touch()
        reported, held, denied = end_of(3, "leaky"), end_of(4, "gone"), end_of(5, "denied")
        ends = [end for _, end in (refused, raised, reported, held, denied)]
        assert ends == ["dead", "unknown", "dead", "waiting", "waiting"]
        delivered = client.submit(lab.session(6), destinations=["hook"]).export_id
        archived = lab.wait_until(lambda: (s := client.status(delivered)).archived and s, 60, "archived")
        assert archived.state is ExportState.DELIVERED
        ids = [delivered, *(export_id for export_id, _ in (refused, raised, reported, held, denied))]
        found = {"redis": everything_in_redis(client.ledger._redis)}
        for export_id in ids:
            lab.wait_until(
                lambda i=export_id: re.search("SUCCESS|RETRY|FAILURE", flower(f"/api/task/info/{i}") or ""),
                30,
                "its task",
            )
            found |= {path: flower(path) for path in (f"/api/task/info/{export_id}", f"/task/{export_id}")}
            found |= {c: said_by_command(c) for c in (one.format(export_id) for one in COMMANDS_OF_ONE)}
    found |= {path: flower(path) for path in FLOWER_PAGES}
    for export_id in ids[1:4]:
        told = [command.format(export_id) for command in COMMANDS_OF_A_DEAD_ONE]
        found |= {command: said_by_command(command) for command in told}
    found |= {command: said_by_command(command, **CREDENTIALS) for command in COMMANDS}
    found["dead drop"] = said_by_command(f"dead drop {' '.join(ids[1:4])} --yes")
    # Last, for a worker's last words count too.
    worker.send(signal.SIGTERM)
    worker.wait()
    return found | {"log": worker.output(), "files": everything_in_files(lab.folder / "home")}


def _has_failed(status) -> bool:
    # Those whose destination is left alone wait for good here.
    return status.state.is_final or (status.state is ExportState.WAITING and "since" in status.summary)


@pytest.mark.timeout(240)
def test_planted_secrets_are_found_nowhere(places):
    # Given deliveries that failed with secrets in their URLs, headers and error texts, and one that arrived
    # When everything that anybody can read of them is looked through
    # Then the failures are there to be read, and no secret is
    assert "denied" in places["log"] + places["redis"]
    assert "cannot log in with [redacted]" in "\n".join(text for text in places.values() if text)
    assert leaks(places) == []
