"""Both halves of the ledger on one fake server: what is accepted, claimed, fenced, settled and swept."""

from __future__ import annotations

import asyncio
import gc
import json
import time
import weakref
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, TypeVar

import fakeredis
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError

from labrelay.context import ExportContext
from labrelay.errors import LeaseLost, LedgerUnavailable, NoSuchExport, Transient
from labrelay.ledger import Answer, Entry, Ledger
from labrelay.names import Keys
from labrelay.results import Delivery, DeliveryState, ExportState, Receipt, WorkerInfo, utc_now
from labrelay.scripts import script_source
from labrelay.strategies import Strategy
from labrelay_worker import ledger as worker_ledger
from labrelay_worker.batching import ScriptGroups
from labrelay_worker.claimed import LedgerJob
from labrelay_worker.ledger import Claim, Places, WorkerLedger

KEYS = Keys("test:")
T = TypeVar("T")


class Desk:
    """A fake server with a producer's ledger, and any number of workers' ledgers on one event loop."""

    def __init__(self, make_context: Callable[..., ExportContext]) -> None:
        self.server = fakeredis.FakeServer()
        self.redis = fakeredis.FakeRedis(server=self.server, decode_responses=True)
        self.ledger = Ledger(self.redis, KEYS, wake_up_grace=30)
        self.runner = asyncio.Runner()
        self._make_context = make_context
        self._clients: list[Any] = []

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    def client(self) -> Any:
        client = fakeredis.FakeAsyncRedis(server=self.server, decode_responses=True)
        self._clients.append(client)
        return client

    def worker(self, owner: str = "worker-1", lease_seconds: float = 30.0) -> WorkerLedger:
        return WorkerLedger(self.client(), KEYS, owner=owner, lease_seconds=lease_seconds)

    def submit(self, number: int = 1, content: str = "a", *, replace: bool = False, **fields: Any) -> Answer:
        context = self._make_context(number)
        given = {
            "export_id": f"export-{number}",
            "content": content,
            "context": context.to_json(),
            "session": context.session_identifier,
            "instrument": context.instrument_pid,
            "strategy": "",
            "destinations": (),
        }
        return self.ledger.submit([Entry(**given | fields)], replace=replace)[0]

    def claim(self, worker: WorkerLedger, number: int = 1) -> LedgerJob:
        claim = self.run(worker.claim(f"export-{number}"))
        assert isinstance(claim, Claim), claim
        job = LedgerJob(worker, claim)
        job.choose(Strategy.ALL, ["cdcs", "notebook"])
        return job

    def end_lease(self, number: int = 1) -> None:
        self.redis.hset(KEYS.export(f"export-{number}"), "lease_until", 1)

    def row(self, number: int = 1) -> dict[str, str]:
        return self.redis.hgetall(KEYS.export(f"export-{number}"))

    def due(self) -> dict[str, float]:
        return dict(self.redis.zrange(KEYS.due, 0, -1, withscores=True))

    def now_ms(self) -> float:
        seconds, microseconds = self.redis.time()
        return seconds * 1000 + microseconds / 1000

    def close(self) -> None:
        for client in self._clients:
            self.run(client.aclose())
        self.runner.close()
        self.redis.close()


@pytest.fixture
def desk(make_context: Callable[..., ExportContext]) -> Iterator[Desk]:
    desk = Desk(make_context)
    yield desk
    desk.close()


def receipt(name: str = "cdcs", **fields: Any) -> Receipt:
    return Receipt(destination=name, record_id="7", record_url=f"https://x/{name}", at=utc_now(), **fields)


async def confirm(job: LedgerJob, receipt: Receipt) -> None:
    """Write a receipt and wait until it is in the ledger."""
    await job.write_receipt(receipt.destination, receipt)
    await job.written()


def replay(desk: Desk) -> None:
    """Give export 1 back to the workers."""
    script = desk.redis.register_script(script_source("labrelay", "replay"))
    assert script(args=[KEYS.prefix, "export-1", "", "somebody", 30_000])[0] == "replayed"


def events(desk: Desk, number: int = 1) -> list[str]:
    return [entry.event for entry in desk.ledger.trail(f"export-{number}")]


# --- submit --------------------------------------------------------------------------------------------


def test_a_new_export_is_queued_and_due_after_the_grace(desk: Desk) -> None:
    # Given an empty ledger
    before = desk.now_ms()
    # When an export is submitted
    answer = desk.submit()
    # Then it is queued, and the reconciler looks at it if no wake-up comes
    assert answer == Answer("accepted", ExportState.QUEUED, 1, "", to_ring=1)
    assert before + 30_000 - 1 <= desk.due()["export-1"] <= desk.now_ms() + 30_000
    assert desk.ledger.status("export-1").state is ExportState.QUEUED
    assert events(desk) == ["accepted"]


def test_the_same_again_is_a_duplicate_that_changes_nothing(desk: Desk) -> None:
    # Given an accepted export
    desk.submit()
    row = desk.row()
    # When the same is submitted again
    answer = desk.submit()
    # Then it is known, and the row is as it was
    assert answer == Answer("duplicate", ExportState.QUEUED, 1, "")
    assert desk.row() == row


def test_a_duplicate_says_how_the_export_stands_by_now(desk: Desk) -> None:
    # Given an export that a worker has claimed
    desk.submit()
    desk.claim(desk.worker())
    # When the same is submitted again, then the answer says so
    assert desk.submit().state is ExportState.RUNNING


@pytest.mark.parametrize(
    ("other", "differs"),
    [
        ({"content": "b"}, "content"),
        ({"strategy": "best_effort"}, "strategy"),
        ({"destinations": ("cdcs",)}, "destinations"),
        ({"content": "b", "strategy": "all"}, "content, strategy"),
    ],
)
def test_other_content_is_a_conflict_that_names_what_differs(desk: Desk, other: dict[str, Any], differs: str) -> None:
    # Given an accepted export
    desk.submit()
    row = desk.row()
    # When the session is submitted differently
    answer = desk.submit(**other)
    # Then it is refused, and nothing changed
    assert (answer.outcome, answer.differs) == ("conflict", differs)
    assert desk.row() == row


