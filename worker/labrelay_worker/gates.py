"""How many calls one process has under way at one destination: pure asyncio, nothing shared."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from labrelay.errors import RateLimited

#: A call that has lasted so long (seconds) was at least not refused: it no longer counts as a risk.
_RISKY = 0.5
#: When no call has ended for so long (seconds), waiting would only keep the process from other destinations.
_STUCK = 1.0
#: Those sent away come back so many seconds apart, so that a long queue costs the process a trickle.
_APART = 0.02
_SOONEST = 1.0


class Gate:
    """A bulkhead: a destination that hangs fills its own places, never the whole process.

    A destination that has not answered yet is met carefully: only as many calls as may fail begin within half a
    second, so one that is down meets a handful of calls instead of everything that waits.

    Parameters
    ----------
    places
        Most calls at once.
    risk
        How many calls of unknown end may be young at once; None: the destination answers, so any number.
    patience
        Seconds somebody waits for a place while others come free.
    """

    def __init__(self, places: int, risk: Callable[[], int | None], *, patience: float) -> None:
        self._places, self._risk, self._patience = places, risk, patience
        self._running: dict[object, float] = {}
        self._moved = self._next_turn = 0.0
        self._waiting: defaultdict[int, deque[asyncio.Future[None]]] = defaultdict(deque)

    @asynccontextmanager
    async def place(self, rank: int = 0) -> AsyncIterator[None]:
        """Hold a place; of those who wait, the lowest rank comes first.

        Raises
        ------
        RateLimited
            None came free in time; nothing was tried.
        """
        me = object()
        await self._enter(me, rank)
        try:
            yield
        finally:
            del self._running[me]
            self._moved = asyncio.get_running_loop().time()
            self.let_in()

    def let_in(self) -> None:
        """Let in whoever may enter by now; to be called when the risk has changed, too."""
        while (ranks := [rank for rank, waiting in self._waiting.items() if waiting]) and self._is_free():
            entering = self._waiting[min(ranks)].popleft()
            if not entering.done():
                # The place is taken before the waiting task runs, else one free place would be given to many.
                self._take(entering)
                entering.set_result(None)

    async def _enter(self, me: object, rank: int) -> None:
        if not any(self._waiting.values()) and self._is_free():
            self._take(me)
            return
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting[rank].append(turn)
        self.let_in()
        give_up_at = loop.time() + self._patience
        try:
            while not turn.done():
                now = loop.time()
                if now >= give_up_at or now - self._moved >= _STUCK:
                    raise RateLimited("its places in this process are all taken", retry_after=self._come_again(now))
                await asyncio.wait({turn}, timeout=min(give_up_at - now, _STUCK))
        except BaseException:
            turn.cancel()
            if self._running.pop(turn, None) is not None:
                self.let_in()
            raise
        self._running[me] = self._running.pop(turn)

    def _come_again(self, now: float) -> float:
        self._next_turn = max(now + _SOONEST, self._next_turn + _APART)
        return self._next_turn - now

    def _is_free(self) -> bool:
        risk = self._risk()
        if len(self._running) >= self._places:
            return False
        if risk is None:
            return True
        now = asyncio.get_running_loop().time()
        return sum(now - began < _RISKY for began in self._running.values()) < risk

    def _take(self, who: object) -> None:
        loop = asyncio.get_running_loop()
        if not self._running:
            self._moved = loop.time()
        self._running[who] = loop.time()
        if self._risk() is not None:
            loop.call_later(_RISKY, self.let_in)
