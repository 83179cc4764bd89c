"""The reconciler: wakes every export whose due time has come, whatever the reason. One process leads at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from labrelay.ledger import WORKER_GONE_MS
from labrelay.results import WorkerInfo
from labrelay.wakeups import Wake
from labrelay_worker.ledger import WorkerLedger

_logger = logging.getLogger(__name__)

_ANNOUNCE_EVERY = 10.0


class Reconciler:
    """Sweeps the due set and announces what this process serves.

    Parameters
    ----------
    ledger
        The process's ledger.
    publish
        Sends wake-ups; blocking, so it is called in a thread.
    every
        Seconds between two sweeps.
    grace
        Seconds until the same export is woken again.
    info
        What to announce.
    """

    def __init__(
        self,
        ledger: WorkerLedger,
        publish: Callable[[Sequence[Wake]], None],
        *,
        every: float,
        grace: float,
        info: WorkerInfo,
    ) -> None:
        self._ledger, self._publish = ledger, publish
        self._every, self._grace, self._info = every, grace, info

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
            except Exception as error:  # noqa: BLE001  whatever it is, due exports must be looked at again
                _logger.warning(
                    "reconciler: sweep failed (%s: %s); the next one is soon", type(error).__name__, error
                )
            await asyncio.sleep(self._every)

    async def sweep(self) -> bool:
        """Wake what is due; return whether there may be more."""
        wakes = await self._ledger.sweep(leader_seconds=max(5.0, 3 * self._every), grace=self._grace)
        if not wakes:
            if wakes is not None:
                await self._forget_silent_workers()
            return False
        _logger.info("reconciler: %d exports are due", len(wakes))
        await asyncio.to_thread(self._publish, wakes)
        return True

    async def _forget_silent_workers(self) -> None:
        silent = await self._ledger.silent_workers(WORKER_GONE_MS)
        if silent:
            await self._ledger.withdraw(*silent)