def test_replacing_makes_the_next_revision(desk: Desk) -> None:
    # Given an accepted export
    desk.submit()
    # When it is replaced by other content
    answer = desk.submit(content="b", replace=True)
    # Then it is queued again as revision 2
    assert answer == Answer("replaced", ExportState.QUEUED, 2, "")
    assert events(desk) == ["accepted", "replaced"]


def test_replacing_by_the_same_is_a_duplicate_while_it_moves(desk: Desk) -> None:
    # Given an accepted export
    desk.submit()
    # When the same is submitted with replace, then there is no second revision
    assert desk.submit(replace=True).outcome == "duplicate"


@pytest.mark.parametrize("state", [ExportState.DEAD, ExportState.UNKNOWN, ExportState.CANCELLED])
def test_replacing_by_the_same_starts_an_ended_export_again(desk: Desk, state: ExportState) -> None:
    # Given an export that ended without being delivered
    desk.submit()
    desk.run(desk.claim(desk.worker()).settle(state, "0 of 2 delivered"))
    assert desk.submit().outcome == "duplicate"
    # When a person submits it again with replace
    answer = desk.submit(replace=True)
    # Then it runs again
    assert answer == Answer("replaced", ExportState.QUEUED, 2, "")
    assert desk.due().keys() == {"export-1"}


def test_receipts_become_previous_receipts_when_the_content_is_replaced(desk: Desk) -> None:
    # Given a delivered export
    desk.submit()
    worker = desk.worker()
    job = desk.claim(worker)
    desk.run(confirm(job, receipt()))
    desk.run(job.settle(ExportState.DELIVERED, "1 of 1 delivered"))
    # When it is replaced
    desk.submit(content="b", replace=True)
    # Then the next run delivers again, and can update what is there
    job = desk.claim(worker)
    assert job.receipts == {}
    assert job.deliveries["cdcs"].state is DeliveryState.PENDING
    assert job.context.revision == 2
    assert job.context.previous_receipts["cdcs"].record_id == "7"


def test_replacing_keeps_an_open_intent(desk: Desk) -> None:
    # Given a send whose end nobody knows
    desk.submit()
    worker = desk.worker()
    desk.run(desk.claim(worker).write_intent("cdcs"))
    # When the content is replaced
    desk.submit(content="b", replace=True)
    desk.redis.hset(KEYS.export("export-1"), "not_before", 0)
    # Then the next run asks before it sends
    assert desk.claim(worker).open_intents == {"cdcs"}


def test_replacing_voids_the_token_of_the_worker_that_runs_the_old_revision(desk: Desk) -> None:
    # Given a worker on the old revision
    desk.submit()
    job = desk.claim(desk.worker())
    # When it is replaced meanwhile
    desk.submit(content="b", replace=True)
    # Then the old receipt does not count for the new revision
    with pytest.raises(LeaseLost):
        desk.run(confirm(job, receipt()))
    assert "r:cdcs" not in desk.row()


@pytest.mark.parametrize("times", [1, 2])
def test_a_new_revision_starts_when_the_old_lease_would_have_ended(desk: Desk, times: int) -> None:
    # Given a worker on the old revision
    desk.submit()
    desk.claim(desk.worker())
    lease_until = float(desk.row()["lease_until"])
    # When it is replaced, once or twice
    for content in "bc"[:times]:
        desk.submit(content=content, replace=True)
    # Then no other worker begins before the old one is certain to have stopped
    assert desk.run(desk.worker("worker-2").claim("export-1")) == "later"
    assert float(desk.row()["not_before"]) == lease_until
    assert desk.due()["export-1"] >= lease_until


@pytest.mark.parametrize("again", ["replayed", "replaced"])
def test_a_cancel_between_does_not_let_a_new_revision_begin_sooner(desk: Desk, again: str) -> None:
    # Given a worker that is sending a revision that was replaced
    desk.submit()
    desk.claim(desk.worker())
    lease_until = float(desk.row()["lease_until"])
    desk.submit(content="b", replace=True)
    # When the new one is cancelled and started again
    assert desk.ledger.cancel("export-1") == "cancelled"
    if again == "replayed":
        replay(desk)
    else:
        desk.submit(content="b", replace=True)
    # Then no other worker begins before the old one is certain to have stopped
    assert desk.run(desk.worker("worker-2").claim("export-1")) == "later"
    assert desk.due()["export-1"] >= lease_until


@pytest.mark.parametrize("by_worker", [True, False])
def test_a_cancel_ends_a_back_off(desk: Desk, *, by_worker: bool) -> None:
    # Given an export in back-off that was cancelled, at once or while its worker gave it back
    desk.submit()
    job = desk.claim(desk.worker())
    if by_worker:
        desk.ledger.cancel("export-1")
    desk.run(job.settle(ExportState.WAITING, "later", not_before=job.now() + 900))
    if not by_worker:
        desk.ledger.cancel("export-1")
    # When it is replayed, then it may start at once
    replay(desk)
    assert isinstance(desk.run(desk.worker().claim("export-1")), Claim)


def test_replacing_a_waiting_export_does_not_keep_its_back_off(desk: Desk) -> None:
    # Given an export in back-off
    desk.submit()
    job = desk.claim(desk.worker())
    desk.run(job.settle(ExportState.WAITING, "later", not_before=job.now() + 900))
    # When other content replaces it, then it may start at once
    desk.submit(content="b", replace=True)
    assert isinstance(desk.run(desk.worker().claim("export-1")), Claim)


