"""Keeps the standings of a process's destinations: looks, probes what is due, releases what waited."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from labrelay_worker.breaker import BreakerState, Probed, ProbeWanted
from labrelay_worker.holding import HoldBoard

_logger = logging.getLogger(__name__)

#: Seconds between two looks at the standings: for so long a process may not know what another one found.
LOOK_EVERY = 1.0
#: Exports made due in one look: a destination that came back meets a stream, not a herd.
_RELEASE = 500

Probe = Callable[[], Awaitable[tuple[bool, str | None]]]


class Prober:
    """The housekeeping of breakers in one process. All processes do it; the shared state lets one probe at a time.

    Parameters
    ----------
    board
        The standings.
    probes
        How to ask each destination whether it could deliver now.
    owner
        Name of this process.
    looked
        Called after each look.
    capacity
        How many waiting deliveries a destination can take until the next look.
    """

    def __init__(
        self,
        board: HoldBoard,
        probes: Mapping[str, Probe],
        *,
        owner: str,
        looked: Callable[[], None],
        capacity: Callable[[str], int],
    ) -> None:
        self._board, self._probes, self._owner = board, probes, owner
        self._looked, self._capacity = looked, capacity
        self._probing: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Look, probe and release until cancelled; an error is logged and the next look tries again."""
        try:
            while True:
                await asyncio.sleep(LOOK_EVERY)
                try:
                    await self.look()
                except Exception as error:  # noqa: BLE001  a destination must not stay closed because of it
                    _logger.warning(
                        "breakers could not be looked at (%s); the next look is soon", type(error).__name__
                    )
        finally:
            probing = list(self._probing.values())
            for task in probing:
                task.cancel()
            await asyncio.gather(*probing, return_exceptions=True)

    async def look(self) -> None:
        """Renew the standings and do what they ask for."""
        await self._board.refresh()
        self._looked()
        for name in self._board.names:
            standing = self._board.standing(name)
            if standing.pause is not None:
                continue
            if standing.breaker.waits_for_probe(self._board.now()) and name not in self._probing:
                self._probing[name] = asyncio.create_task(self._probe(name))
            elif standing.waiting and not standing.why_held:
                # On trial, one at a time is enough to learn whether it is back.
                most = 1 if standing.breaker.state is BreakerState.TRIAL else _RELEASE
                if (limit := min(most, self._capacity(name))) > 0:
                    await self._board.release(name, limit, within=LOOK_EVERY)

    async def _probe(self, name: str) -> None:
        try:
            breaker = await self._board.report(name, ProbeWanted(self._owner))
            if breaker.state is not BreakerState.PROBING or breaker.prober != self._owner:
                return
            usable, reason = await self._ask(name)
            await self._board.report(name, Probed(self._owner, usable, reason))
        except Exception as error:  # noqa: BLE001  the probe's lease ends, and somebody else probes
            _logger.warning("destination %s could not be probed (%s)", name, type(error).__name__)
        finally:
            self._probing.pop(name, None)

    async def _ask(self, name: str) -> tuple[bool, str]:
        try:
            # Shorter than the lease, so that the answer comes while it still counts.
            async with asyncio.timeout(self._board.policy.probe_seconds * 0.8):
                usable, reason = await self._probes[name]()
        except TimeoutError:
            return False, "no answer to the probe"
        return usable, reason or ""
