"""Destinations that are down, slow on purpose, misconfigured or paused: only their own deliveries wait."""

from __future__ import annotations

import itertools
import json
import signal
import socket
import time
from collections import Counter

import pytest
from click.testing import CliRunner

from labrelay.cli import main
from labrelay.results import DeliveryState, ExportState
from labrelay_worker.demo.inbox import Inbox
from labrelay_worker.demo.receiver import Answer, Receiver

pytestmark = [pytest.mark.faults, pytest.mark.integration]

THRESHOLD = 3
#: Minutes of the real settings as fractions of a second.
SCALED = {"LABRELAY_BREAKER__OPEN_SECONDS": "0.5", "LABRELAY_BREAKER__LONGEST_OPEN_SECONDS": "1"}


def portal(lab, url: str, **options) -> None:
    lab.destinations["portal"] = {"type": "webhook", "url": f"{url}/records", "idempotent": True, **options}
    lab.write_settings()


def submit(lab, count: int) -> list[str]:
    with lab.client() as client:
        return [s.export_id for s in client.submit_many([lab.session(n) for n in range(count)])]


def delivery(lab, export_id: str, name: str = "portal"):
    with lab.client() as client:
        return {d.destination: d for d in client.status(export_id).deliveries}.get(name)


def all_wait(lab, count: int) -> bool:
    with lab.client() as client:
        return client.ledger.counts()[ExportState.WAITING] == count


def breaker(lab) -> dict:
    with lab.client() as client:
        return json.loads(client.ledger._redis.hget("labrelay:breakers", "portal") or "{}")


def sends(lab, ids: list[str], name: str = "portal") -> int:
    with lab.client() as client:
        steps = [step for export_id in ids for step in client.trail(export_id)]
    return sum(step.event == "sending" and step.destination == name for step in steps)


def run(*arguments: str):
    return CliRunner().invoke(main, arguments)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_destination_that_answers_503_delays_nobody_else_and_catches_up_when_it_returns(lab, workers):
    # Given a healthy archive, a portal that refuses everything, and running workers
    down = Receiver()
    down.script("/records", [Answer(status=503)] * 10_000)
    down.start()
    lab.recorder("archive", priority=10)
    portal(lab, down.url)
    for _ in range(workers):
        lab.start_worker(**SCALED)

    # When a hundred sessions are submitted
    ids = submit(lab, 100)

    # Then all of them are in the archive and wait for the portal, and no worker is busy with them
    lab.wait_until(lambda: len(lab.events(event="accepted", name="archive")) == 100)
    lab.wait_until(lambda: all_wait(lab, 100), what="every export waits")
    status = delivery(lab, ids[50])
    assert status is None or status.attempts == 0

    # And the portal was called as often as it takes to learn that it is down, and once for each probe since
    lab.wait_until(lambda: breaker(lab).get("openings", 0) >= 3, what="probes that fail")
    down.close()
    assert len(down.deliveries) <= workers * (THRESHOLD + breaker(lab)["openings"])

    # When it returns, then everything arrives there once, without a restart and without a burned attempt
    with Receiver(port=int(down.url.rsplit(":", 1)[1])) as back:
        for export_id in ids:
            assert lab.finished(export_id).state is ExportState.DELIVERED
        assert Counter(d.export_id for d in back.deliveries) == dict.fromkeys(ids, 1)
    assert {delivery(lab, export_id).attempts for export_id in ids} == {1}
    assert Counter(e["id"] for e in lab.events(event="export", name="archive")) == dict.fromkeys(ids, 1)
    assert all(worker.process.poll() is None for worker in lab.workers)


def test_a_destination_where_nobody_listens_is_probed_and_not_called(lab):
    # Given a portal whose server is off
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    lab.recorder("archive", priority=10)
    portal(lab, f"http://127.0.0.1:{port}")
    lab.start_worker(**SCALED)

    # When sessions come and several probes have failed
    ids = submit(lab, 30)
    lab.wait_until(lambda: breaker(lab).get("openings", 0) >= 4, what="probes that fail")

    # Then it was called a handful of times (twice where a busy machine took half a second to learn of the first), and
    # a person sees why everything waits
    assert sends(lab, ids) in (THRESHOLD, 2 * THRESHOLD)
    shown = json.loads(run("destinations", "--json").stdout)
    hold = next(d["hold"] for d in shown["destinations"] if d["name"] == "portal")
    assert hold["state"] in ("open", "probing")
    assert "no connection" in hold["why"]
    assert hold["waiting"] == 30
    assert "no connection" in run("destinations").stdout
    with lab.client() as client:
        assert "portal: unavailable since" in client.status(ids[0]).summary

    # When the server is switched on, then everything arrives
    with Receiver(port=port) as back:
        for export_id in ids:
            assert lab.finished(export_id).state is ExportState.DELIVERED
        assert Counter(d.export_id for d in back.deliveries) == dict.fromkeys(ids, 1)
    assert breaker(lab).get("state", "closed") == "closed"