def test_many_are_accepted_in_one_call_and_each_for_itself(desk: Desk) -> None:
    # Given one export that is known with other content
    desk.submit(1)
    entries = [Entry(f"export-{n}", "b", "{}", f"session-{n}", "i", "", ()) for n in (1, 2)]
    # When it is submitted along with a new one
    answers = desk.ledger.submit(entries, replace=False)
    # Then the conflict does not stop the other
    assert [answer.outcome for answer in answers] == ["conflict", "accepted"]


# --- claim ---------------------------------------------------------------------------------------------


def test_a_claim_returns_the_context_with_a_lease(desk: Desk) -> None:
    # Given an accepted export
    desk.submit()
    # When a worker claims it
    job = desk.claim(desk.worker())
    # Then it holds it for as long as the lease lasts
    assert job.context.session_identifier == "session-1"
    assert job.lease.token == "1"
    job.require_lease()
    assert float(desk.row()["lease_until"]) == desk.due()["export-1"]
    assert desk.ledger.status("export-1").state is ExportState.RUNNING


def test_a_second_worker_leaves_a_leased_export_alone(desk: Desk) -> None:
    # Given an export that one worker holds
    desk.submit()
    desk.claim(desk.worker())
    # When another one is woken for it, then it has nothing to do
    assert desk.run(desk.worker("worker-2").claim("export-1")) == "leased"


def test_an_export_whose_time_has_not_come_is_left_for_later(desk: Desk) -> None:
    # Given an export in back-off
    desk.submit()
    worker = desk.worker()
    job = desk.claim(worker)
    desk.run(job.settle(ExportState.WAITING, "later", not_before=job.now() + 900))
    # When it is woken early
    answer = desk.run(worker.claim("export-1"))
    # Then it stays due at its time
    assert answer == "later"
    assert desk.due()["export-1"] == pytest.approx((job.now() + 900) * 1000, abs=5000)


def test_a_finished_export_is_not_claimed_again(desk: Desk) -> None:
    # Given a delivered export
    desk.submit()
    worker = desk.worker()
    desk.run(desk.claim(worker).settle(ExportState.DELIVERED, "2 of 2 delivered"))
    # When a wake-up comes a second time, then there is nothing to do
    assert desk.run(worker.claim("export-1")) == "finished"


def test_a_wake_up_for_an_unknown_export_does_nothing(desk: Desk) -> None:
    # Given an id in the due set without a row
    desk.redis.zadd(KEYS.due, {"gone": 1})
    # When it is claimed
    answer = desk.run(desk.worker().claim("gone"))
    # Then it is forgotten
    assert answer == "missing"
    assert desk.due() == {}


def test_an_export_of_a_dead_worker_is_claimed_when_its_lease_has_ended(desk: Desk) -> None:
    # Given a worker that died while sending
    desk.submit()
    desk.run(desk.claim(desk.worker()).write_intent("cdcs"))
    desk.end_lease()
    # When another one claims the export
    job = desk.claim(desk.worker("worker-2"))
    # Then it knows of the open intent, and the trail says what happened
    assert job.open_intents == {"cdcs"}
    assert desk.ledger.trail("export-1")[-1].detail == "after the lease of another worker ended"


def test_a_claim_knows_receipts_and_failures_of_earlier_runs(desk: Desk) -> None:
    # Given an export that delivered to one destination and failed at another
    desk.submit()
    worker = desk.worker()
    job = desk.claim(worker)
    failed = Delivery(state=DeliveryState.RETRYING, attempts=3, retry_at=1.0, error_kind="transient")
    desk.run(confirm(job, receipt()))
    desk.run(job.write_failure("notebook", failed, doubtful=False))
    desk.run(job.settle(ExportState.WAITING, "1 of 2 delivered"))
    # When it is claimed again
    job = desk.claim(worker)
    # Then nothing of that is forgotten
    assert job.deliveries["cdcs"].state is DeliveryState.DELIVERED
    assert job.receipts.keys() == {"cdcs"}
    assert job.deliveries["notebook"] == failed


def test_a_receipt_counts_whatever_the_delivery_says(desk: Desk) -> None:
    # Given a row with a receipt whose delivery was written by somebody else
    desk.submit()
    worker = desk.worker()
    job = desk.claim(worker)
    desk.run(confirm(job, receipt()))
    desk.redis.hset(KEYS.export("export-1"), "d:cdcs", Delivery(state=DeliveryState.RETRYING).model_dump_json())
    desk.end_lease()
    # When it is claimed, then that destination has it
    assert desk.claim(worker).deliveries["cdcs"].state is DeliveryState.DELIVERED


# --- steps of a claimed export -------------------------------------------------------------------------


def test_a_worker_with_an_old_token_writes_nothing(desk: Desk) -> None:
    # Given a worker that was frozen past its lease
    desk.submit()
    frozen = desk.claim(desk.worker())
    desk.end_lease()
    desk.claim(desk.worker("worker-2"))
    row = desk.row()
    # When it wakes up and writes
    with pytest.raises(LeaseLost):
        desk.run(confirm(frozen, receipt()))
    # Then nothing changed, and it knows that it must stop
    assert desk.row() == row
    with pytest.raises(LeaseLost):
        frozen.require_lease()


def test_a_settled_export_takes_no_more_steps(desk: Desk) -> None:
    # Given an export that was settled
    desk.submit()
    job = desk.claim(desk.worker())
    desk.run(job.settle(ExportState.DEAD, "0 of 2 delivered"))
    # When the same worker writes on, then it is refused
    with pytest.raises(LeaseLost):
        desk.run(job.write_intent("cdcs"))


