"""One trace from a submit to its deliveries, over two real processes and a real receiver."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

import pytest
from otlp import collector

from labrelay.results import ExportState

pytestmark = pytest.mark.integration

TOKEN = "tok-5ecret-value-0123456789"


def submit(lab: Any, environment: dict[str, str]) -> str:
    """Submit a session from a process of its own; returns the export id."""
    context = lab.folder / "context.json"
    context.write_text(lab.session().to_json())
    command = [sys.executable, "-m", "labrelay", "submit", str(context), "--json"]
    done = subprocess.run(command, env=lab.environment | environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)[0]["export_id"]


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_submit_and_each_delivery_are_one_trace(lab, pool):
    # Given a worker that traces, with a destination that delivers and answers with a secret, and one that refuses
    lab.recorder("good", 60, record_url=f"https://repository.example.org/1?token={TOKEN}")
    lab.recorder("picky", 40, refuse_while=lab.folder / "refuse")
    (lab.folder / "refuse").touch()
    with collector() as received:
        environment = {"LABRELAY_TRACES": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": received.endpoint}
        worker = lab.start_worker(pool, 1, **environment)

        # When another process submits a session
        export_id = submit(lab, environment)
        assert lab.finished(export_id).state is ExportState.DEAD
        worker.send(signal.SIGTERM)
        worker.wait()

    # Then all spans are of one trace
    by_name = {span.name: span for span in received.spans}
    assert len({span.trace for span in received.spans}) == 1
    submitted, ran = by_name["labrelay submit"], by_name["labrelay run"]
    # And the worker's run is a child of the submit, and claim and deliveries are children of the run
    assert (submitted.service, submitted.parent) == ("labrelay-producer", "")
    assert (ran.service, ran.parent) == ("labrelay-worker", submitted.id)
    below = {name for name, span in by_name.items() if span.parent == ran.id}
    assert below == {"labrelay claim", "labrelay deliver good", "labrelay deliver picky"}

    # And each says what it is about and how it ended
    assert submitted.attributes["labrelay.outcome"] == "accepted"
    assert ran.attributes["labrelay.export_id"] == export_id
    assert by_name["labrelay deliver good"].attributes["labrelay.outcome"] == "delivered"
    assert by_name["labrelay deliver picky"].attributes["labrelay.outcome"] == "rejected"
    assert by_name["labrelay deliver picky"].failed == "told to refuse"
    # And no secret is in what was sent
    assert not any(TOKEN.encode() in body for body in received.raw)


def test_a_collector_that_is_away_holds_up_neither_submit_nor_delivery(lab):
    # Given nobody at the address of the collector
    environment = {"LABRELAY_TRACES": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
    lab.recorder("good")
    worker = lab.start_worker(**environment)

    # When a session is submitted
    export_id = submit(lab, environment)

    # Then it is delivered all the same, and the worker ends as always
    assert lab.finished(export_id).state is ExportState.DELIVERED
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
