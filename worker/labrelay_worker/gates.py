"""How many calls one process has under way at one destination: pure asyncio, nothing shared."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from labrelay.errors import RateLimited

#: A call that has lasted so long (seconds) was at least not refused: it no longer counts as a risk.
_RISKY = 1.0


class Gate:
    """A bulkhead: a destination that hangs fills its own places, never the whole process.

    A destination that has not answered yet is met carefully: only as many calls as may fail begin within a second,
    so one that is down meets a handful of calls instead of everything that waits.

    Parameters
    ----------
    places
        Most calls at once.
    risk
        How many calls of unknown end may be young at once; None: the destination answers, so any number.
    patience
        Seconds somebody waits for a place.
    again
        Returns the seconds after which one who was refused may come again.
    """

    def __init__(
        self, places: int, risk: Callable[[], int | None], *, patience: float, again: Callable[[], float]
    ) -> None:
        self._places, self._risk, self._patience, self._again = places, risk, patience, again
        self._running: dict[object, float] = {}
        self._waiting: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place.

        Raises
        ------
        RateLimited
            None came free in time; nothing was tried.
        """
        me = object()
        await self._enter(me)
        try:
            yield
        finally:
            del self._running[me]
            self.let_in()

    def let_in(self) -> None:
        """Let in whoever may enter by now; to be called when the risk has changed, too."""
        while self._waiting and self._is_free():
            entering = self._waiting.popleft()
            if not entering.done():
                # The place is taken before the waiting task runs, else one free place would be given to many.
                self._take(entering)
                entering.set_result(None)

    async def _enter(self, me: object) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self.let_in()
        try:
            async with asyncio.timeout(self._patience):
                await turn
        except BaseException as error:
            turn.cancel()
            if self._running.pop(turn, None) is not None:
                self.let_in()
            if isinstance(error, TimeoutError):
                raise RateLimited("its places in this process are all taken", retry_after=self._again()) from None
            raise
        self._running[me] = self._running.pop(turn)

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
        self._running[who] = loop.time()
        if self._risk() is not None:
            loop.call_later(_RISKY, self.let_in)