def test_no_intent_is_written_where_a_receipt_exists(desk: Desk) -> None:
    # Given a confirmed destination
    desk.submit()
    job = desk.claim(desk.worker())
    desk.run(confirm(job, receipt()))
    # When a second send would begin
    answer = desk.run(job._ledger.commit("export-1", job.lease.token, [("intent", "cdcs", "{}")]))
    # Then the ledger refuses it
    assert answer == "confirmed"
    assert "i:cdcs" not in desk.row()


def test_a_worker_that_meets_a_receipt_it_does_not_know_stops(desk: Desk) -> None:
    # Given a receipt that appeared while a worker was about to send
    desk.submit()
    job = desk.claim(desk.worker())
    desk.redis.hset(KEYS.export("export-1"), "r:cdcs", receipt().model_dump_json())
    # When it announces the send, then it must not
    with pytest.raises(LeaseLost):
        desk.run(job.write_intent("cdcs"))


def test_a_receipt_closes_its_intent_alone(desk: Desk) -> None:
    # Given two sends under way
    desk.submit()
    job = desk.claim(desk.worker())
    desk.run(job.write_intent("cdcs"))
    desk.run(job.write_intent("notebook"))
    # When one is confirmed
    desk.run(confirm(job, receipt()))
    # Then the other stays open
    assert job.open_intents == {"notebook"}
    assert {field for field in desk.row() if field[:2] in ("i:", "r:")} == {"i:notebook", "r:cdcs"}


def test_a_receipt_carries_server_time_and_worker(desk: Desk) -> None:
    # Given a destination whose clock is wrong
    desk.submit()
    job = desk.claim(desk.worker())
    # When its receipt is written
    desk.run(confirm(job, receipt().model_copy(update={"at": datetime(1980, 1, 1, tzinfo=UTC)})))
    # Then the ledger's time counts
    kept = desk.ledger.status("export-1").deliveries[0].receipt
    assert kept.worker == "worker-1"
    assert kept.at.timestamp() == pytest.approx(desk.now_ms() / 1000, abs=5)


def test_a_doubtful_failure_leaves_its_intent_open(desk: Desk) -> None:
    # Given a send whose answer is lost
    desk.submit()
    worker = desk.worker()
    job = desk.claim(worker)
    desk.run(job.write_intent("cdcs"))
    # When the failure is written
    desk.run(job.write_failure("cdcs", Delivery(state=DeliveryState.RETRYING, retry_at=1.0), doubtful=True))
    desk.run(job.settle(ExportState.WAITING, "later"))
    # Then the next run asks first
    assert desk.claim(worker).open_intents == {"cdcs"}


def test_a_certain_failure_closes_its_intent(desk: Desk) -> None:
    # Given a send that failed for certain
    desk.submit()
    job = desk.claim(desk.worker())
    desk.run(job.write_intent("cdcs"))
    # When the failure is written, then there is no doubt
    desk.run(job.write_failure("cdcs", Delivery(state=DeliveryState.RETRYING), doubtful=False))
    assert "i:cdcs" not in desk.row()


@pytest.mark.parametrize("state", [state for state in ExportState if state is not ExportState.RUNNING])
def test_settling_moves_the_export_to_its_state(desk: Desk, state: ExportState) -> None:
    # Given a claimed export
    desk.submit()
    job = desk.claim(desk.worker())
    # When it is settled
    desk.run(job.settle(state, "1 of 2 delivered; cdcs: transient", not_before=job.now() + 60))
    # Then index, due time and lease follow
    counts = desk.ledger.counts()
    assert {name for name, count in counts.items() if count} == {state}
    assert ("export-1" in desk.due()) == (not state.is_final)
    assert "lease_until" not in desk.row()
    assert desk.ledger.status("export-1").summary == "1 of 2 delivered; cdcs: transient"


def test_an_export_handed_back_is_due_at_once(desk: Desk) -> None:
    # Given a worker that shuts down
    desk.submit()
    desk.run(desk.claim(desk.worker()).settle(ExportState.QUEUED, "handed back"))
    # When another one looks, then it can go on now
    assert desk.due()["export-1"] <= desk.now_ms() + 1
    desk.claim(desk.worker("worker-2"))


def test_a_summary_of_several_lines_survives(desk: Desk) -> None:
    # Given an error text with a line break
    desk.submit()
    # When it ends the export, then it is kept
    desk.run(desk.claim(desk.worker()).settle(ExportState.DEAD, "first\nsecond"))
    assert desk.ledger.status("export-1").summary == "first\nsecond"


def test_an_unreadable_export_is_ended_for_a_person(desk: Desk) -> None:
    # Given a row whose context no worker understands
    desk.submit(context='{"schema": "labrelay.export_context/99"}')
    worker = desk.worker()
    claim = desk.run(worker.claim("export-1"))
    # When it is refused
    desk.run(worker.refuse(claim, Transient("cannot be read")))
    # Then it is dead, with the reason
    assert desk.ledger.status("export-1").state is ExportState.DEAD
    assert desk.ledger.status("export-1").summary == "cannot be read"
    assert desk.due() == {}


# --- leases --------------------------------------------------------------------------------------------


def test_renewing_prolongs_the_lease_and_the_due_time(desk: Desk) -> None:
    # Given a lease that is nearly over
    desk.submit()
    worker = desk.worker()
    job = desk.claim(worker)
    desk.redis.hset(KEYS.export("export-1"), "lease_until", 5)
    desk.redis.zadd(KEYS.due, {"export-1": 5})
    # When it is renewed
    desk.run(worker.renew([job.lease]))
    # Then nobody else looks at the export before it ends
    assert float(desk.row()["lease_until"]) == desk.due()["export-1"] > desk.now_ms() + 20_000
    job.require_lease()


