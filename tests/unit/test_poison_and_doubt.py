"""Exports that kill their workers are parked, innocent ones beside them are not; giving up never hides a doubt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import fakeredis
import pytest

from labrelay.context import ExportContext
from labrelay.errors import DeliveryError, OutcomeUnknown, Rejected, Transient
from labrelay.ledger import Entry, Ledger
from labrelay.names import Keys
from labrelay.priorities import Priority
from labrelay.results import Delivery, DeliveryState, DestinationInfo, ExportState, Receipt, utc_now
from labrelay.strategies import Strategy
from labrelay_worker.engine import Policy, run_export
from labrelay_worker.inline import InlineJob
from labrelay_worker.ledger import Claim, WorkerLedger
from labrelay_worker.retrying import RetryPolicy, after_failure

KEYS = Keys("test:")


class Desk:
    """One worker's ledger on a fake server."""

    def __init__(self, *exports: str) -> None:
        server = fakeredis.FakeServer()
        self.redis = fakeredis.FakeRedis(server=server, decode_responses=True)
        self.client = fakeredis.FakeAsyncRedis(server=server, decode_responses=True)
        self.ledger = Ledger(self.redis, KEYS, wake_up_grace=30)
        self.worker = WorkerLedger(self.client, KEYS, owner="w", lease_seconds=30, poison_limit=5)
        self.runner = asyncio.Runner()
        self.ledger.submit([Entry(e, "d", "{}", f"session {e}", "i", "", ()) for e in exports], replace=False)

    def claim(self, export: str = "a") -> Claim | str:
        return self.runner.run(self.worker.claim(export))

    def commit(self, claim: Claim | str, *step: str) -> None:
        assert isinstance(claim, Claim)
        steps: Any = [step]
        assert self.runner.run(self.worker.commit(claim.export_id, claim.row["token"], steps)) == "ok"

    def die(self, export: str = "a", times: int = 1) -> None:
        for _ in range(times):
            assert isinstance(self.claim(export), Claim)
            self.redis.hset(KEYS.export(export), "lease_until", 1)


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk("a", "b", "c")
    yield desk
    desk.runner.run(desk.client.aclose())
    desk.runner.close()
    desk.redis.close()


def test_an_export_is_handed_out_five_times_and_then_parked(desk: Desk) -> None:
    # Given five workers that died with an export
    desk.die(times=5)
    # When a sixth asks for it, then a person gets it instead
    assert desk.claim() == "poisoned"
    status = desk.ledger.status("a")
    assert (status.state, status.cause) == (ExportState.DEAD, "poison")
    assert status.summary.startswith("killed its worker 5 times")
    assert desk.claim() == "finished"


@pytest.mark.parametrize("step", [("receipt", "cdcs", "{}"), ("settle", "queued", "0 handed back")])
def test_progress_between_deaths_begins_the_count_anew(desk: Desk, step: tuple[str, str, str]) -> None:
    # Given an export that four workers died with, and a fifth that gets on with it before it dies
    desk.die(times=4)
    desk.commit(desk.claim(), *step)
    desk.redis.hset(KEYS.export("a"), "lease_until", 1)
    # When three more die, then it is still handed out
    desk.die(times=3)
    assert isinstance(desk.claim(), Claim)


def test_suspects_run_one_at_a_time_so_that_the_innocent_are_not_parked(desk: Desk) -> None:
    # Given two exports that were running when two workers died, of which one runs again
    desk.die("a", times=2)
    desk.die("b", times=2)
    first = desk.claim("a")
    # When the other one is asked for, then it waits its turn, and an export without such a past does not
    assert desk.claim("b") == "suspect"
    assert isinstance(desk.claim("c"), Claim)
    # When the first is done, then it is the other one's turn
    desk.commit(first, "settle", "delivered", "0 1 of 1")
    assert isinstance(desk.claim("b"), Claim)


