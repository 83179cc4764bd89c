"""The exports that a process works on: each from its claim to what became of it, and all of them at shutdown."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

from redis.exceptions import RedisError

from labrelay.errors import InvalidInput, LabrelayError, LeaseLost
from labrelay.redaction import redact
from labrelay.results import ExportState
from labrelay_worker.choosing import Choices
from labrelay_worker.claimed import LedgerJob
from labrelay_worker.engine import Policy, run_export
from labrelay_worker.intake import Outcome
from labrelay_worker.ledger import Claim, WorkerLedger
from labrelay_worker.telemetry.assembling import Telemetry
from labrelay_worker.telling import tell_job

_logger = logging.getLogger(__name__)

_INTERNAL_ERROR_PAUSE = 60.0
_LOOK_EVERY = 0.1
#: Shutdown is bounded even when Redis is away; a lease that is not given back runs out.
HAND_BACK_SECONDS = 5.0

#: By export id, each with the task that works on it.
Running = Mapping[str, tuple[LedgerJob, asyncio.Task[Any]]]


class Work:
    """Runs claimed exports.

    Parameters
    ----------
    ledger
        Where they were claimed.
    choices
        Which strategy and destinations each takes.
    policy
        What the settings decide for all of them.
    telemetry
        Counts and traces what is done.
    stopping
        Tells whether shutdown has begun.
    """

    def __init__(
        self,
        ledger: WorkerLedger,
        choices: Choices,
        policy: Policy,
        telemetry: Telemetry,
        stopping: Callable[[], bool],
    ) -> None:
        self._ledger, self._choices, self._policy = ledger, choices, policy
        self._telemetry, self._stopping = telemetry, stopping
        self._running: dict[str, tuple[LedgerJob, asyncio.Task[Any]]] = {}

    @property
    def running(self) -> Running:
        """The exports under way, as they come and go."""
        return self._running

    async def deliver(self, claim: Claim) -> Outcome:
        """Work on one export as far as it goes now, and say what became of it."""
        try:
            job = self._read(claim)
        except LabrelayError as error:
            _logger.error("export %s cannot be read and is dead until a person looks: %s", claim.export_id, error)
            await self._ledger.refuse(claim, error)
            return Outcome(claim.export_id, claim.row["session"], f"dead: {error}", state=ExportState.DEAD)
        self._running[job.export_id] = job, cast("asyncio.Task[Any]", asyncio.current_task())
        try:
            with self._telemetry.running(claim, job):
                return await self._run(job)
        finally:
            del self._running[job.export_id]

    async def keep_leases(self) -> None:
        """Prolong the leases of what is under way until cancelled; a call of an export that was lost is cut off."""
        while True:
            await asyncio.sleep(self._ledger.lease_seconds / 3)
            leases = [job.lease for job, _ in self._running.values()]
            try:
                if leases:
                    await self._ledger.renew(leases)
                    self._stop_what_was_lost()
            except Exception as error:  # noqa: BLE001  the leases run out by themselves if this goes on
                _logger.warning("leases could not be renewed (%s); trying again", type(error).__name__)

    async def drain(self, seconds: float) -> None:
        """Wait until nothing is under way, at most so long."""
        deadline = time.monotonic() + seconds
        while self._running and time.monotonic() < deadline:
            await asyncio.sleep(_LOOK_EVERY)

    def cut_off(self) -> list[asyncio.Task[Any]]:
        """End the calls under way, and return the tasks that give their exports back."""
        running = list(self._running.values())
        for job, task in running:
            _logger.warning("export %s: its running call is cut off; another worker asks how it ended", job.export_id)
            task.cancel()
        return [task for _, task in running]

    def _stop_what_was_lost(self) -> None:
        # Whoever has it now asks how the call ended: the sooner that is certain, the truer is the answer.
        for job, task in self._running.values():
            if job.lease.is_lost:
                task.cancel()

    def _read(self, claim: Claim) -> LedgerJob:
        try:
            return self._telemetry.job(self._ledger, claim)
        except (ValueError, KeyError) as error:
            raise InvalidInput(
                "its row",
                f"damaged, or of a newer labrelay ({type(error).__name__})",
                "Upgrade the workers, then replay it",
            ) from None

    async def _run(self, job: LedgerJob) -> Outcome:
        try:
            strategy, hosts = self._choices.hosts_of(job)
            job.choose(strategy, list(hosts))
            await run_export(job, hosts, self._policy, self._stopping)
        except LeaseLost:
            return _lost(job)
        except asyncio.CancelledError:
            if job.lease.is_lost:
                return _lost(job)
            return Outcome(job.export_id, job.session, await self._hand_back(job))
        except Exception as error:
            _logger.exception("export %s met an error in labrelay itself; it is tried again", job.export_id)
            text = redact(f"internal error {type(error).__name__}: {error}")
            await job.settle(ExportState.WAITING, text, not_before=job.now() + _INTERNAL_ERROR_PAUSE)
        state, summary = job.settled
        return Outcome(job.export_id, job.session, tell_job(job, state, summary), state=state)

    async def _hand_back(self, job: LedgerJob) -> str:
        # What a cut-off call has sent may still be worked on: asked at once, its receiver would not know of it.
        not_before = job.now() + self._policy.retry.first_delay if job.open_intents else 0.0
        try:
            async with asyncio.timeout(HAND_BACK_SECONDS):
                await job.settle(ExportState.QUEUED, "handed back at shutdown", not_before=not_before)
        except (TimeoutError, LeaseLost, RedisError):
            return "its lease runs out by itself"
        return "handed back at shutdown"


def _lost(job: LedgerJob) -> Outcome:
    _logger.warning("export %s is another worker's by now; nothing more is written here", job.export_id)
    return Outcome(job.export_id, job.session, "lease lost: another worker goes on")