def test_renewing_tells_each_job_how_it_stands(desk: Desk) -> None:
    # Given three exports of one worker: one lost, one to be cancelled, one untouched
    worker = desk.worker()
    jobs = []
    for number in (1, 2, 3):
        desk.submit(number)
        jobs.append(desk.claim(worker, number))
    desk.end_lease(1)
    desk.claim(desk.worker("worker-2"), 1)
    desk.ledger.cancel("export-2")
    # When the leases are renewed
    desk.run(worker.renew([job.lease for job in jobs]))
    # Then each knows for itself
    with pytest.raises(LeaseLost):
        jobs[0].require_lease()
    assert [job.cancel_requested for job in jobs] == [False, True, False]
    jobs[2].require_lease()


def test_a_job_without_time_left_must_not_send(desk: Desk) -> None:
    # Given a lease of no length, as after a long freeze
    desk.submit()
    job = desk.claim(desk.worker(lease_seconds=0))
    # When a send would begin, then it is refused
    with pytest.raises(LeaseLost):
        job.require_lease()


def test_a_settled_job_is_gone_without_the_garbage_collector(desk: Desk) -> None:
    # Given a delivered export, in a process that collects garbage rarely
    desk.submit()
    job = desk.claim(desk.worker())
    desk.run(confirm(job, receipt()))
    desk.run(job.settle(ExportState.DELIVERED, "2 of 2 delivered"))
    gone = weakref.ref(job)
    gc.disable()
    try:
        # When nobody holds it any more
        del job
        # Then its memory is free at once: thousands of them would be searched for circles again and again
        assert gone() is None
    finally:
        gc.enable()


# --- cancel --------------------------------------------------------------------------------------------


def test_a_queued_export_is_cancelled_at_once(desk: Desk) -> None:
    # Given a queued export
    desk.submit()
    # When it is cancelled
    answer = desk.ledger.cancel("export-1")
    # Then no worker takes it
    assert answer == "cancelled"
    assert desk.run(desk.worker().claim("export-1")) == "finished"
    assert desk.due() == {}
    assert events(desk) == ["accepted", "cancelled"]


def test_a_waiting_export_is_cancelled_at_once(desk: Desk) -> None:
    # Given an export in back-off
    desk.submit()
    job = desk.claim(desk.worker())
    desk.run(job.settle(ExportState.WAITING, "later", not_before=job.now() + 900))
    # When it is cancelled, then it is out of the due set
    assert desk.ledger.cancel("export-1") == "cancelled"
    assert desk.due() == {}


def test_a_running_export_is_cancelled_by_its_worker(desk: Desk) -> None:
    # Given a running export
    desk.submit()
    job = desk.claim(desk.worker())
    # When it is cancelled
    answer = desk.ledger.cancel("export-1")
    # Then its worker learns of it with the next step it writes
    assert answer == "cancelling"
    assert desk.ledger.status("export-1").cancelling
    desk.run(confirm(job, receipt()))
    assert job.cancel_requested


@pytest.mark.parametrize("state", [ExportState.WAITING, ExportState.QUEUED])
def test_a_cancel_is_not_lost_when_the_worker_gives_the_export_back_at_that_moment(
    desk: Desk, state: ExportState
) -> None:
    # Given a cancel that comes after the worker's last look
    desk.submit()
    job = desk.claim(desk.worker())
    assert desk.ledger.cancel("export-1") == "cancelling"
    # When the worker gives the export back to be tried again
    desk.run(job.settle(state, "0 of 2 delivered", not_before=job.now() + 60))
    # Then it is cancelled, as was promised
    assert desk.ledger.status("export-1").state is ExportState.CANCELLED
    assert desk.due() == {}


def test_a_cancel_does_not_undo_a_delivery_that_ends_at_that_moment(desk: Desk) -> None:
    # Given a cancel during the last step
    desk.submit()
    job = desk.claim(desk.worker())
    desk.ledger.cancel("export-1")
    # When the export is delivered, then that is what it says
    desk.run(job.settle(ExportState.DELIVERED, "2 of 2 delivered"))
    status = desk.ledger.status("export-1")
    assert (status.state, status.cancelling) == (ExportState.DELIVERED, False)


def test_an_export_of_a_dead_worker_is_cancelled_at_once(desk: Desk) -> None:
    # Given a worker that died
    desk.submit()
    job = desk.claim(desk.worker())
    desk.end_lease()
    # When the export is cancelled
    answer = desk.ledger.cancel("export-1")
    # Then it is, and the dead worker may not write if it comes back
    assert answer == "cancelled"
    with pytest.raises(LeaseLost):
        desk.run(confirm(job, receipt()))


def test_a_worker_that_dies_after_a_cancel_request_leaves_a_cancelled_export(desk: Desk) -> None:
    # Given a cancel request that its worker never saw
    desk.submit()
    desk.claim(desk.worker())
    desk.ledger.cancel("export-1")
    desk.end_lease()
    # When another worker is woken for it
    answer = desk.run(desk.worker("worker-2").claim("export-1"))
    # Then it carries the request out
    assert answer == "finished"
    assert desk.ledger.status("export-1").state is ExportState.CANCELLED
    assert desk.due() == {}


def test_cancelling_a_finished_export_says_how_it_ended(desk: Desk) -> None:
    # Given a delivered export
    desk.submit()
    desk.run(desk.claim(desk.worker()).settle(ExportState.DELIVERED, "2 of 2 delivered"))
    row = desk.row()
    # When it is cancelled, then nothing changes
    assert desk.ledger.cancel("export-1") == "delivered"
    assert desk.row() == row


def test_cancelling_an_unknown_export_is_an_error(desk: Desk) -> None:
    # Given an empty ledger, when an id is cancelled, then that is said
    with pytest.raises(NoSuchExport, match="there is no export export-9"):
        desk.ledger.cancel("export-9")


# --- sweep ---------------------------------------------------------------------------------------------