def test_a_suspect_whose_worker_died_gives_way(desk: Desk) -> None:
    desk.die("a", times=3)
    desk.die("b", times=2)
    assert isinstance(desk.claim("b"), Claim)
    assert desk.claim("a") == "suspect"


@pytest.mark.parametrize(
    ("error", "doubtful", "state"),
    [
        (Rejected("no"), False, DeliveryState.FAILED),
        (Rejected("find: no"), True, DeliveryState.UNKNOWN),
        (Transient("away"), False, DeliveryState.FAILED),
        (Transient("find: away"), True, DeliveryState.UNKNOWN),
        (OutcomeUnknown("lost"), True, DeliveryState.UNKNOWN),
    ],
)
def test_giving_up_in_doubt_leaves_it_to_a_person(error: DeliveryError, doubtful: bool, state: DeliveryState) -> None:
    # Given a delivery at the end of its attempts
    before, policy = Delivery(attempts=29, first_at=0.0), RetryPolicy(attempts=30)
    # When it fails, then it is called failed only if it certainly did not arrive
    after = after_failure(error, before, now=1.0, policy=policy, can_ask=True, jitter=0.5, doubtful=doubtful)
    assert after.state is state
    assert ("it may have arrived" in (after.reason or "")) is (state is DeliveryState.UNKNOWN)


class Host:
    """A destination that can be asked, and notes what it was asked about and what it was sent."""

    can_ask = True
    can_link = False

    def __init__(self, name: str, found: Receipt | None = None, priority: int = 50) -> None:
        self.info = DestinationInfo(name=name, type="fake", priority=priority, waits_for=())
        self.found = found
        self.asked: list[int] = []
        self.sent: list[ExportContext] = []

    def held(self) -> None:
        return None

    @asynccontextmanager
    async def slot(self, priority: Priority) -> AsyncIterator[None]:
        yield

    async def export(self, context: ExportContext, *, attempt: int) -> Receipt:
        self.sent.append(context)
        return Receipt(destination=self.info.name, record_id="new", at=utc_now())

    async def resolve_doubt(self, context: ExportContext, *, attempt: int) -> Receipt | None:
        self.asked.append(context.revision)
        return self.found


def test_an_earlier_revision_that_arrived_is_updated_and_not_taken_for_the_present_one(
    make_context: Callable[..., ExportContext],
) -> None:
    # Given revision 2, submitted while revision 1 was being sent and whose answer was lost
    earlier = Receipt(destination="a", record_id="old", adopted=True, at=utc_now())
    host = Host("a", found=earlier)
    job = InlineJob(make_context().of_revision(2, {}), Strategy.ALL, ["a"])
    job.open_intents, job.earlier_intents = {"a"}, {"a": 1}
    # When it runs
    asyncio.run(run_export(job, {"a": host}, Policy(retry=RetryPolicy()), lambda: False))
    # Then revision 1 was asked about, and revision 2 was sent over what was found
    assert host.asked == [1]
    assert [(c.revision, c.previous_receipts) for c in host.sent] == [(2, {"a": earlier})]
    assert job.receipts["a"].record_id == "new"


def test_a_skipped_destination_that_may_have_it_says_so(make_context: Callable[..., ExportContext]) -> None:
    # Given a first destination in doubt whose retry lies ahead, and a second one
    first, second = Host("first", priority=90), Host("second", priority=10)
    job = InlineJob(make_context(), Strategy.FIRST_SUCCESS, ["first", "second"])
    job.open_intents = {"first"}
    job.deliveries["first"] = Delivery(state=DeliveryState.RETRYING, attempts=1, retry_at=job.now() + 60)
    # When the second one takes it
    hosts = {"first": first, "second": second}
    asyncio.run(run_export(job, hosts, Policy(retry=RetryPolicy()), lambda: False))
    # Then the first is skipped, with the doubt
    assert job.deliveries["first"].state is DeliveryState.SKIPPED
    assert "may have arrived here too" in (job.deliveries["first"].reason or "")
    assert first.sent == []
