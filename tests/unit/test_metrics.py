"""What is measured: families that are declared once, samples that add up, reasons worked out from rows."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner
from prometheus_client import CollectorRegistry

from labrelay.cli import main
from labrelay.metrics.exposing import as_records, as_text
from labrelay.metrics.families import DEAD_DELIVERIES, DEAD_LETTERS, LEDGER_FAMILIES, OUTBOX, WORKER_FAMILIES
from labrelay.metrics.scraping import BREAKER_STATES, Sample, count_letters
from labrelay.metrics.serving import listen
from labrelay.results import DeliveryState, DeliveryStatus, ExportState, ExportStatus
from labrelay_worker.breaker import BreakerState
from labrelay_worker.telemetry.counting import WorkerMetrics
from labrelay_worker.telemetry.measured import why_woken

FAMILIES = (*LEDGER_FAMILIES, *WORKER_FAMILIES)


def letter(state: ExportState, *deliveries: tuple[str, str | None], cause: str = "") -> ExportStatus:
    now = datetime.now(UTC)
    return ExportStatus(
        export_id="x", state=state, session_identifier="s", instrument_pid="i", strategy="", revision=1, runs=1,
        created=now, updated=now, cause=cause,
        deliveries=tuple(
            DeliveryStatus(destination=name, state=DeliveryState.FAILED, error_kind=kind) for name, kind in deliveries
        ),
    )  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_family_is_named_as_prometheus_wants_it_and_says_what_it_means(family):
    assert re.fullmatch(r"labrelay_[a-z_]+", family.name)
    assert family.name.endswith("_total") == (family.kind == "counter")
    assert bool(family.buckets) == (family.kind == "histogram")
    assert family.help.endswith(".")


def test_no_label_can_hold_an_export_or_a_session():
    allowed = {"destination", "outcome", "kind", "state", "reason", "why", "answer", "version", "queue", "priority"}
    assert {label for family in FAMILIES for label in family.labels} <= allowed


def test_a_worker_shows_every_one_of_its_families_before_anything_happened():
    registry = CollectorRegistry()
    WorkerMetrics(registry).expect("cdcs")
    shown = {sample.name for metric in registry.collect() for sample in metric.samples}
    names = {f.name if f.kind != "histogram" else f"{f.name}_count" for f in WORKER_FAMILIES}
    assert names <= shown


def test_the_producers_side_knows_the_breakers_states():
    assert set(BREAKER_STATES) == set(BreakerState)


def test_each_dead_letter_is_counted_once_under_one_reason_and_each_of_its_troubles_by_destination():
    # Given letters with one kind of trouble, with several, and one that killed its workers
    letters = [
        letter(ExportState.DEAD, ("cdcs", "rejected"), ("elab", "rejected")),
        letter(ExportState.DEAD, ("cdcs", "rejected"), ("elab", "misconfigured")),
        letter(ExportState.UNKNOWN, ("hook", None)),
        letter(ExportState.DEAD, cause="poison"),
    ]
    # When they are counted
    counted = {(sample.family, sample.labels): sample.value for sample in count_letters(iter(letters))}
    # Then the letters add up, and the deliveries are told apart
    assert {labels: n for (family, labels), n in counted.items() if family is DEAD_LETTERS} == {
        ("dead", "rejected"): 1,
        ("dead", "several"): 1,
        ("unknown", "in_doubt"): 1,
        ("dead", "poison"): 1,
    }
    assert counted[DEAD_DELIVERIES, ("cdcs", "rejected")] == 2


@pytest.mark.parametrize(
    ("state", "unchanged_ms", "not_before", "why"),
    [
        ("running", 60_000, 0, "lease_ended"),
        ("waiting", 60_000, 5, "retry"),
        ("queued", 31_000, 0, "unclaimed"),
        ("queued", 500, 0, "handed_back"),
        ("queued", 31_000, 5, "retry"),
    ],
)
def test_why_an_export_was_due_is_seen_in_its_row(state, unchanged_ms, not_before, why):
    assert why_woken(state, unchanged_ms, not_before, grace_ms=30_000) == why


def test_samples_read_the_same_as_text_and_as_json():
    samples = [Sample(OUTBOX, 3, ("waiting",)), Sample(OUTBOX, 1, ("conflict",))]
    assert 'labrelay_outbox_entries{state="waiting"} 3.0' in as_text(samples)
    assert as_records(samples)[1] == {"name": OUTBOX.name, "labels": {"state": "conflict"}, "value": 1.0}


def test_with_redis_away_the_outbox_is_measured_and_the_exit_code_says_so(monkeypatch):
    monkeypatch.setenv("LABRELAY_REDIS_URL", "redis://127.0.0.1:1/0")
    answer = CliRunner().invoke(main, ["metrics", "--json"])
    values = {(r["name"], r["labels"].get("state")): r["value"] for r in json.loads(answer.stdout)}
    assert answer.exit_code == 3
    assert values["labrelay_ledger_up", None] == 0
    assert values["labrelay_outbox_entries", "waiting"] == 0
    assert ("labrelay_exports", "dead") not in values


def test_a_port_that_is_taken_is_named_with_the_cure():
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        answer = CliRunner().invoke(main, ["metrics", "--serve", str(port)])
    assert answer.exit_code == 2
    assert f"127.0.0.1:{port} cannot be used" in answer.output
    assert "Give a free port" in answer.output