def test_the_sweep_takes_what_is_due_and_pushes_it_on(desk: Desk) -> None:
    # Given one export that is due and one that is not
    desk.submit(1)
    desk.submit(2)
    desk.redis.zadd(KEYS.due, {"export-1": 1})
    worker = desk.worker()
    # When the leader sweeps
    due = desk.run(worker.sweep(leader_seconds=5, grace=30))
    # Then that one is ready, with what people want to read of it, and not due again at once
    assert [(w.export_id, w.session, w.instrument) for w in due.first] == [("export-1", "session-1", "FEI-Titan-TEM")]
    assert desk.due()["export-1"] > desk.now_ms() + 20_000
    assert desk.run(worker.sweep(leader_seconds=5, grace=30)).count == 0


def test_only_one_worker_sweeps(desk: Desk) -> None:
    # Given a leader
    desk.run(desk.worker("leader").sweep(leader_seconds=5, grace=30))
    # When another one sweeps, then it is told that it does not lead
    assert desk.run(desk.worker("other").sweep(leader_seconds=5, grace=30)) is None


def test_a_leader_that_is_gone_is_followed_by_another(desk: Desk) -> None:
    # Given a leader whose time is over
    desk.run(desk.worker("leader").sweep(leader_seconds=5, grace=30))
    assert desk.redis.pttl(KEYS.leader) > 0
    desk.redis.delete(KEYS.leader)
    # When another one sweeps, then it leads
    assert desk.run(desk.worker("other").sweep(leader_seconds=5, grace=30)).count == 0
    assert desk.redis.get(KEYS.leader) == "other"


def test_the_sweep_survives_a_missing_row(desk: Desk) -> None:
    # Given a due id without a row beside an export
    desk.submit()
    desk.redis.zadd(KEYS.due, {"gone": 1, "export-1": 2})
    # When it is swept
    due = desk.run(desk.worker().sweep(leader_seconds=5, grace=30))
    # Then the export is ready and the rest forgotten
    assert [wake.export_id for wake in due.first] == ["export-1"]
    assert desk.due().keys() == {"export-1"}


def test_the_sweep_takes_no_more_than_its_limit(desk: Desk) -> None:
    # Given three exports that are due
    for number in (1, 2, 3):
        desk.submit(number)
        desk.redis.zadd(KEYS.due, {f"export-{number}": number})
    # When at most two are taken, then the longest due come first
    due = desk.run(desk.worker().sweep(leader_seconds=5, grace=30, limit=2))
    assert [wake.export_id for wake in due.first] == ["export-1", "export-2"]


# --- reading -------------------------------------------------------------------------------------------


def test_a_status_tells_each_delivery(desk: Desk) -> None:
    # Given an export with one delivery of each kind
    desk.submit(destinations=("cdcs", "notebook", "archive", "zarr"), strategy="all")
    job = desk.claim(desk.worker())
    desk.run(confirm(job, receipt()))
    desk.run(job.write_intent("notebook"))
    job.choose(Strategy.ALL, ["archive"])
    desk.run(
        job.write_failure("archive", Delivery(state=DeliveryState.FAILED, error_kind="rejected"), doubtful=False)
    )
    # When it is read
    status = desk.ledger.status("export-1")
    # Then each stands as it does
    assert {d.destination: d.state for d in status.deliveries} == {
        "cdcs": DeliveryState.DELIVERED,
        "notebook": DeliveryState.SENDING,
        "archive": DeliveryState.FAILED,
        "zarr": DeliveryState.PENDING,
    }
    assert status.destinations == ("cdcs", "notebook", "archive", "zarr")


def test_the_status_of_an_unknown_export_is_an_error_with_a_hint(desk: Desk) -> None:
    # Given an empty ledger, when an id is read, then the text says where to look
    with pytest.raises(NoSuchExport, match="labrelay list"):
        desk.ledger.status("export-9")
    with pytest.raises(NoSuchExport):
        desk.ledger.trail("export-9")


def test_the_latest_changes_come_first(desk: Desk) -> None:
    # Given three exports, the first of which was changed last
    for number in (1, 2, 3):
        desk.submit(number)
        desk.redis.zadd(KEYS.state("queued"), {f"export-{number}": number})
    desk.claim(desk.worker(), 1)
    # When they are listed
    listed = [export.export_id for export in desk.ledger.recent(limit=2)]
    # Then newest first, over all states
    assert listed == ["export-1", "export-3"]
    assert [export.export_id for export in desk.ledger.recent(ExportState.QUEUED)] == ["export-3", "export-2"]


def test_the_counts_name_every_state(desk: Desk) -> None:
    # Given two exports, one of them claimed
    desk.submit(1)
    desk.submit(2)
    desk.claim(desk.worker(), 2)
    # When they are counted
    counts = desk.ledger.counts()
    # Then each state has its number
    assert counts == dict.fromkeys(ExportState, 0) | {ExportState.QUEUED: 1, ExportState.RUNNING: 1}


def test_a_session_is_found_by_its_identifier(desk: Desk) -> None:
    # Given one session that two instruments recorded
    desk.submit(1, session="shared")
    desk.submit(2, session="shared")
    desk.submit(1, content="b", session="shared", replace=True)
    # When it is looked up, then each export is named once
    assert desk.ledger.ids_of_session("shared") == ["export-1", "export-2"]
    assert desk.ledger.ids_of_session("other") == []


def test_the_trail_tells_the_story_in_order(desk: Desk) -> None:
    # Given an export with a failed and a good attempt
    desk.submit()
    job = desk.claim(desk.worker())
    desk.run(job.write_intent("cdcs"))
    failed = Delivery(state=DeliveryState.RETRYING, attempts=1, error_kind="transient", error_message="HTTP 408")
    desk.run(job.write_failure("cdcs", failed, doubtful=False))
    desk.run(job.write_intent("cdcs"))
    desk.run(confirm(job, receipt()))
    desk.run(job.settle(ExportState.DELIVERED, "1 of 1 delivered"))
    # When the trail is read
    trail = desk.ledger.trail("export-1")
    # Then it says who did what, where and why
    assert [entry.event for entry in trail] == [
        "accepted", "claimed", "sending", "retrying", "sending", "delivered", "delivered",
    ]  # fmt: skip
    assert trail[3].detail == "transient: HTTP 408"
    assert trail[4].detail == "attempt 2"
    assert {entry.worker for entry in trail[1:]} == {"worker-1"}


