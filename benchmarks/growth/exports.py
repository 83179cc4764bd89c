"""Exports taken through the real ledger to a stage of their life: what the mass fill copies and is compared with."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import redis
import redis.asyncio
from benchmarks.queue.workload import DESTINATIONS, FIRST, LATER, document

from labrelay.archive import Archive
from labrelay.context import ExportContext
from labrelay.deadletters import DeadLetters
from labrelay.ledger import Entry, Ledger, connect
from labrelay.results import Delivery, DeliveryState, ExportState, Receipt, utc_now
from labrelay.settings import ProducerSettings
from labrelay.strategies import Strategy
from labrelay_worker.claimed import LedgerJob
from labrelay_worker.ledger import Claim, WorkerLedger
from labrelay_worker.packing import Packing
from labrelay_worker.retirement import Retirement

Result = TypeVar("Result")

#: Of a facility that keeps 90 days in Redis and lost one destination some hours ago, in parts of a thousand.
MIX = {"packed": 950, "delivered": 10, "waiting": 10, "dead": 25, "queued": 5}
#: Numbers of eight digits, so that every context has the same length.
FIRST_NUMBER = 10_000_000
#: Far enough that nothing of the fill comes due while calls are measured.
_LATER_SECONDS = 86_400


class Site:
    """A producer's and a worker's half of one ledger.

    Parameters
    ----------
    url
        The server.
    runner
        The event loop of the worker's half.
    folder
        For what is retired.
    """

    def __init__(self, url: str, runner: asyncio.Runner, folder: Path) -> None:
        settings = ProducerSettings(redis_url=url)
        self.keys, self._runner = settings.keys, runner
        self.redis = connect(settings)
        self.ledger = Ledger(self.redis, self.keys, wake_up_grace=_LATER_SECONDS)
        archive = Archive(folder)
        self.letters = DeadLetters(self.redis, self.keys, self.ledger, wake_up_grace=_LATER_SECONDS, archive=archive)
        self._async = redis.asyncio.Redis.from_url(url, decode_responses=True)
        self.worker = WorkerLedger(self._async, self.keys, owner="microscopy-4711", lease_seconds=3600)
        self.packing = Packing(self._async, self.keys)
        self.retirement = Retirement(self._async, self.keys, archive)

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Run what the worker's half does."""
        return self._runner.run(coroutine)

    def close(self) -> None:
        """Close every connection."""
        self.run(self._async.aclose())
        self.redis.close()

    def submit(self, entries: Sequence[Entry]) -> None:
        """Accept exports."""
        self.ledger.submit(entries, replace=False)

    async def claim(self, export_id: str) -> LedgerJob:
        """Claim one export."""
        claim = await self.worker.claim(export_id)
        if not isinstance(claim, Claim):
            raise SystemExit(f"export {export_id} cannot be claimed: {claim}")
        job = LedgerJob(self.worker, claim)
        job.choose(Strategy.ALL, DESTINATIONS)
        return job

    def bring_to(self, stage: str, numbers: Sequence[int]) -> None:
        """Take exports from the submit to a stage of `MIX`, or to the archive, by every step that it takes."""
        entries = [entry(number) for number in numbers]
        self.submit(entries)
        end = {"packed": _deliver, "delivered": _deliver, "archived": _deliver, "waiting": _wait, "dead": _die}
        if stage in end:
            self.run(self._end(end[stage], entries))
        if stage in ("packed", "archived"):
            while self.run(self.packing.run(-1)):
                pass
        while stage == "archived" and self.run(self.retirement.step(-1)):
            pass

    async def _end(self, end: Any, entries: Sequence[Entry]) -> None:
        for start in range(0, len(entries), 100):
            jobs = [await self.claim(each.export_id) for each in entries[start : start + 100]]
            await asyncio.gather(*(end(job) for job in jobs))


def entry(number: int) -> Entry:
    """Return one export of the other benchmark's workload, as a manifest would complete it."""
    sha256 = hashlib.sha256(b"<Experiment/>").hexdigest()
    context = ExportContext.parse(document(number) | {"xml_size": 13, "xml_sha256": sha256})
    text = context.to_json()
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Entry(
        context.export_id,
        digest,
        text,
        context.session_identifier,
        context.instrument_pid,
        strategy="",
        destinations=(),
    )


async def _deliver(job: LedgerJob) -> None:
    await _send(job, FIRST)
    for name in LATER:
        await _send(job, name)
    await job.settle(ExportState.DELIVERED, "3 of 3 delivered")


async def _wait(job: LedgerJob) -> None:
    await _send(job, FIRST)
    failed = await _fail(job, DeliveryState.RETRYING)
    await job.settle(
        ExportState.WAITING, "2 of 3 delivered; beta is down", not_before=failed.retry_at or 0.0, held_by=["beta"]
    )


async def _die(job: LedgerJob) -> None:
    await _send(job, FIRST)
    await _fail(job, DeliveryState.FAILED)
    await job.settle(ExportState.DEAD, "2 of 3 delivered, beta failed")


async def _send(job: LedgerJob, name: str) -> None:
    await job.write_intent(name)
    session = job.session
    await job.write_receipt(
        name,
        Receipt(
            destination=name, record_id=session, record_url=f"http://127.0.0.1:8080/{name}/{session}",
            sha256=job.context.xml_sha256, verified="answered HTTP 201", at=utc_now(),
        ),
    )  # fmt: skip


async def _fail(job: LedgerJob, state: DeliveryState) -> Delivery:
    await job.write_intent("beta")
    delivery = Delivery(
        state=state, attempts=1, first_at=job.now(),
        retry_at=job.now() + _LATER_SECONDS if state is DeliveryState.RETRYING else None,
        error_kind="unavailable", error_message="http://127.0.0.1:8080/beta: cannot connect",
    )  # fmt: skip
    await job.write_failure("beta", delivery, doubtful=False)
    await _send(job, "gamma")
    return delivery
