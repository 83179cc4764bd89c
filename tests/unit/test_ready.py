"""What waits for a worker: who is taken first, how many wake-ups that needs, and how lost ones are replaced."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import fakeredis
import pytest

from labrelay.ledger import Answer, Entry, Ledger
from labrelay.names import EXPORTS_PER_WAKE_UP, Keys
from labrelay.priorities import Priority
from labrelay.results import ExportState
from labrelay_worker.ledger import UNCOUNTED, Due, Places, Taken, WorkerLedger

KEYS = Keys("test:")
URGENT, NORMAL, BULK = Priority


class Desk:
    """A producer and a worker on one ledger."""

    def __init__(self) -> None:
        server = fakeredis.FakeServer()
        self.runner = asyncio.Runner()
        self.redis = fakeredis.FakeRedis(server=server, decode_responses=True)
        self.client = fakeredis.FakeAsyncRedis(server=server, decode_responses=True)
        self.ledger = Ledger(self.redis, KEYS, wake_up_grace=30)
        self.worker = WorkerLedger(self.client, KEYS, owner="worker", lease_seconds=30)

    def submit(
        self, *names: str, priority: Priority = NORMAL, replace: bool = False, digest: str = "d"
    ) -> list[Answer]:
        entries = [Entry(name, digest, "{}", f"session {name}", "i", "", (), priority) for name in names]
        return self.ledger.submit(entries, replace=replace)

    def take(self, free: int = 64, reserve: int = 0, left: int = 64, named: tuple[str, ...] = ()) -> Taken:
        return self.runner.run(self.worker.take(named, Places(free, reserve, left)))

    def took(self, **places: Any) -> list[str]:
        return [claim.export_id for claim in self.take(**places).claims]

    def sweep(self) -> Due:
        due = self.runner.run(self.worker.sweep(leader_seconds=5, grace=30))
        assert due is not None
        return due

    def rung(self) -> int:
        return int(self.redis.get(KEYS.rung) or 0)

    def ready(self, priority: Priority) -> list[str]:
        return self.redis.zrange(KEYS.ready(priority), 0, -1)


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.runner.run(desk.client.aclose())
    desk.runner.close()
    desk.redis.close()


# --- who is taken first --------------------------------------------------------------------------------------


def test_urgent_goes_before_normal_before_bulk(desk: Desk) -> None:
    # Given exports of every priority, submitted in the wrong order
    desk.submit("b1", "b2", priority=BULK)
    desk.submit("n1", priority=NORMAL)
    desk.submit("u1", priority=URGENT)
    # When a worker has places for three, then the last in line waits
    assert desk.took(free=3) == ["u1", "n1", "b1"]
    assert desk.ready(BULK) == ["b2"]


def test_a_full_worker_takes_urgent_ones_alone(desk: Desk) -> None:
    # Given exports of every priority and a worker with nothing but its reserve
    desk.submit("n1", priority=NORMAL)
    desk.submit("u1", "u2", "u3", priority=URGENT)
    # When it looks, then the reserve is for urgent ones
    assert desk.took(free=0, reserve=2) == ["u1", "u2"]
    assert desk.took(free=0, reserve=5) == ["u3"]


def test_within_a_priority_the_first_come_is_the_first_taken(desk: Desk) -> None:
    # Given exports that came one after the other
    for number in range(5):
        desk.submit(f"e{number}")
        desk.redis.zadd(KEYS.ready(NORMAL), {f"e{number}": number})
    # When they are taken, then in that order
    assert desk.took(free=3) == ["e0", "e1", "e2"]


def test_taking_is_claiming(desk: Desk) -> None:
    # Given an export, when it is taken, then it runs under a lease, and no other look finds it
    desk.submit("a")
    assert desk.took() == ["a"]
    assert desk.ledger.status("a").state is ExportState.RUNNING
    assert desk.took() == []


def test_a_named_export_is_taken_before_others(desk: Desk) -> None:
    # Given two exports, when a wake-up names the second and has one place, then it is that one
    desk.submit("a", "b")
    assert desk.took(free=0, named=("b",)) == ["b"]
    assert desk.ready(NORMAL) == ["a"]


def test_a_wake_up_of_an_older_release_takes_what_it_names_alone(desk: Desk) -> None:
    # Given two exports, when one is named by a wake-up that looks for no others, then the other stays
    desk.submit("a", "b")
    assert desk.took(left=0, named=("a",)) == ["a"]
    assert desk.ready(NORMAL) == ["b"]


# --- how many wake-ups ---------------------------------------------------------------------------------------


def test_exports_that_come_one_by_one_share_a_wake_up(desk: Desk) -> None:
    # Given no worker, when as many exports come as one wake-up brings, then the first alone rings
    asked = [desk.submit(f"e{n}")[0].to_ring for n in range(EXPORTS_PER_WAKE_UP + 1)]
    # Then the next one rings again
    assert asked == [1, *[0] * (EXPORTS_PER_WAKE_UP - 1), 1]


def test_many_exports_ask_for_as_many_wake_ups_as_it_takes(desk: Desk) -> None:
    # When 200 exports come at once, then four wake-ups bring them
    answers = desk.submit(*(f"e{n}" for n in range(200)), priority=BULK)
    assert sum(answer.to_ring for answer in answers) == 4


def test_a_wake_up_that_found_something_looks_again_before_it_is_used_up(desk: Desk) -> None:
    # Given one export on one wake-up
    desk.submit("a")
    # When it is taken, then the wake-up is still good for others that come, without another message
    assert not desk.take(left=64).used_up
    assert desk.submit("b")[0].to_ring == 0
    assert desk.took(left=63) == ["b"]
    # And when nothing more is there, then it is used up and the next export rings
    assert desk.take(left=62).used_up
    assert desk.submit("c")[0].to_ring == 1


def test_a_wake_up_that_brought_all_it_is_good_for_is_followed_by_another(desk: Desk) -> None:
    # Given more exports than its wake-ups can bring, because more came while it looked
    desk.submit("a", "b")
    desk.submit("c")
    # When it brings two and is good for no more, then the rest has a wake-up published by the worker
    taken = desk.take(free=2, left=2)
    assert taken.used_up
    assert taken.to_ring == 1
    assert desk.rung() == 1


def test_a_look_that_nobody_rang_for_uses_no_wake_up_up(desk: Desk) -> None:
    # Given one export and its wake-up, when a busy worker looks by itself, then the wake-up counts on
    desk.submit("a")
    assert desk.took(left=UNCOUNTED) == ["a"]
    assert desk.rung() == 1


def test_a_doubled_wake_up_cannot_make_the_count_negative(desk: Desk) -> None:
    # Given one wake-up that arrives three times
    desk.submit("a")
    desk.take()
    for _ in range(3):
        assert desk.take().used_up
    # Then the next export rings
    assert desk.rung() == 0
    assert desk.submit("b")[0].to_ring == 1


def test_a_lost_wake_up_is_replaced_by_the_next_sweep(desk: Desk) -> None:
    # Given an export whose wake-up is not in Celery's queue; it may just be on its way
    desk.submit("a")
    assert desk.sweep().to_ring == 0
    # When it has waited for a while, then the reconciler has one published; and with that one in the queue, no other
    desk.redis.zadd(KEYS.ready(NORMAL), {"a": 1})
    assert desk.sweep().to_ring == 1
    desk.redis.lpush(KEYS.wake_ups, "message")
    assert desk.sweep().to_ring == 0


def test_wake_ups_that_were_counted_and_are_gone_do_not_silence_the_bell(desk: Desk) -> None:
    # Given a count that is far too high
    desk.redis.set(KEYS.rung, 1000)
    assert desk.submit("a")[0].to_ring == 0
    # When the reconciler sees that it is kept waiting, then it rings again
    desk.redis.zadd(KEYS.ready(NORMAL), {"a": 1})
    assert desk.sweep().to_ring == 1
    assert desk.rung() == 1


# --- what is ready -------------------------------------------------------------------------------------------


def test_a_cancelled_export_is_not_ready(desk: Desk) -> None:
    # Given a queued export, when it is cancelled, then nobody is woken for it
    desk.submit("a", priority=URGENT)
    desk.ledger.cancel("a")
    assert desk.ready(URGENT) == []


def test_a_replacement_waits_in_the_queue_of_its_own_priority(desk: Desk) -> None:
    # Given a queued export, when other content replaces it with another priority, then it is ready once
    desk.submit("a", priority=BULK)
    desk.submit("a", digest="other", replace=True, priority=URGENT)
    assert (desk.ready(URGENT), desk.ready(BULK)) == (["a"], [])


def test_a_replacement_of_a_running_export_is_ready_when_the_old_lease_ends(desk: Desk) -> None:
    # Given a running export, when it is replaced, then its time comes with the end of the lease
    desk.submit("a")
    desk.take()
    desk.submit("a", digest="other", replace=True)
    assert desk.ready(NORMAL) == []
    assert desk.redis.zscore(KEYS.due, "a") > 0


def test_submitting_again_with_a_higher_priority_moves_ahead(desk: Desk) -> None:
    # Given a bulk export in a long line, when it is submitted again as urgent, then it is the next
    desk.submit("a", "b", "c", priority=BULK)
    assert desk.submit("c", priority=URGENT)[0].outcome == "duplicate"
    assert desk.took(free=1) == ["c"]
    assert desk.ledger.status("c").priority is URGENT


def test_submitting_again_with_a_lower_priority_changes_nothing(desk: Desk) -> None:
    # Given an urgent export, when it comes again with a bulk, then it stays urgent
    desk.submit("a", priority=URGENT)
    desk.submit("a", priority=BULK)
    assert (desk.ready(URGENT), desk.ready(BULK)) == (["a"], [])


def test_what_is_due_waits_in_the_queue_of_its_priority(desk: Desk) -> None:
    # Given an urgent export whose worker died
    desk.submit("a", priority=URGENT)
    desk.take()
    desk.redis.hset(KEYS.export("a"), "lease_until", 1)
    desk.redis.zadd(KEYS.due, {"a": 1})
    # When the reconciler sweeps, then it is ready as an urgent one
    assert desk.sweep().count == 1
    assert desk.took(free=0, reserve=1) == ["a"]


def test_a_row_of_an_older_release_counts_as_normal(desk: Desk) -> None:
    # Given an export whose row knows no priority and that is in no queue
    desk.submit("a")
    desk.redis.hdel(KEYS.export("a"), "priority")
    desk.redis.delete(KEYS.ready(NORMAL))
    desk.redis.zadd(KEYS.due, {"a": 1})
    # When it is due, then it is taken with the normal ones
    desk.sweep()
    assert desk.ready(NORMAL) == ["a"]
    assert desk.took() == ["a"]


def test_the_backlog_tells_what_waits_by_priority(desk: Desk) -> None:
    # Given waiting, running and forgotten exports, and a wake-up in the queue
    desk.submit("u", priority=URGENT)
    desk.take(free=1)
    desk.submit("b1", "b2", priority=BULK)
    desk.submit("n", priority=NORMAL)
    desk.redis.zadd(KEYS.due, {"n": 1})
    desk.redis.lpush(KEYS.wake_ups, "message")
    # When it is read
    backlog = desk.ledger.backlog()
    # Then every figure is there
    assert backlog.ready == {URGENT: 0, NORMAL: 1, BULK: 2}
    assert (backlog.total_ready, backlog.running, backlog.unfinished) == (3, 1, 4)
    assert (backlog.overdue, backlog.wake_ups) == (1, 1)
