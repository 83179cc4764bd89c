"""How many calls one process has under way at one destination: pure asyncio, nothing shared."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

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
    require_open
        Asked of everybody who comes in; what it raises gives the place back.
    """

    def __init__(
        self,
        places: int,
        risk: Callable[[], int | None],
        *,
        patience: float,
        require_open: Callable[[], None] = lambda: None,
    ) -> None:
        self._places, self._risk, self._patience = places, risk, patience
        self._require_open = require_open
        self._running: dict[object, float] = {}
        self._moved = self._next_turn = 0.0
        self._waiting: defaultdict[int, deque[asyncio.Future[None]]] = defaultdict(deque)

    def place(self, rank: int = 0) -> AbstractAsyncContextManager[None]:
        """Hold a place; of those who wait, the lowest rank comes first.

        Raises
        ------
        RateLimited
            None came free in time; nothing was tried.
        """
        return _Place(self, rank)

    async def enter(self, who: object, rank: int) -> None:
        """Take a place, waiting for one if need be; `place` gives it back by itself."""
        if not self._has_waiting() and self._is_free():
            self._take(who)
        else:
            await self._wait(who, rank)
        try:
            self._require_open()
        except BaseException:
            self.leave(who)
            raise

    def leave(self, who: object) -> None:
        """Give a place back."""
        del self._running[who]
        self._moved = asyncio.get_running_loop().time()
        if self._waiting:
            self.let_in()

    def let_in(self) -> None:
        """Let in whoever may enter by now; to be called when the risk has changed, too."""
        while (ranks := [rank for rank, waiting in self._waiting.items() if waiting]) and self._is_free():
            entering = self._waiting[min(ranks)].popleft()
            if not entering.done():
                # The place is taken before the waiting task runs, else one free place would be given to many.
                self._take(entering)
                entering.set_result(None)
        if not ranks:
            self._waiting.clear()

    def _has_waiting(self) -> bool:
        return bool(self._waiting) and any(self._waiting.values())

    async def _wait(self, me: object, rank: int) -> None:
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
        if len(self._running) >= self._places:
            return False
        risk = self._risk()
        if risk is None:
            return True
        now = asyncio.get_running_loop().time()
        return sum(now - began < _RISKY for began in self._running.values()) < risk

    def _take(self, who: object) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        if not self._running:
            self._moved = now
        self._running[who] = now
        if self._risk() is not None:
            loop.call_later(_RISKY, self.let_in)


class _Place(AbstractAsyncContextManager[None]):
    """A place of a gate, held meanwhile. A class, because a generator would cost more than everything it does."""

    __slots__ = ("_gate", "_rank")

    def __init__(self, gate: Gate, rank: int) -> None:
        self._gate, self._rank = gate, rank

    async def __aenter__(self) -> None:
        await self._gate.enter(self, self._rank)

    async def __aexit__(self, *_: object) -> None:
        self._gate.leave(self)
