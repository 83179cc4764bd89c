"""Ledger, job and host as they are, and counted: same interface, so neither engine nor runtime knows of it.

A delivery is counted once its step is in the ledger, so the sum over all workers is what the ledger says.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from redis.asyncio import Redis

from labrelay.context import ExportContext
from labrelay.errors import LeaseLost
from labrelay.names import Keys
from labrelay.results import Delivery, ExportState, Receipt, WorkerInfo
from labrelay_worker.claimed import LedgerJob
from labrelay_worker.engine import Host
from labrelay_worker.leasing import Lease
from labrelay_worker.ledger import Claim, Due, Places, Taken, WorkerLedger
from labrelay_worker.passing import PassingHost
from labrelay_worker.telemetry.counting import WorkerMetrics

#: Of the grace after which an unclaimed export is woken: clocks are read a moment apart.
_NEARLY = 0.9
_FORGET_MS = 3_600_000


class MeasuredLedger(WorkerLedger):
    """The ledger, counting claims and what the reconciler wakes, and announcing where the counters are read."""

    def __init__(
        self,
        client: Redis,
        keys: Keys,
        *,
        owner: str,
        lease_seconds: float,
        poison_limit: int,
        replicas: int,
        metrics: WorkerMetrics,
        address: str,
        is_shared: bool,
    ) -> None:
        super().__init__(
            client, keys, owner=owner, lease_seconds=lease_seconds, poison_limit=poison_limit, replicas=replicas
        )
        self._metrics, self._address, self._is_shared = metrics, address, is_shared

    async def take(self, named: Sequence[str], places: Places) -> Taken:
        """Claim exports in one step."""
        taken = await super().take(named, places)
        self._metrics.claims("claimed").inc(len(taken.claims))
        for answer in taken.refused.values():
            self._metrics.claims(answer).inc()
        return taken

    def lease_of(self, claim: Claim) -> Lease:
        """Return what a claim gives."""
        return MeasuredLease(super().lease_of(claim), self._metrics)

    async def sweep(self, *, leader_seconds: float, grace: float, limit: int = 640) -> Due | None:
        """Make ready what is due, if this process leads, and count why each was."""
        reasons = await self._why_due(grace * 1000 * _NEARLY, limit)
        due = await super().sweep(leader_seconds=leader_seconds, grace=grace, limit=limit)
        if due is not None:
            for why in reasons:
                self._metrics.woken(why).inc()
        return due

    async def announce(self, info: WorkerInfo) -> None:
        """Say what this process serves, and where its counters are read."""
        seconds, _ = await self._redis.time()
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.zadd(self._keys.metrics, {self._address: seconds * 1000})
            pipeline.zremrangebyscore(self._keys.metrics, "-inf", seconds * 1000 - _FORGET_MS)
            await pipeline.execute()
        await super().announce(info)

    async def withdraw(self, *names: str) -> None:
        """Take processes out of the announcements."""
        await super().withdraw(*names)
        # That of prefork children is there for the next child; without one it counts as gone in 45 s.
        if self.owner in names and not self._is_shared:
            await self._redis.zrem(self._keys.metrics, self._address)

    async def _why_due(self, grace_ms: float, limit: int) -> list[str]:
        """Return why each export is due that the next sweep makes ready."""
        seconds, microseconds = await self._redis.time()
        now = seconds * 1000 + microseconds / 1000
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.get(self._keys.leader)
            pipeline.zrangebyscore(self._keys.due, "-inf", now, start=0, num=limit)
            leader, ids = await pipeline.execute()
            if leader not in (None, self.owner) or not ids:
                return []
            for export_id in ids:
                pipeline.hmget(self._keys.export(export_id), "state", "updated", "not_before")
            rows = await pipeline.execute()
        return [why_woken(state, now - float(at or 0), float(later or 0), grace_ms) for state, at, later in rows]


def why_woken(state: str | None, unchanged_ms: float, not_before: float, grace_ms: float) -> str:
    """Return why an export was due, from its row."""
    if state == ExportState.RUNNING:
        return "lease_ended"
    if state == ExportState.WAITING or not_before > 0:
        return "retry"
    return "unclaimed" if unchanged_ms >= grace_ms else "handed_back"


class MeasuredLease(Lease):
    """A lease whose loss is counted, once."""

    def __init__(self, lease: Lease, metrics: WorkerMetrics) -> None:
        super().__init__(lease.export_id, lease.token, lease.until, cancel_requested=lease.cancel_requested)
        self._metrics, self._is_lost = metrics, False

    def lose(self) -> None:
        """Take note that another worker owns the export."""
        super().lose()
        self._count_loss()

    def require(self) -> None:
        """Raise `LeaseLost` if the lease may have ended."""
        try:
            super().require()
        except LeaseLost:
            self._count_loss()
            raise

    def _count_loss(self) -> None:
        if not self._is_lost:
            self._is_lost = True
            self._metrics.lease_losses.inc()


class MeasuredJob(LedgerJob):
    """A claimed export that counts what is written of it."""

    def __init__(self, ledger: WorkerLedger, claim: Claim, metrics: WorkerMetrics) -> None:
        super().__init__(ledger, claim)
        self._metrics = metrics

    async def write_receipt(self, name: str, receipt: Receipt) -> None:
        """Record a confirmed delivery."""
        await super().write_receipt(name, receipt)
        self._metrics.deliveries(name, "adopted" if receipt.adopted else "delivered", "").inc()

    async def write_failure(self, name: str, delivery: Delivery, *, doubtful: bool) -> None:
        """Record a failed attempt."""
        await super().write_failure(name, delivery, doubtful=doubtful)
        self._metrics.deliveries(name, str(delivery.state), delivery.error_kind or "").inc()

    async def write_link(self, name: str, receipt: Receipt) -> None:
        """Record that a delivered entry has its link by now."""
        await super().write_link(name, receipt)
        self._metrics.deliveries(name, "linked", "").inc()

    async def write_failed_link(self, name: str, delivery: Delivery) -> None:
        """Record that a delivered entry's link could not be added."""
        await super().write_failed_link(name, delivery)
        self._metrics.deliveries(name, "not_linked", delivery.error_kind or "").inc()

    async def write_skips(self, names: list[str], reason: str) -> None:
        """Record destinations that are not needed."""
        await super().write_skips(names, reason)
        for name in names:
            self._metrics.deliveries(name, "skipped", "").inc()

    async def settle(
        self, state: ExportState, summary: str, *, not_before: float = 0.0, held_by: Sequence[str] = ()
    ) -> None:
        """Give the export back with its state."""
        await super().settle(state, summary, not_before=not_before, held_by=held_by)
        # A cancel that came last wins in the ledger.
        ended = ExportState.CANCELLED if self.cancel_requested and not state.is_final else state
        self._metrics.settled(str(ended)).inc()
        if ended is ExportState.DELIVERED:
            self._metrics.export_seconds.observe(max(0.0, self.now() - self.created))


class MeasuredHost(PassingHost):
    """A host whose sends are timed."""

    def __init__(self, host: Host, metrics: WorkerMetrics) -> None:
        super().__init__(host)
        self._seconds = metrics.delivery_seconds(host.info.name)

    async def export(self, context: ExportContext, *, attempt: int) -> Receipt:
        """Send the record."""
        began = time.perf_counter()
        try:
            return await self._host.export(context, attempt=attempt)
        finally:
            self._seconds.observe(time.perf_counter() - began)
