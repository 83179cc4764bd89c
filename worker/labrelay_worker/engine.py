"""Run one export: the heart of labrelay. Knows no Celery, no Redis and no plugin by name.

An export is claimed; while something may start, the planned destinations are started side by side; each writes its
intent, is called, and its receipt is written at once; when nothing moves any more, the verdict is settled.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Protocol

from labrelay.context import ExportContext
from labrelay.errors import DeliveryError, Held, OutcomeUnknown
from labrelay.priorities import Priority
from labrelay.results import Delivery, DeliveryState, DestinationInfo, ExportState, Receipt
from labrelay.strategies import Strategy, Verdict, not_needed, verdict
from labrelay_worker.linking import after_failed_link, missing_links
from labrelay_worker.planning import Hold, NextSteps, next_steps, onlookers
from labrelay_worker.retrying import RetryPolicy, after_failure
from labrelay_worker.sidebyside import SideBySide

#: Seconds between two looks of an export with calls under way for what may start beside them.
_LOOK_EVERY = 5.0


class Job(Protocol):
    """One claimed export. Writes raise `LeaseLost` when another worker owns it by now."""

    context: ExportContext
    strategy: Strategy
    priority: Priority
    created: float
    deliveries: dict[str, Delivery]
    receipts: dict[str, Receipt]
    open_intents: set[str]
    #: Of the open intents, those of an earlier revision, by destination.
    earlier_intents: dict[str, int]

    @property
    def cancel_requested(self) -> bool:
        """Whether somebody wants it to stop."""

    def now(self) -> float:
        """Return the server's time, epoch seconds."""

    def require_lease(self) -> None:
        """Raise `LeaseLost` if the lease may have ended."""

    async def write_intent(self, name: str) -> None:
        """Record that a send is about to begin; raises `Held` when it must not, because a cancel was asked for."""

    async def write_receipt(self, name: str, receipt: Receipt) -> None:
        """Record a confirmed delivery. It may be on its way when this returns; no later write overtakes it."""

    async def write_previous(self, name: str, receipt: Receipt) -> None:
        """Record that the earlier revision had arrived."""

    async def write_failure(self, name: str, delivery: Delivery, *, doubtful: bool) -> None:
        """Record a failed attempt; a doubtful one keeps its intent open."""

    async def write_link(self, name: str, receipt: Receipt) -> None:
        """Record that a delivered entry has its link by now."""

    async def write_failed_link(self, name: str, delivery: Delivery) -> None:
        """Record that a delivered entry's link could not be added."""

    async def write_skips(self, names: list[str], reason: str) -> None:
        """Record destinations that are not needed."""

    async def settle(
        self, state: ExportState, summary: str, *, not_before: float = 0.0, held_by: Sequence[str] = ()
    ) -> None:
        """Give the export back with its state; it is woken earlier when a destination in `held_by` takes again."""


class Host(Protocol):
    """One destination as the engine sees it: everything it raises is a `DeliveryError`."""

    @property
    def info(self) -> DestinationInfo:
        """Name, priority and waits as planned."""

    @property
    def can_ask(self) -> bool:
        """Whether it can be asked, or sent to again, after an unknown outcome."""

    @property
    def can_link(self) -> bool:
        """Whether a link can be added to an entry that is there."""

    def held(self) -> Hold | None:
        """Return why the destination as a whole takes nothing now, None if it does; asked often, so it is cheap."""

    def slot(self, priority: Priority) -> AbstractAsyncContextManager[None]:
        """Hold a place at the destination; waiting for one happens before the intent, so it is never doubtful.

        Urgent ones overtake the others there, too. Raises `Held` if the destination takes nothing by now.
        """

    async def export(self, context: ExportContext, *, attempt: int) -> Receipt:
        """Send the record and return its receipt."""

    async def resolve_doubt(self, context: ExportContext, *, attempt: int) -> Receipt | None:
        """Return the receipt if an earlier send arrived, None if it may be sent again, else raise."""

    async def link(self, context: ExportContext, receipt: Receipt) -> Receipt:
        """Add links to what was delivered meanwhile to the entry of the receipt; safe to repeat."""


@dataclass(frozen=True)
class Policy:
    """What the settings decide for every export."""

    retry: RetryPolicy
    link_wait: float = 900.0
    jitter: Callable[[], float] = random.random


async def run_export(job: Job, hosts: Mapping[str, Host], policy: Policy, stopping: Callable[[], bool]) -> Verdict:
    """Deliver a claimed export as far as it goes now, settle it, and say how it stands.

    Raises
    ------
    LeaseLost
        Another worker owns it; nothing more was written.
    """
    ordered = [host.info for host in hosts.values()]
    linkable = {name for name, host in hosts.items() if host.can_link}
    sending = SideBySide()
    try:
        while True:
            steps = next_steps(
                job.strategy, ordered, job.deliveries,
                now=job.now(), created=job.created, link_wait=policy.link_wait,
                closed=lambda name: hosts[name].held(),
                missing_links=missing_links({name: r for name, r in job.receipts.items() if name in linkable}),
            )  # fmt: skip
            if (steps.start or steps.link) and not (stopping() or job.cancel_requested):
                context = _with_results(job)  # one for all that start together: each writes it on the wire
                for step, names in ((_deliver, steps.start), (_link, steps.link)):
                    for name in names:
                        before = job.deliveries[name]
                        job.deliveries[name] = before.with_values(state=DeliveryState.SENDING)
                        sending.add(step(job, hosts[name], context, before, policy))
            if not sending:
                return await _settle(job, steps, policy, onlookers(ordered))
            await sending.one_ended(_until_next_look(job, steps))
    finally:
        await sending.stop()