def test_a_destination_that_takes_connections_and_never_answers_gets_a_handful_and_the_rest_when_it_returns(lab):
    # Given a portal that hangs, and a process that works on twenty exports at once
    hanging = socket.create_server(("127.0.0.1", 0), backlog=1000)
    port = hanging.getsockname()[1]
    lab.recorder("archive", priority=10)
    portal(lab, f"http://127.0.0.1:{port}", timeout=600)
    lab.start_worker(LABRELAY_IN_FLIGHT="20")

    # When many more sessions come, then all of them reach the archive while the first calls still hang
    ids = submit(lab, 100)
    lab.wait_until(lambda: len(lab.events(event="accepted", name="archive")) == 100, what="the archive has all")
    assert sends(lab, ids) <= 10

    # And the others wait in the ledger without an attempt, and say why
    with lab.client() as client:
        lab.wait_until(lambda: client.ledger.counts()[ExportState.WAITING] >= 90, what="the rest waits")
        assert client.ledger.counts()[ExportState.RUNNING] <= 10
        assert any("portal: " in (told := client.status(e).summary) and "none has succeeded" in told for e in ids)

    # When it answers again, then everything arrives there once, without a restart
    hanging.close()
    with Receiver(port=port) as back:
        for export_id in ids:
            assert lab.finished(export_id).state is ExportState.DELIVERED
        assert Counter(d.export_id for d in back.deliveries) == dict.fromkeys(ids, 1)


def test_a_destination_that_falls_silent_holds_up_no_more_than_the_calls_it_has(lab):
    # Given a portal that has answered, in a process that works on twenty exports at once
    lab.recorder("archive", priority=10)
    with Receiver() as answering:
        portal(lab, answering.url, timeout=600)
        lab.start_worker(LABRELAY_IN_FLIGHT="20")
        for export_id in submit(lab, 10):
            assert lab.finished(export_id).state is ExportState.DELIVERED

    # When it hangs from now on, and many more sessions come
    port = int(answering.url.rsplit(":", 1)[1])
    with socket.create_server(("127.0.0.1", port), backlog=1000), lab.client() as client:
        ids = [s.export_id for s in client.submit_many([lab.session(n) for n in range(10, 110)])]

        # Then all of them reach the archive while the first calls hang
        lab.wait_until(lambda: len(lab.events(event="accepted", name="archive")) == 110, what="the archive has all")
        assert sends(lab, ids) <= 15

    # And the portal gets them when it is back
    with Receiver(port=port) as back:
        for export_id in ids:
            assert lab.finished(export_id).state is ExportState.DELIVERED
        assert Counter(d.export_id for d in back.deliveries) == dict.fromkeys(ids, 1)


def test_a_worker_that_dies_while_a_destination_is_down_leaves_the_probing_to_the_next(lab):
    # Given a portal that is down, and one worker that knows it
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    portal(lab, f"http://127.0.0.1:{port}")
    first = lab.start_worker(**SCALED)
    ids = submit(lab, 10)
    lab.wait_until(lambda: breaker(lab).get("state") == "open")

    # When it is killed, another one starts, and the portal returns
    first.send(signal.SIGKILL)
    first.wait()
    lab.start_worker(**SCALED)
    with Receiver(port=port) as back:
        # Then everything arrives
        for export_id in ids:
            assert lab.finished(export_id).state is ExportState.DELIVERED
        assert Counter(d.export_id for d in back.deliveries) == dict.fromkeys(ids, 1)


def test_refused_credentials_pause_a_destination_until_a_person_resumes_it(lab):
    # Given a portal that refuses the token
    with Receiver() as receiver:
        receiver.script("/records", [Answer(status=401)] * THRESHOLD)
        lab.recorder("archive", priority=10)
        portal(lab, receiver.url)
        lab.start_worker(LABRELAY_RETRY__MISCONFIGURED_DELAY="600")
        ids = submit(lab, 20)

        # When sessions come, then they wait, and it is not asked again and again
        lab.wait_until(lambda: all_wait(lab, 20), what="every export waits")
        assert len(receiver.deliveries) <= THRESHOLD
        hold = next(d["hold"] for d in json.loads(run("destinations", "--json").stdout)["destinations"] if d["hold"])
        assert hold["why"].startswith("misconfigured")
        assert hold["until"] > time.time() + 300

        # When a person has corrected it and says so, then everything arrives
        receiver._inbox._scripts.clear()
        resumed = run("resume", "portal", "--json")
        assert json.loads(resumed.stdout) == {"destination": "portal", "resumed": True}
        for export_id in ids:
            assert lab.finished(export_id).state is ExportState.DELIVERED
            assert delivery(lab, export_id).attempts == 1


