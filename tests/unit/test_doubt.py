"""Giving up never hides a doubt, and a doubt about an earlier revision is not one about the present."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from labrelay.context import ExportContext
from labrelay.errors import DeliveryError, OutcomeUnknown, Rejected, Transient
from labrelay.priorities import Priority
from labrelay.results import Delivery, DeliveryState, DestinationInfo, Receipt, utc_now
from labrelay.strategies import Strategy
from labrelay_worker.engine import Policy, run_export
from labrelay_worker.inline import InlineJob
from labrelay_worker.retrying import RetryPolicy, after_failure


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
