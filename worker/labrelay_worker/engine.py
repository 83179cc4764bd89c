"""Run one export: the heart of labrelay. Knows no Celery, no Redis and no plugin by name.

An export is claimed; while something may start, the planned destinations are started side by side; each writes its
intent, is called, and its receipt is written at once; when nothing moves any more, the verdict is settled.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from labrelay.context import ExportContext
from labrelay.errors import DeliveryError, Held, OutcomeUnknown
from labrelay.results import Delivery, DeliveryState, DestinationInfo, ExportState, Receipt
from labrelay.strategies import Strategy, Verdict, not_needed, verdict
from labrelay_worker.planning import Hold, NextSteps, next_steps
from labrelay_worker.retrying import RetryPolicy, after_failure


class Job(Protocol):
    """One claimed export. Writes raise `LeaseLost` when another worker owns it by now."""

    context: ExportContext
    strategy: Strategy
    created: float
    deliveries: dict[str, Delivery]
    receipts: dict[str, Receipt]
    open_intents: set[str]
    #: Of the open intents, those of an earlier revision, by destination.
    earlier_intents: dict[str, int]
    cancel_requested: bool

    def now(self) -> float:
        """Return the server's time, epoch seconds."""

    def require_lease(self) -> None:
        """Raise `LeaseLost` if the lease may have ended."""

    async def write_intent(self, name: str) -> None:
        """Record that a send is about to begin."""

    async def write_receipt(self, name: str, receipt: Receipt) -> None:
        """Record a confirmed delivery."""

    async def write_previous(self, name: str, receipt: Receipt) -> None:
        """Record that the earlier revision had arrived."""

    async def write_failure(self, name: str, delivery: Delivery, *, doubtful: bool) -> None:
        """Record a failed attempt; a doubtful one keeps its intent open."""

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

    def held(self) -> Hold | None:
        """Return why the destination as a whole takes nothing now, None if it does; asked often, so it is cheap."""

    def slot(self) -> AbstractAsyncContextManager[None]:
        """Hold a place at the destination; waiting for one happens before the intent, so it is never doubtful.

        Raises `Held` if the destination takes nothing by now.
        """

    async def export(self, context: ExportContext, *, attempt: int) -> Receipt:
        """Send the record and return its receipt."""

    async def resolve_doubt(self, context: ExportContext, *, attempt: int) -> Receipt | None:
        """Return the receipt if an earlier send arrived, None if it may be sent again, else raise."""


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
    sending: dict[asyncio.Task[None], str] = {}
    try:
        while True:
            steps = next_steps(
                job.strategy, ordered, job.deliveries,
                now=job.now(), created=job.created, link_wait=policy.link_wait,
                closed={name: hold for name, host in hosts.items() if (hold := host.held()) is not None},
            )  # fmt: skip
            if not (stopping() or job.cancel_requested):
                for name in steps.start:
                    before = job.deliveries[name]
                    job.deliveries[name] = before.model_copy(update={"state": DeliveryState.SENDING})
                    sending[asyncio.create_task(_deliver(job, hosts[name], before, policy))] = name
            if not sending:
                return await _settle(job, steps, policy)
            done, _ = await asyncio.wait(sending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                del sending[task]
                task.result()
    finally:
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)


async def _deliver(job: Job, host: Host, before: Delivery, policy: Policy) -> None:
    name = host.info.name
    context = job.context.model_copy(
        update={"previous_results": {n: receipt.as_result() for n, receipt in job.receipts.items()}}
    )
    in_doubt = name in job.open_intents
    try:
        async with host.slot():
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
        doubtful = in_doubt or isinstance(error, OutcomeUnknown)
        after = after_failure(
            error, before,
            now=job.now(), policy=policy.retry, can_ask=host.can_ask, jitter=policy.jitter(), doubtful=doubtful,
        )  # fmt: skip
        await job.write_failure(name, after, doubtful=doubtful)
    else:
        await job.write_receipt(name, receipt)


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


async def _settle(job: Job, steps: NextSteps, policy: Policy) -> Verdict:
    skips = not_needed(job.strategy, {name: d.state for name, d in job.deliveries.items()})
    reason = f"{job.strategy}: another destination has it"
    in_doubt = [name for name in skips if name in job.open_intents]
    if in_doubt:
        await job.write_skips(in_doubt, f"{reason}; an earlier send may have arrived here too")
    if len(in_doubt) < len(skips):
        await job.write_skips([name for name in skips if name not in in_doubt], reason)
    result = verdict(job.strategy, {name: d.state for name, d in job.deliveries.items()})
    if job.cancel_requested and not result.state.is_final:
        result = Verdict(ExportState.CANCELLED, result.delivered, result.of)
    if result.state is not ExportState.WAITING:
        await job.settle(result.state, str(result))
    elif steps.start:
        # Stopped while something could start: another worker goes on at once.
        await job.settle(ExportState.QUEUED, f"{result}; handed back at shutdown")
    else:
        held = "; ".join(f"{name}: {hold.reason}" for name, hold in steps.held.items())
        # Nothing held means that no destination is chosen: only other settings can change that.
        due = steps.look_again_at or job.now() + policy.retry.misconfigured_delay
        summary = f"{result}; {held or 'no destination is enabled for it'}"
        await job.settle(ExportState.WAITING, summary, not_before=due, held_by=steps.held_by)
    return result
