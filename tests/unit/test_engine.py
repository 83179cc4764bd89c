"""The engine on one export in memory, with hosts that do as they are told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from labrelay.context import ExportContext
from labrelay.errors import (
    DeliveryError,
    Held,
    LeaseLost,
    Misconfigured,
    OutcomeUnknown,
    RateLimited,
    Rejected,
    Transient,
    Unavailable,
)
from labrelay.priorities import Priority
from labrelay.results import Delivery, DeliveryState, DestinationInfo, ExportResult, ExportState, Receipt, utc_now
from labrelay.strategies import Strategy, Verdict
from labrelay_worker import engine
from labrelay_worker.engine import Policy, run_export
from labrelay_worker.inline import InlineJob, export_inline
from labrelay_worker.planning import Hold
from labrelay_worker.retrying import RetryPolicy

NOW = 1_800_000_000.0
POLICY = Policy(retry=RetryPolicy(), jitter=lambda: 0.5)


class Job(InlineJob):
    """An export in memory whose clock stands still, and which notes every step in one log with the hosts."""

    def __init__(self, context: ExportContext, strategy: str, *hosts: Host) -> None:
        super().__init__(context, Strategy(strategy), [host.info.name for host in hosts])
        self.created = NOW
        self.lease = True
        self.log: list[str] = []
        self.not_before = 0.0
        self.summary = ""
        for host in hosts:
            host.log = self.log

    def now(self) -> float:
        return NOW

    def require_lease(self) -> None:
        if not self.lease:
            raise LeaseLost

    async def write_intent(self, name: str) -> None:
        await super().write_intent(name)
        self.log.append(f"intent {name}")

    async def write_receipt(self, name: str, receipt: Receipt) -> None:
        self.require_lease()
        await super().write_receipt(name, receipt)
        self.log.append(f"receipt {name}")

    async def write_failure(self, name: str, delivery: Delivery, *, doubtful: bool) -> None:
        await super().write_failure(name, delivery, doubtful=doubtful)
        self.log.append(f"{delivery.state} {name}")

    async def write_skips(self, names: list[str], reason: str) -> None:
        await super().write_skips(names, reason)
        self.log += [f"skipped {name}" for name in names]

    async def settle(
        self, state: ExportState, summary: str, *, not_before: float = 0.0, held_by: Sequence[str] = ()
    ) -> None:
        await super().settle(state, summary, not_before=not_before, held_by=held_by)
        self.not_before, self.summary = not_before, summary
        self.log.append(f"settle {state}")


class Host:
    """A destination that answers as told: raises each error in turn, then succeeds."""

    def __init__(
        self,
        name: str,
        *errors: DeliveryError,
        priority: int = 50,
        waits_for: tuple[str, ...] | None = (),
        can_ask: bool = True,
        found: Receipt | DeliveryError | None = None,
        before: Callable[[], Coroutine[Any, Any, object]] | None = None,
        no_slot: DeliveryError | None = None,
        link_errors: Sequence[DeliveryError] = (),
    ) -> None:
        self.info = DestinationInfo(name=name, type="fake", priority=priority, waits_for=waits_for)
        self.can_ask = can_ask
        self.contexts: list[ExportContext] = []
        self.attempts: list[int] = []
        self.log: list[str] = []
        self.can_link = True
        self._link_errors = list(link_errors)
        self._errors, self._found, self._before, self._no_slot = list(errors), found, before, no_slot

    def held(self) -> Hold | None:
        return None

    @asynccontextmanager
    async def slot(self, priority: Priority) -> AsyncIterator[None]:
        if self._no_slot is not None:
            raise self._no_slot
        yield

    async def export(self, context: ExportContext, *, attempt: int) -> Receipt:
        self.contexts.append(context)
        self.attempts.append(attempt)
        self.log.append(f"send {self.info.name}")
        if self._before is not None:
            await self._before()
        if self._errors:
            raise self._errors.pop(0)
        missing = [name for name in self.info.waits_for or () if not context.has_successful_export(name)]
        return receipt(self.info.name, unlinked=missing)

    async def link(self, context: ExportContext, receipt: Receipt) -> Receipt:
        self.contexts.append(context)
        self.log.append(f"link {self.info.name}")
        if self._link_errors:
            raise self._link_errors.pop(0)
        return receipt.model_copy(update={"metadata": {}})

    async def resolve_doubt(self, context: ExportContext, *, attempt: int) -> Receipt | None:
        self.log.append(f"ask {self.info.name}")
        if isinstance(self._found, DeliveryError):
            raise self._found
        return self._found


def receipt(name: str, *, adopted: bool = False, unlinked: Sequence[str] = ()) -> Receipt:
    return Receipt(
        destination=name,
        record_id=f"id-{name}",
        record_url=f"https://x/{name}",
        adopted=adopted,
        at=utc_now(),
        metadata={"unlinked": list(unlinked)} if unlinked else {},
    )


def run(job: Job, *hosts: Host, policy: Policy = POLICY, stopping: Callable[[], bool] = lambda: False) -> Verdict:
    async def bounded() -> Verdict:
        async with asyncio.timeout(20):  # a deadlock fails the test instead of holding up the run
            return await run_export(job, {host.info.name: host for host in hosts}, policy, stopping)

    return asyncio.run(bounded())


def states(job: Job) -> dict[str, DeliveryState]:
    return {name: delivery.state for name, delivery in job.deliveries.items()}


@pytest.fixture
def context(make_context: Callable[..., ExportContext]) -> ExportContext:
    return make_context()


# --- the strategies ------------------------------------------------------------------------------------


def test_all_delivers_to_every_destination(context: ExportContext) -> None:
    # Given two destinations that accept
    a, b = Host("a"), Host("b")
    job = Job(context, "all", a, b)
    # When the export runs
    verdict = run(job, a, b)
    # Then both have it and the export is delivered
    assert verdict == Verdict(ExportState.DELIVERED, 2, 2)
    assert job.receipts.keys() == {"a", "b"}
    assert job.state is ExportState.DELIVERED


def test_all_still_delivers_to_the_others_when_one_refuses_for_good(context: ExportContext) -> None:
    # Given that the first destination rejects the record
    a, b = Host("a", Rejected("no"), priority=90), Host("b", priority=10)
    job = Job(context, "all", a, b)
    # When the export runs
    verdict = run(job, a, b)
    # Then the second has it, and the export says that it is partial
    assert verdict == Verdict(ExportState.DEAD, 1, 2)
    assert job.summary == "1 of 2 delivered"


def test_all_retries_only_the_one_that_failed_for_now(context: ExportContext) -> None:
    # Given a destination that is away for now
    a, b = Host("a", Transient("later")), Host("b")
    job = Job(context, "all", a, b)
    # When the export runs
    run(job, a, b)
    # Then it waits for that one alone, until its back-off ends
    assert states(job) == {"a": DeliveryState.RETRYING, "b": DeliveryState.DELIVERED}
    assert job.state is ExportState.WAITING
    assert job.not_before == job.deliveries["a"].retry_at > NOW


def test_first_success_skips_the_rest_without_asking_them(context: ExportContext) -> None:
    # Given two destinations
    a, b = Host("a", priority=90), Host("b", priority=10)
    job = Job(context, "first_success", a, b)
    # When the first has it
    verdict = run(job, a, b)
    # Then the second is never called
    assert verdict.state is ExportState.DELIVERED
    assert b.contexts == []
    assert states(job)["b"] is DeliveryState.SKIPPED


@pytest.mark.parametrize("error", [Transient("later"), Rejected("no"), Misconfigured("token")])
def test_first_success_moves_on_at_once_when_one_fails(context: ExportContext, error: DeliveryError) -> None:
    # Given that the first destination fails, for now or for good
    a, b = Host("a", error, priority=90), Host("b", priority=10)
    job = Job(context, "first_success", a, b)
    # When the export runs
    verdict = run(job, a, b)
    # Then the second has it in the same run
    assert verdict == Verdict(ExportState.DELIVERED, 1, 2)
    assert [line for line in job.log if line.startswith("send")] == ["send a", "send b"]


def test_first_success_sends_to_one_at_a_time(context: ExportContext) -> None:
    # Given a first destination that gives the loop every chance to start another
    async def linger() -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    a, b = Host("a", Transient("later"), priority=90, before=linger), Host("b", priority=10)
    job = Job(context, "first_success", a, b)
    # When it fails after a while
    run(job, a, b)
    # Then the second was started only after that was written down
    assert job.log.index("retrying a") < job.log.index("intent b")


def test_best_effort_forgives_a_failure_for_good(context: ExportContext) -> None:
    # Given one destination that refuses
    a, b = Host("a", Rejected("no")), Host("b")
    job = Job(context, "best_effort", a, b)
    # When the export runs
    verdict = run(job, a, b)
    # Then one delivery is enough
    assert verdict == Verdict(ExportState.DELIVERED, 1, 2)


def test_an_export_without_destinations_waits_and_is_not_due_at_once(context: ExportContext) -> None:
    # Given that nothing is enabled on this worker
    job = Job(context, "all")
    # When the export runs
    run(job)
    # Then it waits with a reason, instead of being claimed again and again
    assert job.state is ExportState.WAITING
    assert job.not_before > NOW
    assert "no destination" in job.summary


# --- order and links -----------------------------------------------------------------------------------


def test_a_destination_sees_the_result_of_the_one_it_waits_for(context: ExportContext) -> None:
    # Given a notebook that links to the repository, although its priority is higher
    repository, notebook = Host("cdcs", priority=10), Host("notebook", priority=90, waits_for=("cdcs",))
    job = Job(context, "all", repository, notebook)
    # When the export runs
    run(job, repository, notebook)
    # Then the notebook was called with the repository's record
    assert notebook.contexts[0].previous_results["cdcs"].record_url == "https://x/cdcs"
    assert context.previous_results == {}


def test_what_was_delivered_before_labrelay_is_linked_to(context: ExportContext) -> None:
    # Given a submitter that knows of a record at the repository, and an export for the notebook alone
    known = ExportResult(success=True, destination_name="cdcs", record_url="https://x/earlier")
    notebook = Host("notebook", waits_for=("cdcs",))
    job = Job(context.model_copy(update={"previous_results": {"cdcs": known}}), "all", notebook)
    # When the export runs
    run(job, notebook)
    # Then the notebook links to it
    assert notebook.contexts[0].previous_results == {"cdcs": known}


def test_a_destination_of_the_seed_sees_every_result_of_higher_priority(context: ExportContext) -> None:
    # Given a class that says nothing of links
    a, b, seed = Host("a", priority=90), Host("b", priority=80), Host("seed", priority=10, waits_for=None)
    job = Job(context, "all", a, b, seed)
    # When the export runs
    run(job, a, b, seed)
    # Then both results are visible to it
    assert seed.contexts[0].previous_results.keys() == {"a", "b"}


def test_a_link_goes_missing_only_after_the_awaited_one_had_its_turn(context: ExportContext) -> None:
    # Given an export that lay in the queue longer than link_wait
    a, b = Host("a", priority=90), Host("b", priority=10, waits_for=("a",))
    job = Job(context, "all", a, b)
    job.created = NOW - 10 * POLICY.link_wait
    # When the awaited destination works
    run(job, a, b)
    # Then the later one is linked all the same
    assert b.contexts[0].has_successful_export("a")


def test_a_destination_goes_unlinked_when_the_awaited_one_fails_for_longer_than_link_wait(
    context: ExportContext,
) -> None:
    # Given a destination that fails for now, and link_wait over
    a, b = Host("a", Transient("later"), priority=90), Host("b", priority=10, waits_for=("a",))
    job = Job(context, "all", a, b)
    job.created = NOW - POLICY.link_wait
    # When the export runs
    run(job, a, b)
    # Then the other one does not wait for it any longer
    assert states(job) == {"a": DeliveryState.RETRYING, "b": DeliveryState.DELIVERED}
    assert b.contexts[0].previous_results == {}


def test_destinations_that_wait_for_each_other_go_on_after_link_wait(context: ExportContext) -> None:
    # Given a circle of links and link_wait over
    a, b = Host("a", waits_for=("b",)), Host("b", waits_for=("a",))
    job = Job(context, "all", a, b)
    job.created = NOW - POLICY.link_wait
    # When the export runs
    verdict = run(job, a, b)
    # Then both are delivered
    assert verdict.state is ExportState.DELIVERED


def test_independent_destinations_run_side_by_side(context: ExportContext) -> None:
    # Given two destinations, each of which ends only once the other has begun
    began = {"a": asyncio.Event(), "b": asyncio.Event()}

    def meet(own: str, other: str) -> Callable[[], Coroutine[Any, Any, object]]:
        async def wait() -> None:
            began[own].set()
            await began[other].wait()

        return wait

    a, b = Host("a", priority=90, before=meet("a", "b")), Host("b", priority=10, before=meet("b", "a"))
    job = Job(context, "all", a, b)
    # When the export runs
    verdict = run(job, a, b)
    # Then neither waited for the other to end
    assert verdict.state is ExportState.DELIVERED


class Moving(Job):
    """An export whose clock goes on."""

    def now(self) -> float:
        return NOW + time.monotonic()


def test_a_call_that_hangs_holds_up_no_retry_of_another_destination(context: ExportContext) -> None:
    # Given one destination that answers nothing until the other, which fails at first, has the record
    answers = asyncio.Event()

    async def second_try() -> None:
        if b.attempts == [1, 2]:
            answers.set()

    a, b = Host("a", before=answers.wait), Host("b", Transient("busy"), before=second_try)
    job = Moving(context, "all", a, b)
    # When the export runs, then the other is tried again meanwhile
    run(job, a, b, policy=Policy(retry=RetryPolicy(first_delay=0.02), jitter=lambda: 0.5))
    assert job.log[-4:] == ["send b", "receipt b", "receipt a", "settle delivered"]


def test_a_call_that_hangs_holds_up_no_destination_that_takes_deliveries_again(
    context: ExportContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given one destination that answers nothing until the other, which takes nothing at first, has the record
    monkeypatch.setattr(engine, "_LOOK_EVERY", 0.01)
    answers = asyncio.Event()

    class Closed(Host):
        looks = 0

        def held(self) -> Hold | None:
            self.looks += 1
            return Hold(job.now() + 900, "unavailable", whole_destination=True) if self.looks < 3 else None

    async def opened() -> None:
        answers.set()

    a, b = Host("a", before=answers.wait), Closed("b", before=opened)
    job = Moving(context, "all", a, b)
    # When the export runs, then the other has it as soon as it takes deliveries again
    run(job, a, b)
    assert job.log[-4:] == ["send b", "receipt b", "receipt a", "settle delivered"]


def test_what_waits_for_a_running_call_costs_no_look(context: ExportContext) -> None:
    # Given an entry that waits for the record it links to, which is being sent
    task: list[object] = []

    async def note() -> None:
        task.append(asyncio.current_task())

    a, b = Host("a", priority=90, before=note), Host("b", waits_for=("a",))
    job = Moving(context, "all", a, b)

    # When the export runs, then the record is sent in the export's own task
    async def one() -> None:
        await run_export(job, {"a": a, "b": b}, POLICY, lambda: False)
        assert task == [asyncio.current_task()]

    asyncio.run(one())


def test_a_result_of_an_earlier_run_is_visible(context: ExportContext) -> None:
    # Given an export that delivered to one destination in an earlier run
    a, b = Host("a"), Host("b")
    job = Job(context, "all", a, b)
    job.receipts["a"], job.deliveries["a"] = receipt("a"), Delivery(state=DeliveryState.DELIVERED)
    # When it runs again
    run(job, a, b)
    # Then the other one can link to it
    assert b.contexts[0].get_result("a").record_id == "id-a"


def test_the_host_gets_revision_and_previous_receipts(context: ExportContext) -> None:
    # Given a second revision
    a = Host("a")
    job = Job(context.of_revision(2, {"a": receipt("a")}), "all", a)
    # When the export runs
    run(job, a)
    # Then the destination can update its object in place
    assert a.contexts[0].revision == 2
    assert a.contexts[0].previous_receipts.keys() == {"a"}


# --- what is written when ------------------------------------------------------------------------------


def test_the_intent_is_written_before_the_call_and_the_receipt_right_after(context: ExportContext) -> None:
    # Given two destinations of which the second waits for the first
    a, b = Host("a", priority=90), Host("b", priority=10, waits_for=("a",))
    job = Job(context, "all", a, b)
    # When the export runs
    run(job, a, b)
    # Then no call is without an intent before it, and no receipt waits for another destination
    assert job.log == ["intent a", "send a", "receipt a", "intent b", "send b", "receipt b", "settle delivered"]


def test_a_receipt_does_not_wait_for_a_slower_destination(context: ExportContext) -> None:
    # Given a slow destination that ends only once the quick one's receipt is written
    quick = Host("quick")

    async def until_receipt() -> None:
        while "receipt quick" not in job.log:
            await asyncio.sleep(0)

    slow = Host("slow", before=until_receipt)
    job = Job(context, "all", quick, slow)
    # When the export runs, then it ends
    assert run(job, quick, slow).state is ExportState.DELIVERED


def test_the_lease_is_checked_between_intent_and_call(context: ExportContext) -> None:
    # Given a worker that was frozen past its lease
    a = Host("a")
    job = Job(context, "all", a)
    job.lease = False
    # When the export runs, then it stops
    with pytest.raises(LeaseLost):
        run(job, a)
    # And nothing was sent or settled
    assert job.log == ["intent a"]


def test_a_destination_without_a_free_place_leaves_no_intent(context: ExportContext) -> None:
    # Given a destination all of whose threads hang
    a = Host("a", no_slot=Unavailable("every thread is busy or hung"))
    job = Job(context, "all", a)
    # When the export runs
    run(job, a)
    # Then it waits, and nothing is in doubt
    assert job.log == ["retrying a", "settle waiting"]
    assert job.open_intents == set()


def test_waiting_for_a_place_keeps_an_open_doubt(context: ExportContext) -> None:
    # Given an open intent at a destination all of whose threads hang
    a = Host("a", no_slot=Unavailable("every thread is busy or hung"))
    job = Job(context, "all", a)
    job.open_intents = {"a"}
    # When the export runs, then it is still asked before anything is sent
    run(job, a)
    assert job.open_intents == {"a"}


def test_the_attempt_number_counts_on(context: ExportContext) -> None:
    # Given a delivery that failed twice
    a = Host("a")
    job = Job(context, "all", a)
    job.deliveries["a"] = Delivery(state=DeliveryState.RETRYING, attempts=2, retry_at=NOW - 1)
    # When it is tried again
    run(job, a)
    # Then the destination is told that this is the third attempt
    assert a.attempts == [3]


def test_a_delivery_whose_back_off_has_not_ended_is_left_alone(context: ExportContext) -> None:
    # Given a delivery that may be tried again in a minute
    a = Host("a")
    job = Job(context, "all", a)
    job.deliveries["a"] = Delivery(
        state=DeliveryState.RETRYING, attempts=1, retry_at=NOW + 60, error_kind="transient"
    )
    # When the export is run early
    run(job, a)
    # Then nothing is sent, and it is due at that time
    assert job.log == ["settle waiting"]
    assert job.not_before == NOW + 60
    assert job.summary == "0 of 1 delivered; a: transient"


def test_a_destination_that_says_retry_after_zero_is_not_hammered(context: ExportContext) -> None:
    # Given a destination that asks to slow down but names no time to wait
    a = Host("a", *(RateLimited("slow down", retry_after=0) for _ in range(5)))
    job = Job(context, "all", a)
    # When the export runs
    run(job, a)
    # Then it was sent once in this run
    assert a.attempts == [1]
    assert job.state is ExportState.WAITING


def test_a_confirmed_destination_is_never_asked_again(context: ExportContext) -> None:
    # Given an export that has been delivered to one of two
    a, b = Host("a"), Host("b", Transient("later"))
    job = Job(context, "all", a, b)
    run(job, a, b)
    job.deliveries["b"] = job.deliveries["b"].model_copy(update={"retry_at": NOW})
    # When it runs a second time
    verdict = run(job, a, b)
    # Then only the other one was sent to
    assert verdict.state is ExportState.DELIVERED
    assert (len(a.contexts), len(b.contexts)) == (1, 2)
    assert "ask a" not in job.log


# --- doubt ---------------------------------------------------------------------------------------------


def test_a_lost_answer_keeps_the_intent_open(context: ExportContext) -> None:
    # Given a destination whose answer is lost
    a = Host("a", OutcomeUnknown("lost"))
    job = Job(context, "all", a)
    # When the export runs
    run(job, a)
    # Then it is in doubt, and tried again later
    assert job.open_intents == {"a"}
    assert states(job) == {"a": DeliveryState.RETRYING}


def test_a_certain_failure_closes_the_intent(context: ExportContext) -> None:
    # Given a destination that fails for certain
    a = Host("a", Transient("later"))
    job = Job(context, "all", a)
    # When the export runs, then nothing is in doubt
    run(job, a)
    assert job.open_intents == set()


def test_what_was_found_is_adopted_and_not_sent_again(context: ExportContext) -> None:
    # Given an open intent, and a destination that has the record
    a = Host("a", found=receipt("a", adopted=True))
    job = Job(context, "all", a)
    job.open_intents = {"a"}
    # When the export runs
    verdict = run(job, a)
    # Then the receipt is adopted without sending
    assert verdict.state is ExportState.DELIVERED
    assert job.log == ["ask a", "receipt a", "settle delivered"]
    assert job.receipts["a"].adopted


def test_what_was_not_found_is_sent(context: ExportContext) -> None:
    # Given an open intent, and a destination that certainly has not the record
    a = Host("a")
    job = Job(context, "all", a)
    job.open_intents = {"a"}
    # When the export runs
    run(job, a)
    # Then it is asked first and sent then
    assert job.log == ["ask a", "intent a", "send a", "receipt a", "settle delivered"]


def test_the_intent_stays_open_when_asking_fails(context: ExportContext) -> None:
    # Given an open intent, and a destination that cannot answer now
    a = Host("a", found=Transient("busy"))
    job = Job(context, "all", a)
    job.open_intents = {"a"}
    # When the export runs
    run(job, a)
    # Then nothing is sent, and it is asked again before anything is
    assert job.log == ["ask a", "retrying a", "settle waiting"]
    assert job.open_intents == {"a"}


def test_an_error_of_sending_after_the_doubt_is_resolved_closes_the_intent(context: ExportContext) -> None:
    # Given an open intent of a record that did not arrive
    a = Host("a", Transient("later"))
    job = Job(context, "all", a)
    job.open_intents = {"a"}
    # When sending it again fails for certain
    run(job, a)
    # Then nothing is in doubt any more
    assert job.open_intents == set()


def test_a_destination_that_cannot_be_asked_is_parked_for_a_person(context: ExportContext) -> None:
    # Given an open intent at a destination that cannot be asked
    a = Host("a", can_ask=False, found=OutcomeUnknown("a worker ended while sending"))
    job = Job(context, "all", a)
    job.open_intents = {"a"}
    # When the export runs
    verdict = run(job, a)
    # Then nothing is sent, and the export says so
    assert verdict.state is ExportState.UNKNOWN
    assert states(job) == {"a": DeliveryState.UNKNOWN}
    assert job.open_intents == {"a"}


def test_a_destination_that_cannot_be_asked_is_sent_again_where_the_settings_say_so(context: ExportContext) -> None:
    # Given an open intent, and on_unknown = "retry"
    a = Host("a", can_ask=False, found=OutcomeUnknown("a worker ended while sending"))
    job = Job(context, "all", a)
    job.open_intents = {"a"}
    # When the export runs
    verdict = run(job, a, policy=Policy(retry=RetryPolicy(on_unknown="retry")))
    # Then it is sent, since nobody can be asked
    assert verdict.state is ExportState.DELIVERED
    assert a.attempts == [1]


# --- losing, stopping, cancelling ----------------------------------------------------------------------


def test_a_lost_lease_stops_every_call_and_writes_nothing_more(context: ExportContext) -> None:
    # Given one destination that is being sent to while the lease is lost at another
    ended: list[str] = []
    hangs = asyncio.Event()

    async def lose() -> None:
        await hangs.wait()
        job.lease = False

    async def hang() -> None:
        hangs.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("b")

    a, b = Host("a", before=lose), Host("b", before=hang)
    job = Job(context, "all", a, b)
    # When the receipt cannot be written, then the run ends
    with pytest.raises(LeaseLost):
        run(job, a, b)
    # And the other call is cut off, and nothing is written of either
    assert ended == ["b"]
    assert not [line for line in job.log if line.startswith(("receipt", "settle", "retrying"))]


def test_stopping_starts_nothing_and_hands_the_export_back(context: ExportContext) -> None:
    # Given a worker that shuts down
    a = Host("a")
    job = Job(context, "all", a)
    # When an export is claimed all the same
    run(job, a, stopping=lambda: True)
    # Then another worker may go on at once
    assert job.log == ["settle queued"]
    assert job.not_before == 0


def test_stopping_finishes_the_running_call_and_starts_no_other(context: ExportContext) -> None:
    # Given a worker that begins to shut down during a call
    stopping: list[bool] = []

    async def begin_shutdown() -> None:
        stopping.append(True)

    a, b = Host("a", priority=90, before=begin_shutdown), Host("b", priority=10, waits_for=("a",))
    job = Job(context, "all", a, b)
    # When the export runs
    run(job, a, b, stopping=lambda: bool(stopping))
    # Then the receipt is written, and the rest is handed back
    assert job.log == ["intent a", "send a", "receipt a", "settle queued"]


def test_stopping_keeps_a_back_off(context: ExportContext) -> None:
    # Given an export of which nothing could start anyway
    a = Host("a")
    job = Job(context, "all", a)
    job.deliveries["a"] = Delivery(state=DeliveryState.RETRYING, attempts=1, retry_at=NOW + 60)
    # When the worker shuts down
    run(job, a, stopping=lambda: True)
    # Then it still waits for its time
    assert job.state is ExportState.WAITING
    assert job.not_before == NOW + 60


def test_a_cancelled_export_starts_nothing(context: ExportContext) -> None:
    # Given a cancel that came before the claim
    a = Host("a")
    job = Job(context, "all", a)
    job.cancel_requested = True
    # When the export runs, then it ends cancelled
    assert run(job, a).state is ExportState.CANCELLED
    assert job.log == ["settle cancelled"]


def test_a_cancel_during_a_call_lets_it_finish_and_starts_no_other(context: ExportContext) -> None:
    # Given a cancel that comes while a destination is being sent to
    async def cancel() -> None:
        job.cancel_requested = True

    a, b = Host("a", priority=90, before=cancel), Host("b", priority=10, waits_for=("a",))
    job = Job(context, "all", a, b)
    # When the export runs
    verdict = run(job, a, b)
    # Then what was sent is on record, and the rest is not sent
    assert verdict == Verdict(ExportState.CANCELLED, 1, 2)
    assert job.log == ["intent a", "send a", "receipt a", "settle cancelled"]


def test_a_cancel_that_comes_too_late_does_not_hide_the_delivery(context: ExportContext) -> None:
    # Given a cancel during the last call
    async def cancel() -> None:
        job.cancel_requested = True

    a = Host("a", before=cancel)
    job = Job(context, "all", a)
    # When the call succeeds, then the export is delivered
    assert run(job, a).state is ExportState.DELIVERED


def test_an_end_of_the_process_during_a_call_settles_nothing(context: ExportContext) -> None:
    # Given a call that hangs
    hangs = asyncio.Event()

    async def hang() -> None:
        hangs.set()
        await asyncio.Event().wait()

    a = Host("a", before=hang)
    job = Job(context, "all", a)

    # When the drain time is over and the run is cancelled
    async def cut_off() -> None:
        task = asyncio.create_task(run_export(job, {"a": a}, POLICY, lambda: False))
        await hangs.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cut_off())
    # Then the open intent tells the next worker to ask
    assert job.log == ["intent a", "send a"]
    assert job.open_intents == {"a"}


# --- inline --------------------------------------------------------------------------------------------


def test_an_inline_export_leaves_its_results_in_the_context(context: ExportContext) -> None:
    # Given one destination that accepts and one that refuses
    a, b = Host("a"), Host("b", Rejected("too large"))
    # When the context is exported here and now
    results = asyncio.run(export_inline(context.model_copy(update={"previous_results": {}}), {"a": a, "b": b}, "all"))
    # Then there is one result for each, the seed's way
    assert {r.destination_name: (r.success, r.error_message) for r in results} == {
        "a": (True, None),
        "b": (False, "too large"),
    }


def test_an_inline_export_tries_each_destination_once(context: ExportContext) -> None:
    # Given a destination that is away
    a = Host("a", Transient("away"), Transient("away"))
    # When the context is exported here and now
    results = asyncio.run(export_inline(context, {"a": a}, "all"))
    # Then there was one attempt
    assert a.attempts == [1]
    assert not results[0].success


def test_a_destination_that_closes_while_a_place_is_waited_for_leaves_the_delivery_as_it_was(
    context: ExportContext,
) -> None:
    # Given a destination that takes nothing any more once the delivery asks for a place
    class Closing(Host):
        closed: Hold | None = None

        def held(self) -> Hold | None:
            return self.closed

        @asynccontextmanager
        async def slot(self, priority: Priority) -> AsyncIterator[None]:
            self.closed = Hold(job.now() + 60, "unavailable", whole_destination=True)
            raise Held
            yield

    closing = Closing("a")
    job = Job(context, "all", closing)

    # When the export runs
    run(job, closing)

    # Then nothing was tried, and it waits for that destination
    assert job.deliveries["a"].state is DeliveryState.PENDING
    assert "unavailable" in job.summary


# --- links that come late ------------------------------------------------------------------------------


def after_link_wait(context: ExportContext, *hosts: Host) -> Job:
    """Return an export that is older than ``link_wait``."""
    job = Job(context, "all", *hosts)
    job.created = NOW - POLICY.link_wait - 1
    return job


def again(job: Job) -> None:
    """Let every back-off be over."""
    job.deliveries = {n: d.model_copy(update={"retry_at": d.retry_at and NOW}) for n, d in job.deliveries.items()}
    job.log.clear()


def test_an_entry_that_went_out_unlinked_gets_its_link_when_the_record_is_there(context: ExportContext) -> None:
    # Given a notebook that went out while the repository was away for longer than link_wait
    cdcs, notebook = Host("cdcs", Transient("away"), priority=100), Host("notebook", waits_for=("cdcs",))
    job = after_link_wait(context, cdcs, notebook)
    run(job, cdcs, notebook)
    assert job.receipts["notebook"].unlinked == ("cdcs",)
    # When the repository has the record
    again(job)
    verdict = run(job, cdcs, notebook)
    # Then the link is added to the entry, which is not sent again, and the export is delivered
    assert job.log == ["intent cdcs", "send cdcs", "receipt cdcs", "link notebook", "settle delivered"]
    assert notebook.contexts[-1].previous_results["cdcs"].record_url == "https://x/cdcs"
    assert verdict == Verdict(ExportState.DELIVERED, 2, 2)
    assert job.receipts["notebook"].unlinked == ()


def test_a_link_that_fails_for_now_keeps_the_export_waiting_and_the_entry_delivered(context: ExportContext) -> None:
    # Given an unlinked entry, when its link cannot be added for now
    cdcs = Host("cdcs", Transient("away"), priority=100)
    notebook = Host("notebook", waits_for=("cdcs",), link_errors=[Transient("busy")])
    job = after_link_wait(context, cdcs, notebook)
    run(job, cdcs, notebook)
    again(job)
    run(job, cdcs, notebook)
    # Then the export waits until the link is due again
    assert job.state is ExportState.WAITING
    assert states(job)["notebook"] is DeliveryState.DELIVERED
    assert job.not_before == job.deliveries["notebook"].retry_at > NOW
    assert "notebook: its link waits (transient)" in job.summary
    # And is delivered once it is added
    again(job)
    assert run(job, cdcs, notebook).state is ExportState.DELIVERED
    assert job.log == ["link notebook", "settle delivered"]


def test_a_link_that_is_refused_is_given_up_and_the_export_ends_delivered(context: ExportContext) -> None:
    # Given an unlinked entry whose link is refused for good
    cdcs = Host("cdcs", Transient("away"), priority=100)
    notebook = Host("notebook", waits_for=("cdcs",), link_errors=[Rejected("entry is locked")])
    job = after_link_wait(context, cdcs, notebook)
    run(job, cdcs, notebook)
    again(job)
    # When it runs
    verdict = run(job, cdcs, notebook)
    # Then nothing more is tried, and the entry says why it has no link
    assert verdict.state is ExportState.DELIVERED
    assert job.deliveries["notebook"].error_message == "entry is locked"
    assert job.receipts["notebook"].unlinked == ("cdcs",)


def test_a_destination_that_cannot_link_later_is_left_as_it_is(context: ExportContext) -> None:
    # Given a destination without `link`
    cdcs, notebook = Host("cdcs", Transient("away"), priority=100), Host("notebook", waits_for=("cdcs",))
    notebook.can_link = False
    job = after_link_wait(context, cdcs, notebook)
    run(job, cdcs, notebook)
    again(job)
    # When the record is there
    verdict = run(job, cdcs, notebook)
    # Then the export is delivered
    assert verdict.state is ExportState.DELIVERED
    assert "link notebook" not in job.log
