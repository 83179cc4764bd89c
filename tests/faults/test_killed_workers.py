"""Kill worker processes for real, and look at what the destinations saw (DESIGN section 4)."""

from __future__ import annotations

from collections import Counter

import pytest
from old_release import name_exports

from labrelay.results import ExportState

pytestmark = [pytest.mark.faults, pytest.mark.integration]

KILLS = 50


@pytest.mark.timeout(240)
def test_fifty_kills_between_two_destinations_repeat_nothing_and_lose_nothing(lab):
    # Given exports whose second destination kills the worker process that calls it for the first time
    markers = lab.folder / "killed"
    markers.mkdir()
    lab.recorder("first", priority=90)
    lab.recorder("killer", priority=50, waits_for=["first"], kill_once_in=markers, find_in_log=True)
    lab.recorder("last", priority=10, waits_for=["killer"])
    lab.start_worker("prefork", concurrency=4, LABRELAY_IN_FLIGHT="1")

    # When fifty of them are delivered, one to a process at a time
    with lab.client() as client:
        ids = [client.submit(lab.session(n)).export_id for n in range(KILLS)]
        for export_id in ids:
            assert client.wait(export_id, 200).state is ExportState.DELIVERED

    # Then fifty processes died, every export completed, and whatever had confirmed was never asked again
    assert len(list(markers.iterdir())) == KILLS
    for name in ("first", "killer", "last"):
        accepted = Counter(event["id"] for event in lab.events(event="accepted", name=name))
        assert accepted == dict.fromkeys(ids, 1), name
    assert Counter(e["id"] for e in lab.events(event="export", name="first")) == dict.fromkeys(ids, 1)


def test_a_killed_worker_hands_over_to_another_which_asks_before_it_sends(lab):
    # Given a worker killed in the middle of a call, at a destination that can be asked
    lab.recorder("done", priority=90)
    lab.recorder("slow", priority=10, waits_for=["done"], hold_while=lab.held, find_in_log=True)
    export_id = lab.kill_while_sending("slow")

    # When another one starts
    lab.start_worker()

    # Then the export completes: asked about once, sent again because it had not arrived
    assert lab.finished(export_id).state is ExportState.DELIVERED
    assert len(lab.events(event="find", name="slow")) == 1
    assert len(lab.events(event="accepted", name="slow")) == 1
    assert len(lab.events(event="export", name="done")) == 1


def test_a_doubtful_send_that_cannot_be_asked_about_is_parked_for_a_person(lab):
    # Given a worker killed in the middle of a call, at a plugin that has neither find nor idempotence
    lab.recorder("blind", type="blind", hold_while=lab.held)
    export_id = lab.kill_while_sending("blind")

    # When another one starts, then nothing is sent again unasked
    lab.start_worker()
    assert lab.finished(export_id).state is ExportState.UNKNOWN
    assert len(lab.events(event="export", name="blind")) == 1


def test_lost_wake_ups_are_sent_again(lab):
    # Given accepted exports whose messages are deleted from the queue
    lab.recorder("one")
    with lab.client() as client:
        ids = [s.export_id for s in client.submit_many([lab.session(n) for n in range(10)])]
        assert client.ledger._redis.delete("labrelay:labrelay.exports") == 1

        # When a worker runs, then each is delivered once all the same
        lab.start_worker()
        for export_id in ids:
            assert client.wait(export_id, 60).state is ExportState.DELIVERED
    assert Counter(e["id"] for e in lab.events(event="accepted")) == dict.fromkeys(ids, 1)


def test_doubled_wake_ups_deliver_once(lab):
    # Given two workers and exports that are woken five times each
    lab.recorder("one")
    with lab.client() as client:
        contexts = [lab.session(n) for n in range(20)]
        ids = [s.export_id for s in client.submit_many(contexts)]
        for _ in range(4):
            client._link.wake_ups.ring(len(ids), [])
            name_exports(client, ids)

        # When both work through the backlog
        lab.start_worker()
        lab.start_worker()
        for export_id in ids:
            assert client.wait(export_id, 60).state is ExportState.DELIVERED

    # Then each was delivered once
    assert Counter(e["id"] for e in lab.events(event="export")) == dict.fromkeys(ids, 1)


def test_a_worker_frozen_past_its_lease_is_fenced_off(lab):
    # Given a worker that is frozen while it sends to the first of two destinations
    lab.held.touch()
    lab.recorder("slow", priority=90, hold_while=lab.held, idempotent=True)
    lab.recorder("later", priority=10, waits_for=["slow"])
    frozen = lab.start_worker()
    with lab.client() as client:
        export_id = client.submit(lab.session()).export_id
        lab.wait_until(lambda: lab.events(event="export", name="slow"))
        frozen.freeze()
        lab.held.unlink()

        # When another worker finishes the export and the first one thaws
        lab.start_worker()
        assert client.wait(export_id, 60).state is ExportState.DELIVERED
        frozen.thaw()
        lab.wait_until(lambda: "another worker" in frozen.output(), 30, "the frozen worker notices")

        # Then its late write changed nothing and it started nothing more
        status = client.status(export_id)
    assert {d.receipt.worker for d in status.deliveries} == {f"{status.deliveries[0].receipt.worker}"}
    assert len(lab.events(event="export", name="later")) == 1


def test_a_redis_that_is_killed_and_restarted_loses_no_accepted_export(lab):
    # Given exports of which some are being sent and others wait
    lab.held.touch()
    lab.recorder("one", hold_while=lab.held, find_in_log=True)
    lab.start_worker()
    with lab.client() as client:
        ids = [s.export_id for s in client.submit_many([lab.session(n) for n in range(100)])]
        lab.wait_until(lambda: len(lab.events(event="export")) >= 4)

        # When Redis is killed, the calls end while it is away, and it starts again on the same data
        lab.kill_redis()
        lab.held.unlink()
        lab.wait_until(lambda: lab.events(event="accepted"))
        lab.redis.start()

        # Then every export is delivered once
        for export_id in ids:
            assert client.wait(export_id, 100).state is ExportState.DELIVERED
    assert Counter(e["id"] for e in lab.events(event="accepted")) == dict.fromkeys(ids, 1)
