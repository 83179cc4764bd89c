"""How many calls one process has under way at one destination: pure asyncio, nothing shared."""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict, deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress

from labrelay.errors import Held, RateLimited

#: Calls that have been out for so long (seconds) without any answer are a first sign that nobody will answer: twice
#: as long as its calls usually last, within these limits.
_SILENCE, _LONGEST_SILENCE = 0.5, 5.0
#: So many calls in a row without an answer, and nobody waits for the next one's.
_HOPELESS = 3
#: Those sent away come back so many seconds apart, so that a long queue costs the process a trickle.
_APART = 0.02
_SOONEST = 1.0
#: Weight of the newest answer in how many calls there have been at once lately, and how long they last.
_NEWEST = 0.1


class Gate:
    """A bulkhead: a destination that hangs gets a few calls, not the whole process.

    A destination that has not answered yet, or falls silent, is met carefully: as many calls as may fail begin at
    once, and as many again each time the silence has lasted twice as long, so that one that is down meets a handful
    of calls and one that is only slow some more. While it is silent and has its handful, the gate is closed: whoever
    comes is turned away at once and waits in the ledger. One answer opens it, for some more than twice as many calls
    as there have been at once lately: in a few answers that is every place, and one that dies takes few with it.

    Parameters
    ----------
    places
        Most calls at once.
    risk
        How many calls may fail; None: there is no need for care beyond the places.
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
        self._answers, self._doubts = False, 0
        self._answered, self._lately, self._usual = 0, 0.0, 0.0
        self._silence = _SILENCE
        self._quiet_since = self._next_turn = self._shut_until = 0.0
        self._waiting: defaultdict[int, deque[asyncio.Future[None]]] = defaultdict(deque)

    def place(self, rank: int = 0) -> AbstractAsyncContextManager[None]:
        """Hold a place; of those who wait, the lowest rank comes first.

        Raises
        ------
        Held
            The gate is closed; nothing was tried.
        RateLimited
            No place came free in time; nothing was tried.
        """
        return _Place(self, rank)

    async def enter(self, who: object, rank: int) -> None:
        """Take a place, waiting for one if need be; `place` gives it back by itself."""
        if not self._has_waiting() and self._room() > 0:
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
        self._shut_until = 0.0
        if self._waiting:
            self.let_in()

    def answered(self, seconds: float) -> None:
        """Take note of a confirmed call that lasted so long."""
        self._usual += (_NEWEST if self._usual else 1) * (seconds - self._usual)
        self._silence = min(max(2 * self._usual, _SILENCE), _LONGEST_SILENCE)
        self._answers, self._doubts = True, 0
        self._answered += 1
        running = len(self._running)
        self._lately = max(running, self._lately + _NEWEST * (running - self._lately))
        self.heard()
        self.let_in()

    def heard(self) -> None:
        """Take note of a sign of life."""
        self._quiet_since, self._shut_until = asyncio.get_running_loop().time(), 0.0

    def doubt(self) -> None:
        """Take note that the destination must answer anew before it is trusted."""
        self._answers = False
        self._doubts += 1

    def closed(self) -> str:
        """Return why whoever comes now is turned away, or an empty text; asked often, so it is cheap."""
        if not self._running:
            return ""
        quiet = self._quiet()
        if quiet < self._silence:
            # The calls before these had no answer, and these have none so far: there is nothing to wait for.
            is_lost = self._doubts >= _HOPELESS and self._room() <= 0
            return "the last calls of this worker ended without an answer" if is_lost else ""
        if self._quiet_since + quiet >= self._shut_until:
            if self._room() > 0:
                return ""
            # Nothing changes until a call ends, or the next handful may begin.
            self._shut_until = self._quiet_since + self._silence * 2 ** (self._handfuls(quiet) - 1)
        return f"{len(self._running)} calls of this worker are out, and none has succeeded for {quiet:.0f} s"

    def silent(self) -> int:
        """Return how many calls only wait for an answer that does not come."""
        return len(self._running) if self._running and self._quiet() >= self._silence else 0

    def idle(self) -> int:
        """Return how many who are here and who wait cost nothing but time, told halfway to silence."""
        if not self._running or self._quiet() < self._silence / 2:
            return 0
        return len(self._running) + sum(map(len, self._waiting.values()))

    def capacity(self) -> int:
        """Return how many more can come until this is asked again, as it went since it was asked last."""
        answered, self._answered = self._answered, 0
        is_trusted = self._answers and not self.silent()
        return max(self._places - len(self._running) if is_trusted else self._room(), 0) + answered

    def let_in(self) -> None:
        """Let in whoever may enter by now; to be called when the risk has changed, too."""
        self._shut_until = 0.0
        while (ranks := [rank for rank, waiting in self._waiting.items() if waiting]) and self._room() > 0:
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
                if why := self.closed():
                    raise Held(why)
                now = loop.time()
                if now >= give_up_at:
                    raise RateLimited("its places in this process are all taken", retry_after=self._come_again(now))
                silent_at = max(self._quiet_since + self._silence, now + _APART)
                await asyncio.wait({turn}, timeout=min(give_up_at, silent_at) - now)
                self.let_in()
        except BaseException:
            turn.cancel()
            with suppress(ValueError):
                self._waiting[rank].remove(turn)
            if self._running.pop(turn, None) is not None:
                self.let_in()
            raise
        self._running[me] = self._running.pop(turn)

    def _come_again(self, now: float) -> float:
        self._next_turn = max(now + _SOONEST, self._next_turn + _APART)
        return self._next_turn - now

    def _quiet(self) -> float:
        return asyncio.get_running_loop().time() - self._quiet_since

    def _room(self) -> int:
        free, risk = self._places - len(self._running), self._risk()
        if risk is None:
            return free
        quiet = self._quiet() if self._running else 0.0
        if self._answers and quiet < self._silence:
            return min(free, risk + 2 * int(self._lately) - len(self._running))
        unanswered = sum(began >= self._quiet_since for began in self._running.values())
        return min(free, risk * self._handfuls(quiet) - unanswered)

    def _take(self, who: object) -> None:
        now = asyncio.get_running_loop().time()
        if not self._running:
            self._quiet_since = now
        self._running[who] = now

    def _handfuls(self, quiet: float) -> int:
        return 1 if quiet < self._silence else 2 + int(math.log2(quiet / self._silence))


class _Place(AbstractAsyncContextManager[None]):
    """A place of a gate, held meanwhile. A class, because a generator would cost more than everything it does."""

    __slots__ = ("_gate", "_rank")

    def __init__(self, gate: Gate, rank: int) -> None:
        self._gate, self._rank = gate, rank

    async def __aenter__(self) -> None:
        await self._gate.enter(self, self._rank)

    async def __aexit__(self, *_: object) -> None:
        self._gate.leave(self)