def test_a_paused_destination_takes_nothing_until_it_is_resumed(lab):
    # Given a destination that a person pauses while a worker runs
    lab.recorder("archive", priority=90)
    lab.recorder("portal", priority=10)
    lab.start_worker()
    paused = run("pause", "portal", "--reason", "moving house", "--json")
    assert json.loads(paused.stdout)["paused"]["reason"] == "moving house"
    assert "moving house" in run("destinations", "--json").stdout

    # When sessions come until the worker has heard of it, and ten more
    numbers = itertools.count()

    def is_held() -> bool:
        with lab.client() as client:
            export_id = client.submit(lab.session(next(numbers))).export_id
            settled = (ExportState.DELIVERED, ExportState.WAITING)
            return lab.wait_until(lambda: (s := client.status(export_id).state) in settled and s) == "waiting"

    lab.wait_until(is_held)
    before = len(lab.events(event="export", name="portal"))
    with lab.client() as client:
        ids = [s.export_id for s in client.submit_many([lab.session(next(numbers)) for _ in range(10)])]
    lab.wait_until(lambda: all_wait(lab, 11), what="every export waits")

    # Then they wait there, with who and why, while the archive has them
    assert len(lab.events(event="export", name="portal")) == before
    with lab.client() as client:
        summary = client.status(ids[-1]).summary
    assert "1 of 2 delivered; portal: paused since" in summary
    assert summary.endswith("moving house")

    # When it is resumed, then they arrive; resuming again says that nothing held it
    assert run("resume", "portal").exit_code == 0
    for export_id in ids:
        assert lab.finished(export_id).state is ExportState.DELIVERED
    assert "nothing held it" in run("resume", "portal").stdout


def test_a_destination_nobody_has_cannot_be_paused(lab):
    lab.recorder("portal")
    refused = run("pause", "prtal")
    assert refused.exit_code == 2
    assert "Did you mean portal?" in refused.output


def test_the_pace_of_an_account_is_kept_by_two_workers_together(lab):
    # Given two workers and a portal that may be called five times a second
    times: list[float] = []
    with Receiver(inbox=Inbox(on_accepted=lambda _: times.append(time.monotonic()))) as receiver:
        portal(lab, receiver.url, per_second=5)
        lab.start_worker()
        lab.start_worker()

        # When twenty sessions come at once
        ids = submit(lab, 20)
        for export_id in ids:
            assert lab.finished(export_id).state is ExportState.DELIVERED

    # Then both workers sent them at that pace together, and no attempt was burned
    assert times[-1] - times[0] > 0.8 * 19 / 5  # a busy machine may be late with the first
    assert {delivery(lab, export_id).attempts for export_id in ids} == {1}
    assert len({delivery(lab, export_id).receipt.worker for export_id in ids}) == 2


def test_the_calls_at_once_of_an_account_are_kept_by_two_workers_together(lab):
    # Given two workers and two destinations of one account that takes two calls at once
    held = lab.folder / "held"
    held.touch()
    for name in ("one", "two"):
        lab.recorder(name, hold_while=held, concurrent=2, limit_account="shared")
    lab.start_worker()
    lab.start_worker()

    # When more sessions come, then two calls run and the others wait in the ledger
    ids = submit(lab, 5)
    lab.wait_until(
        lambda: (
            sum(
                (found := delivery(lab, export_id, name)) is not None
                and found.state is DeliveryState.RETRYING
                and found.error_kind == "rate_limited"
                for export_id in ids
                for name in ("one", "two")
            )
            == 8
        ),
        what="eight of ten deliveries wait for the account",
    )
    assert len(lab.events(event="export")) == 2

    # When they end, then every other gets its turn
    held.unlink()
    for export_id in ids:
        assert lab.finished(export_id).state is ExportState.DELIVERED
    assert Counter((e["id"], e["name"]) for e in lab.events(event="export")) == {
        (export_id, name): 1 for export_id in ids for name in ("one", "two")
    }


def test_the_place_of_a_killed_worker_comes_free(lab):
    # Given a worker that holds the only place of an account
    held = lab.folder / "held"
    held.touch()
    lab.recorder("one", hold_while=held, concurrent=1, find_in_log=True)
    first = lab.start_worker()
    ids = submit(lab, 3)
    lab.wait_until(lambda: lab.events(event="export"))

    # When it is killed and another one starts, then everything is delivered
    first.send(signal.SIGKILL)
    first.wait()
    held.unlink()
    lab.start_worker()
    for export_id in ids:
        assert lab.finished(export_id).state is ExportState.DELIVERED
