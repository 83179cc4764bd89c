"""The reconciler: wakes every export whose due time has come, whatever the reason, and packs and retires what ended.

One process leads at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from labrelay.ledger import WORKER_GONE_MS
from labrelay.results import WorkerInfo
from labrelay.wakeups import Wake
from labrelay_worker.ledger import WorkerLedger

_logger = logging.getLogger(__name__)

_ANNOUNCE_EVERY = 10.0
_PAUSE_AFTER_FULL_DISK = 60.0


async def _nothing() -> None:
    pass


class Reconciler:
    """Sweeps the due set and announces what this process serves.

    Parameters
    ----------
    ledger
        The process's ledger.
    ring
        Publishes so many wake-ups for these exports; blocking, so it is called in a thread.
    every
        Seconds between two sweeps.
    grace
        Seconds until the same export is woken again.
    info
        What to announce.
    retire
        Takes a small step of packing ended exports and moving them to the archive; called after a sweep, by the
        leader alone.
    """

    def __init__(
        self,
        ledger: WorkerLedger,
        ring: Callable[[int, Sequence[Wake]], None],
        *,
        every: float,
        grace: float,
        info: WorkerInfo,
        retire: Callable[[], Awaitable[object]] = _nothing,
    ) -> None:
        self._ledger, self._ring = ledger, ring
        self._every, self._grace, self._info = every, grace, info
        self._retire, self._leads, self._retire_at = retire, False, 0.0

    async def run(self) -> None:
        """Sweep until cancelled; an error is logged and the next sweep tries again."""
        loop = asyncio.get_running_loop()
        announce_at = loop.time()
        while True:
            try:
                if loop.time() >= announce_at:
                    await self._ledger.announce(self._info)
                    announce_at = loop.time() + _ANNOUNCE_EVERY
                while await self.sweep():
                    pass
                if self._leads and loop.time() >= self._retire_at:
                    await self._retire_some(loop.time())
            except Exception as error:  # noqa: BLE001  whatever it is, due exports must be looked at again
                _logger.warning(
                    "reconciler: sweep failed (%s: %s); the next one is soon", type(error).__name__, error
                )
            await asyncio.sleep(self._every)

    async def sweep(self) -> bool:
        """Wake what is due; return whether there may be more."""
        due = await self._ledger.sweep(leader_seconds=max(5.0, 3 * self._every), grace=self._grace)
        self._leads = due is not None
        if due is None:
            return False
        if due.to_ring:
            await asyncio.to_thread(self._ring, due.to_ring, due.first)
        if not due.count:
            await self._forget_silent_workers()
            return False
        _logger.info("reconciler: %d exports are due", due.count)
        return True

    async def _retire_some(self, now: float) -> None:
        try:
            await self._retire()
        except OSError as error:
            self._retire_at = now + _PAUSE_AFTER_FULL_DISK
            _logger.warning(
                "the archive cannot be written (%s); ended exports stay in Redis, the next try is in %g s",
                error, _PAUSE_AFTER_FULL_DISK,
            )  # fmt: skip

    async def _forget_silent_workers(self) -> None:
        silent = await self._ledger.silent_workers(WORKER_GONE_MS)
        if silent:
            await self._ledger.withdraw(*silent)
