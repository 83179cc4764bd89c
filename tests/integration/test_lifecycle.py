"""Boot once per process, close once per process, on every pool and for every signal (DESIGN section 3.10)."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter

import pytest
from redis import Redis

from labrelay.results import ExportState

pytestmark = pytest.mark.integration

POOLS = ("threads", "prefork", "solo")
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
EXIT_CONFIG = 78


def closing_backend(lab) -> None:
    """Configure a destination on a backend that writes down its cleanup."""
    lab.backends["closing_one"] = {"type": "closing", "log": str(lab.folder / "cleanups.txt")}
    lab.destinations["kept"] = {"type": "backend", "backend": "closing_one"}


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_each_process_boots_once_and_closes_every_plugin_once(lab, pool, number):
    # Given a worker that has delivered to a destination and to a backend
    closing_backend(lab)
    lab.recorder("one")
    worker = lab.start_worker(pool, concurrency=2)
    with lab.client() as client:
        ids = [client.submit(lab.session(n)).export_id for n in range(6)]
        for export_id in ids:
            assert client.wait(export_id, 30).state is ExportState.DELIVERED

    # When it is told to stop
    worker.send(number)
    worker.wait()

    # Then each process that took work booted once and closed each plugin once
    made, closed = (
        Counter(e["pid"] for e in lab.events(event="made")),
        Counter(e["pid"] for e in lab.events(event="closed")),
    )
    assert set(made.values()) == {1}
    assert len(made) == (2 if pool == "prefork" else 1)
    assert closed == made
    cleanups = (lab.folder / "cleanups.txt").read_text().split()
    per_process = Counter(zip(cleanups[::2], cleanups[1::2], strict=True))
    assert set(per_process.values()) == {1}
    delivering = {e["pid"] for e in lab.events(event="accepted")}
    assert {int(pid) for _, pid in per_process} <= set(made)
    assert {event for event, _ in per_process} == {"connections", "cleanup"}
    assert delivering <= set(made)


@pytest.mark.parametrize("pool", POOLS)
def test_a_worker_that_cannot_boot_ends_with_the_repair_and_takes_no_work(lab, pool):
    # Given a worker that must not read any file a stranger names
    lab.recorder("one")
    with lab.client() as client:
        export_id = client.submit(lab.session()).export_id

        # When its settings are wrong
        worker = lab.start_worker(pool, ready=False, LABRELAY_LEASE_SECONDS="soon")
        worker.wait(30)

        # Then it says which and where, and the export waits for a better one
        assert worker.process.returncode != 0
        assert "lease_seconds" in worker.output()
        assert client.status(export_id).state is ExportState.QUEUED


@pytest.mark.parametrize("pool", POOLS)
def test_a_boot_that_fails_in_the_process_stops_the_worker(lab, pool):
    # Given settings that are well-formed but cannot be used: a Redis password that is wrong
    lab.recorder("one")

    # When the worker boots its runtime with a Redis that is not there
    worker = lab.start_worker(pool, ready=False, LABRELAY_REDIS_URL="redis://127.0.0.1:1/0")

    # Then it ends by itself with a configuration error and the repair
    assert worker.wait(60) != 0
    assert "LABRELAY_REDIS_URL" in worker.output()


@pytest.mark.parametrize("pool", POOLS)
def test_shutdown_finishes_the_running_call_and_starts_no_other(lab, pool):
    # Given an export whose first destination is being called
    held = lab.folder / "held"
    held.touch()
    lab.recorder("slow", priority=90, hold_while=held)
    lab.recorder("later", priority=10, waits_for=["slow"])
    worker = lab.start_worker(pool, concurrency=1)
    with lab.client() as client:
        export_id = client.submit(lab.session()).export_id
        lab.wait_until(lambda: lab.events(event="export", name="slow"))

        # When the worker is told to stop, and the call ends a moment later
        worker.send(signal.SIGTERM)
        lab.wait_until(lambda: "no call starts any more" in worker.output())
        held.unlink()
        worker.wait()

        # Then the first has its receipt, the second was not started, and another worker goes on from there
        assert [e["name"] for e in lab.events(event="accepted")] == ["slow"]
        assert client.status(export_id).state is ExportState.QUEUED
        lab.start_worker()
        assert client.wait(export_id, 30).state is ExportState.DELIVERED
    assert len(lab.events(event="export", name="slow")) == 1
    assert lab.events(event="export", name="later")[0]["saw"] == ["slow"]


def test_a_call_that_outlasts_the_drain_is_cut_off_and_asked_about(lab):
    # Given a call that does not end, at a destination that can be asked
    held = lab.folder / "held"
    held.touch()
    lab.recorder("slow", hold_while=held, find_in_log=True)
    worker = lab.start_worker("threads", LABRELAY_DRAIN_SECONDS="0.5")
    with lab.client() as client:
        export_id = client.submit(lab.session()).export_id
        lab.wait_until(lambda: lab.events(event="export"))

        # When the worker is told to stop
        worker.send(signal.SIGTERM)
        assert worker.wait(50) == 0

        # Then it stops in bounded time, and the next worker asks before it sends
        held.unlink()
        lab.start_worker()
        assert client.wait(export_id, 30).state is ExportState.DELIVERED
    assert len(lab.events(event="find")) == 1


def test_plain_celery_commands_work(lab):
    # Given a running worker
    lab.recorder("one")
    lab.start_worker()

    # When it is inspected with Celery's own command
    answer = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "labrelay_worker.app", "inspect", "ping", "--timeout", "5"],
        env=lab.environment, cwd=lab.folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    # Then it answers
    assert "pong" in answer.stdout, answer.stdout + answer.stderr


def test_a_child_that_has_done_its_share_is_followed_by_one_that_delivers(lab):
    # Given a prefork worker whose only child ends after each task
    lab.recorder("archive")
    lab.start_worker("prefork", 1, "--max-tasks-per-child=1")

    # When more sessions are submitted, one after the other, than one child may take
    with lab.client() as client:
        ends = [client.wait(client.submit(lab.session(n)).export_id, 60) for n in range(3)]

        # Then each is delivered, by a process of its own
        claims = {entry.worker for end in ends for entry in client.trail(end.export_id) if entry.event == "claimed"}
    assert [end.state for end in ends] == [ExportState.DELIVERED] * 3
    assert len(claims) == 3


def test_a_child_that_ends_leaves_the_sweeps_to_another_at_once(lab):
    # Given a prefork worker whose only child leads the sweeps and ends after one task
    lab.recorder("archive")
    worker = lab.start_worker("prefork", 1, "--max-tasks-per-child=1")
    with Redis.from_url(lab.environment["LABRELAY_REDIS_URL"], decode_responses=True) as redis:
        leader = lab.wait_until(lambda: redis.get("labrelay:leader"), what="a leader")

        # When it has delivered a session and is closed
        with lab.client() as client:
            client.wait(client.submit(lab.session()).export_id, 60)
        lab.wait_until(lambda: f"labrelay {leader} is closed" in worker.output(), what="the end of the child")

        # Then it does not lead any more
        assert redis.get("labrelay:leader") != leader