def test_the_trail_keeps_the_latest_500_steps(desk: Desk) -> None:
    # Given an export that was tried for weeks
    desk.submit()
    job = desk.claim(desk.worker())
    steps = [("note", "", json.dumps({"event": f"step {i}"})) for i in range(600)]
    # When it goes on, then its trail does not grow without end
    desk.run(job._ledger.commit("export-1", job.lease.token, steps))
    trail = desk.ledger.trail("export-1")
    assert len(trail) == 500
    assert trail[-1].event == "step 599"


def test_workers_announce_themselves_and_withdraw(desk: Desk) -> None:
    # Given two workers, of which one was last seen a minute ago
    worker = desk.worker()
    for name in ("here", "silent"):
        desk.run(worker.announce(WorkerInfo(name=name, version="1", started=utc_now())))
    desk.redis.zadd(KEYS.workers, {"silent": desk.now_ms() - 60_000})
    # When they are listed, then only the one that is there
    assert [info.name for info in desk.ledger.workers()] == ["here"]
    assert desk.run(worker.silent_workers(45_000)) == ["silent"]
    # And when it withdraws, then none
    desk.run(worker.withdraw("here"))
    assert desk.ledger.workers() == []


def test_a_worker_of_a_newer_release_may_say_more_of_itself(desk: Desk) -> None:
    # Given a worker that announces what this release does not know, of itself, a destination and a route
    of_destination, of_route = {"name": "cdcs", "type": "cdcs", "colour": "red"}, {"instrument": "*", "moon": 1}
    told = {"name": "new", "version": "9", "started": utc_now().isoformat(), "pool": "tides"}
    told |= {"destinations": [of_destination], "routes": [of_route]}
    desk.redis.hset(KEYS.worker_info, "new", json.dumps(told))
    desk.redis.zadd(KEYS.workers, {"new": desk.now_ms()})
    # Then it is listed with what is known
    (worker,) = desk.ledger.workers()
    assert [destination.name for destination in worker.destinations] == ["cdcs"]


def test_a_worker_of_a_newer_release_may_write_more_of_a_delivery(desk: Desk) -> None:
    # Given a delivery with fields that this release does not know
    desk.submit()
    written = {"r:cdcs": receipt().model_dump(mode="json"), "d:cdcs": {"state": "delivered", "attempts": 1}}
    for field, value in written.items():
        desk.redis.hset(KEYS.export("export-1"), field, json.dumps(value | {"tide": "high"}))
    # Then a producer and a worker of this one read what they know
    (told,) = desk.ledger.status("export-1").deliveries
    assert (told.state, told.receipt is not None and told.receipt.record_id) == (DeliveryState.DELIVERED, "7")
    assert desk.claim(desk.worker()).receipts["cdcs"].record_id == "7"


# --- Redis away, restarted, full -----------------------------------------------------------------------


def test_a_producer_is_told_when_redis_is_away(desk: Desk) -> None:
    # Given a server that is away
    desk.server.connected = False
    # When an export is submitted, then the text says what to do
    with pytest.raises(LedgerUnavailable, match="start it or correct LABRELAY_REDIS_URL"):
        desk.submit()
    desk.server.connected = True


@pytest.mark.parametrize(
    "error",
    [
        OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),  # Redis 7 and later
        ResponseError(
            "Error running script (call to f_1): @user_script:1: -OOM command not allowed when used memory"
        ),
    ],
)
def test_a_producer_is_told_when_redis_is_full(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, error: ResponseError
) -> None:
    # Given a server without memory
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(desk.redis.connection_pool.connection_class, "read_response", refuse)
    # When an export is submitted, then the text says what to do
    with pytest.raises(LedgerUnavailable, match="free memory or raise maxmemory"):
        desk.submit()