def _until_next_look(job: Job, steps: NextSteps) -> float | None:
    """Return in how many seconds something may start beside the calls under way; one that hangs holds up no other."""
    held = [*steps.held.values(), *steps.held_links.values()]
    # What waits for a call under way starts when that has ended, not sooner.
    ends = [h.until for h in held if all(job.deliveries[n].state is not DeliveryState.SENDING for n in h.awaits)]
    if not ends:
        return None
    # Nobody tells a running export that a destination takes deliveries again, so it looks now and then.
    left = min(ends) - job.now()
    return min(left, _LOOK_EVERY) if left > 0 else _LOOK_EVERY


async def _deliver(job: Job, host: Host, context: ExportContext, before: Delivery, policy: Policy) -> None:
    name = host.info.name
    in_doubt = name in job.open_intents
    try:
        async with host.slot(job.priority):
            receipt = None
            # Where nobody can be asked and the settings say `retry`, asking again for ever would never send.
            if in_doubt and (host.can_ask or policy.retry.on_unknown == "park"):
                context, receipt = await _resolve_doubt(job, host, context, before.attempts)
            in_doubt = False
            if receipt is None:
                await job.write_intent(name)
                job.require_lease()
                receipt = await host.export(context, attempt=before.attempts + 1)
    except Held:
        job.deliveries[name] = before  # nothing was tried: `next_steps` says what holds it
    except DeliveryError as error:
        if host.info.lossy:  # a viewer costs an export nothing: neither a retry nor a failure
            seen = before.model_copy(update={"state": DeliveryState.SKIPPED, "reason": str(error), "retry_at": None})
            told = {"error_kind": error.kind, "error_message": str(error), "attempts": before.attempts + 1}
            await job.write_failure(name, seen.model_copy(update=told), doubtful=False)
            return
        doubtful = in_doubt or isinstance(error, OutcomeUnknown)
        after = after_failure(
            error, before,
            now=job.now(), policy=policy.retry, can_ask=host.can_ask, jitter=policy.jitter(), doubtful=doubtful,
        )  # fmt: skip
        await job.write_failure(name, after, doubtful=doubtful)
    else:
        await job.write_receipt(name, receipt)


async def _link(job: Job, host: Host, context: ExportContext, before: Delivery, policy: Policy) -> None:
    name = host.info.name
    try:
        async with host.slot(job.priority):
            job.require_lease()
            receipt = await host.link(context, job.receipts[name])
    except Held:
        job.deliveries[name] = before
    except DeliveryError as error:
        after = after_failed_link(error, before, now=job.now(), policy=policy.retry, jitter=policy.jitter())
        await job.write_failed_link(name, after)
    else:
        await job.write_link(name, receipt)


def _with_results(job: Job) -> ExportContext:
    # What the submitter knows of earlier deliveries is linked to as well.
    return job.context.with_results({name: receipt.as_result() for name, receipt in job.receipts.items()})


async def _resolve_doubt(
    job: Job, host: Host, context: ExportContext, attempt: int
) -> tuple[ExportContext, Receipt | None]:
    """Ask how an earlier send ended; return the context to send and, if that is not needed, the receipt."""
    name = host.info.name
    earlier = job.earlier_intents.get(name)
    if earlier is None:
        return context, await host.resolve_doubt(context, attempt=attempt)
    # Another revision was being sent when this one replaced it. Found, it is what this one updates in place.
    found = await host.resolve_doubt(context.of_revision(earlier, {}), attempt=attempt)
    if found is None:
        return context, None
    await job.write_previous(name, found)
    job.context = job.context.of_revision(context.revision, {**job.context.previous_receipts, name: found})
    return context.of_revision(context.revision, job.context.previous_receipts), None


async def _settle(job: Job, steps: NextSteps, policy: Policy, aside: Collection[str]) -> Verdict:
    await _skip_what_is_not_needed(job, aside)
    result = verdict(job.strategy, _counted(job, aside))
    unseen = [name for name in aside if not job.deliveries[name].state.is_settled]
    if unseen and result.state.is_final:
        await job.write_skips(unseen, "it takes nothing now, and no export waits for a viewer")
    links = steps.link or steps.held_links
    if job.cancel_requested and not result.state.is_final:
        result = replace(result, state=ExportState.CANCELLED)
    elif links and not job.cancel_requested:
        result = replace(result, state=ExportState.WAITING)
    if result.state is not ExportState.WAITING:
        await job.settle(result.state, str(result))
    elif steps.start or steps.link:
        # Stopped while something could start: another worker goes on at once.
        await job.settle(ExportState.QUEUED, f"{result}; handed back at shutdown")
    else:
        # Nothing held means that no destination is chosen: only other settings can change that.
        due = steps.look_again_at or job.now() + policy.retry.misconfigured_delay
        summary = f"{result}; {steps.why_held or 'no destination is enabled for it'}"
        await job.settle(ExportState.WAITING, summary, not_before=due, held_by=steps.held_by)
    return result


async def _skip_what_is_not_needed(job: Job, aside: Collection[str]) -> None:
    skips = not_needed(job.strategy, _counted(job, aside))
    reason = f"{job.strategy}: another destination has it"
    in_doubt = [name for name in skips if name in job.open_intents]
    if in_doubt:
        await job.write_skips(in_doubt, f"{reason}; an earlier send may have arrived here too")
    if len(in_doubt) < len(skips):
        await job.write_skips([name for name in skips if name not in in_doubt], reason)


def _counted(job: Job, aside: Collection[str]) -> dict[str, DeliveryState]:
    return {name: delivery.state for name, delivery in job.deliveries.items() if name not in aside}
