"""Run the engine on one context here and now: no ledger, no retries. What `export_to_all` and trials use."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from labrelay.context import ExportContext
from labrelay.priorities import Priority
from labrelay.results import Delivery, DeliveryState, ExportResult, ExportState, Receipt
from labrelay.strategies import Strategy, Verdict, parse_strategy
from labrelay_worker.engine import Host, Policy, run_export
from labrelay_worker.retrying import RetryPolicy


class InlineJob:
    """An export that lives only in memory (`labrelay_worker.engine.Job`)."""

    def __init__(self, context: ExportContext, strategy: Strategy, names: list[str]) -> None:
        self.context, self.strategy = context, strategy
        self.priority = Priority.NORMAL
        self.created = time.time()
        self.deliveries = {name: Delivery() for name in names}
        self.receipts: dict[str, Receipt] = {}
        self.open_intents: set[str] = set()
        self.earlier_intents: dict[str, int] = {}
        self.cancel_requested = False
        self.trail: list[tuple[str, str]] = []
        self.state = ExportState.RUNNING

    def now(self) -> float:
        """Return this machine's time, epoch seconds."""
        return time.time()

    def require_lease(self) -> None:
        """Hold always: nobody else knows of this export."""

    async def write_intent(self, name: str) -> None:
        """Note that a send begins."""
        self.open_intents.add(name)
        self.trail.append(("intent", name))

    async def write_receipt(self, name: str, receipt: Receipt) -> None:
        """Note a confirmed delivery."""
        self.receipts[name] = receipt
        attempts = self.deliveries[name].attempts + 1
        self.deliveries[name] = Delivery(state=DeliveryState.DELIVERED, attempts=attempts)
        self.open_intents.discard(name)
        self.trail.append(("receipt", name))

    async def write_previous(self, name: str, receipt: Receipt) -> None:
        """Note that the earlier revision had arrived."""
        self.open_intents.discard(name)
        self.trail.append(("previous", name))

    async def write_failure(self, name: str, delivery: Delivery, *, doubtful: bool) -> None:
        """Note a failed attempt."""
        self.deliveries[name] = delivery
        if not doubtful:
            self.open_intents.discard(name)
        self.trail.append((delivery.state, name))

    async def write_link(self, name: str, receipt: Receipt) -> None:
        """Note a link that was added."""
        self.receipts[name] = receipt
        self.deliveries[name] = Delivery(state=DeliveryState.DELIVERED, attempts=self.deliveries[name].attempts)
        self.trail.append(("linked", name))

    async def write_failed_link(self, name: str, delivery: Delivery) -> None:
        """Note a link that could not be added."""
        self.deliveries[name] = delivery
        self.trail.append(("not linked", name))

    async def write_skips(self, names: list[str], reason: str) -> None:
        """Note what is not needed."""
        self.deliveries.update({name: Delivery(state=DeliveryState.SKIPPED, reason=reason) for name in names})

    async def settle(
        self, state: ExportState, summary: str, *, not_before: float = 0.0, held_by: Sequence[str] = ()
    ) -> None:
        """Note the verdict."""
        self.state = state
        self.trail.append(("settle", state))


async def run_inline(
    context: ExportContext, hosts: Mapping[str, Host], strategy: str, policy: Policy | None = None
) -> tuple[InlineJob, Verdict]:
    """Run one context through the engine; by default each destination has one attempt."""
    job = InlineJob(context, parse_strategy(strategy), list(hosts))
    once = Policy(retry=RetryPolicy(attempts=1, age=1e-9))
    return job, await run_export(job, hosts, policy or once, lambda: False)


async def export_inline(context: ExportContext, hosts: Mapping[str, Host], strategy: str) -> list[ExportResult]:
    """Return one result per destination that ran, and leave them in ``context.previous_results`` (the seed's way)."""
    job, _ = await run_inline(context, hosts, strategy)
    results = []
    for name, delivery in job.deliveries.items():
        if delivery.state is DeliveryState.DELIVERED:
            result = job.receipts[name].as_result()
        elif delivery.state in (DeliveryState.SKIPPED, DeliveryState.PENDING):
            continue
        else:
            result = ExportResult(success=False, destination_name=name, error_message=delivery.error_message)
        context.add_result(name, result)
        results.append(result)
    return results