def test_a_producer_is_told_when_redis_was_made_a_replica(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a server that handed over to another one
    def refuse(*_: object, **__: object) -> None:
        raise ReadOnlyError("You can't write against a read only replica.")

    monkeypatch.setattr(desk.redis.connection_pool.connection_class, "read_response", refuse)
    # When an export is submitted, then the text says what happened, and the next one is sent over a new connection
    dropped: list[bool] = []
    monkeypatch.setattr(desk.redis.connection_pool, "disconnect", lambda **_: dropped.append(True))
    with pytest.raises(LedgerUnavailable, match="another server takes the writes"):
        desk.submit()
    assert dropped


def test_an_error_in_a_script_is_not_taken_for_an_absence(desk: Desk) -> None:
    # Given a key of the wrong type, which is a bug and not an outage
    desk.redis.set(KEYS.export("export-1"), "text")
    # When an export is submitted, then the error is seen
    with pytest.raises(ResponseError):
        desk.submit()


def test_a_receipt_waits_for_the_server_that_takes_over(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a server that is made a replica while a record is being sent
    monkeypatch.setattr(worker_ledger, "_FIRST_PAUSE", 0.0)
    desk.submit()
    job = desk.claim(desk.worker())
    run, refusals = ScriptGroups.run, [ResponseError("@user_script: 7: -READONLY You can't write")] * 2

    async def demoted(scripts: ScriptGroups, *arguments: Any, **options: Any) -> Any:
        if refusals:
            raise refusals.pop()
        return await run(scripts, *arguments, **options)

    monkeypatch.setattr(ScriptGroups, "run", demoted)

    # When the receipt is written, then it waits and stands where the writes go now
    desk.run(confirm(job, receipt()))
    assert "r:cdcs" in desk.row()


def test_a_receipt_waits_until_redis_is_back(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a server that goes away while a record is being sent
    monkeypatch.setattr(worker_ledger, "_FIRST_PAUSE", 0.0)
    desk.submit()
    job = desk.claim(desk.worker())
    desk.server.connected = False

    # When the receipt is written and the server comes back
    async def come_back() -> None:
        await asyncio.sleep(0)
        desk.server.connected = True

    async def both() -> None:
        await asyncio.gather(confirm(job, receipt()), come_back())

    desk.run(both())
    # Then it is in the ledger
    assert "r:cdcs" in desk.row()


def test_a_claim_that_waited_for_redis_has_its_whole_lease(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a server that is away for a minute when a worker claims
    monkeypatch.setattr(worker_ledger, "_FIRST_PAUSE", 0.0)
    desk.submit()
    run, behind = ScriptGroups.run, [60.0]

    async def away(scripts: ScriptGroups, *arguments: Any, **options: Any) -> Any:
        if behind[0]:
            behind[0] = 0.0
            raise ResponseError("@user_script: 7: -LOADING Redis is loading the dataset in memory")
        return await run(scripts, *arguments, **options)

    monkeypatch.setattr(ScriptGroups, "run", away)
    monkeypatch.setattr(worker_ledger, "time", SimpleNamespace(monotonic=lambda: time.monotonic() - behind[0]))

    # When the claim succeeds
    job = desk.claim(desk.worker())
    # Then it may send, and it knows what time it is
    job.require_lease()
    assert abs(job.now() * 1000 - desk.now_ms()) < 30_000


@pytest.mark.parametrize("named", [[], ["export-1"]])
def test_a_claim_whose_answer_was_lost_is_not_lost(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, named: list[str]
) -> None:
    # Given more exports than a worker has places, and a server whose answers do not arrive for a while
    monkeypatch.setattr(worker_ledger, "_FIRST_PAUSE", 0.0)
    for number in (1, 2, 3):
        desk.submit(number)
    run, lost = ScriptGroups.run, [RedisConnectionError("only 0 of 1 replicas confirmed the write")] * 7

    async def silent(scripts: ScriptGroups, *arguments: Any, **options: Any) -> Any:
        answer = await run(scripts, *arguments, **options)
        if lost:
            for row in desk.redis.keys(KEYS.export("*")):  # meanwhile the lease of whatever was claimed ends
                desk.redis.hset(row, "lease_until", 1)
            raise lost.pop()
        return answer

    monkeypatch.setattr(ScriptGroups, "run", silent)

    # When it claims until it is answered
    taken = desk.run(desk.worker().take(named, Places(free=0 if named else 1, left=0 if named else 64)))
    # Then it has what it claimed at first and nothing else, and that did not kill anybody
    assert [claim.export_id for claim in taken.claims] == ["export-1"]
    assert taken.refused == {}
    assert desk.ledger.counts()[ExportState.RUNNING] == 1
    assert "crashes" not in desk.row()
    assert desk.row()["runs"] == "1"
    # And nobody else gets it
    assert desk.run(desk.worker("worker-2").claim("export-1")) == "leased"


def test_a_restarted_redis_gets_its_scripts_again(desk: Desk) -> None:
    # Given a server that has forgotten its scripts
    desk.submit()
    worker = desk.worker()
    job = desk.claim(worker)
    desk.redis.script_flush()
    # When a worker goes on, then nothing is noticed
    desk.run(confirm(job, receipt()))
    assert "r:cdcs" in desk.row()


def test_waiting_calls_travel_in_one_group_and_each_gets_its_own_answer(desk: Desk) -> None:
    # Given scripts of which one fails
    sources = {"echo": "return ARGV[1]", "fail": "return redis.error_reply('no')"}
    groups = ScriptGroups(desk.client(), sources)
    sent: list[int] = []
    send = groups._send

    async def counted(calls: list[Any]) -> list[Any]:
        sent.append(len(calls))
        return await send(calls)

    groups._send = counted

    # When many run at once
    async def many() -> list[Any]:
        calls = [groups.run("echo", f"{n}") for n in range(5)]
        return await asyncio.gather(*calls, groups.run("fail"), return_exceptions=True)

    *echoes, failure = desk.run(many())
    # Then the failure is its caller's alone, and there were two round trips: the scripts were not loaded yet
    assert echoes == ["0", "1", "2", "3", "4"]
    assert isinstance(failure, ResponseError)
    assert sent == [6, 6]


def test_a_caller_that_gave_up_does_not_disturb_its_group(desk: Desk) -> None:
    # Given two calls in one group
    groups = ScriptGroups(desk.client(), {"echo": "return ARGV[1]"})

    async def one_gives_up() -> Any:
        gone, stays = asyncio.create_task(groups.run("echo", "a")), asyncio.create_task(groups.run("echo", "b"))
        await asyncio.sleep(0)
        # When one caller is cancelled
        gone.cancel()
        # Then the other has its answer
        return await stays

    assert desk.run(one_gives_up()) == "b"


def test_a_listing_pages_back_by_the_time_of_the_last_change(desk: Desk) -> None:
    # Given exports that changed one after the other
    for number in (1, 2, 3):
        desk.submit(number)
        desk.redis.zadd(KEYS.state("queued"), {f"export-{number}": 1000 * number})

    # When the latest are listed, and then those before the last of them
    latest = desk.ledger.recent(limit=2)
    earlier = desk.ledger.recent(limit=2, before=datetime.fromtimestamp(2, UTC))

    # Then the second page goes on where the first ended
    assert [export.export_id for export in latest] == ["export-3", "export-2"]
    assert [export.export_id for export in earlier] == ["export-1"]
