"""How many calls one process has under way at one destination: pure asyncio, nothing shared."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from labrelay.errors import Held, RateLimited
from labrelay_worker.liveness import AttendedClock, Liveness
from labrelay_worker.turns import Turn, Turns

#: Those sent away come back so many seconds apart, so that a long queue costs the process a trickle.
_APART = 0.02
_SOONEST = 1.0


class Gate:
    """A bulkhead: a destination that hangs gets a few calls, not the whole process.

    How many may begin is for `Liveness` to say. While a destination is silent and has its handful, the gate is
    closed: whoever comes is turned away at once and waits in the ledger. One answer opens it.

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
    clock
        By which silence is measured; default: the time in which the loop could have heard an answer.
    """

    def __init__(
        self,
        places: int,
        risk: Callable[[], int | None],
        *,
        patience: float,
        require_open: Callable[[], None] = lambda: None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._places, self._risk, self._patience = places, risk, patience
        self._require_open = require_open
        self._clock = clock or AttendedClock()
        self._liveness = Liveness(self._clock)
        self._running: dict[object, float] = {}
        self._answered = 0
        self._next_turn = self._shut_until = 0.0
        self._turns = Turns()
        self._looking: asyncio.TimerHandle | None = None

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
        if not self._turns and self._room() > 0:
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
        if self._turns:
            self.let_in()

    def answered(self, seconds: float) -> None:
        """Take note of a confirmed call that lasted so long."""
        self._answered += 1
        running = len(self._running)
        self._liveness.answered(seconds, running, more_wait=bool(self._turns) and running < self._places)
        self._shut_until = 0.0
        if self._turns:
            self.let_in()

    def heard(self) -> None:
        """Take note of a sign of life."""
        self._liveness.heard()
        self._shut_until = 0.0

    def doubt(self) -> None:
        """Take note that the destination must answer anew before it is trusted."""
        self._liveness.doubt()

    def closed(self) -> str:
        """Return why whoever comes now is turned away, or an empty text; asked often, so it is cheap."""
        if not self._running:
            return ""
        if not self._liveness.is_silent():
            # The calls before these had no answer, and these have none so far: there is nothing to wait for.
            is_lost = self._liveness.is_hopeless and self._room() <= 0
            return "the last calls of this worker ended without an answer" if is_lost else ""
        if (now := self._clock()) >= self._shut_until:
            if self._room() > 0:
                return ""
            # Nothing changes until a call ends, or the next handful may begin.
            self._shut_until = now + self._liveness.next_handful()
        quiet = self._liveness.quiet()
        return f"{len(self._running)} calls of this worker are out, and none has succeeded for {quiet:.0f} s"

    def silent(self) -> int:
        """Return how many calls only wait for an answer that does not come."""
        return len(self._running) if self._running and self._liveness.is_silent() else 0

    def idle(self) -> int:
        """Return how many who are here and who wait cost nothing but time, told halfway to silence."""
        if not self._running or not self._liveness.is_silent(1 / 2):
            return 0
        return len(self._running) + len(self._turns)

    def capacity(self) -> int:
        """Return how many more can come until this is asked again, as it went since it was asked last."""
        answered, self._answered = self._answered, 0
        is_trusted = self._liveness.answers and not self.silent()
        return max(self._places - len(self._running) if is_trusted else self._room(), 0) + answered

    def let_in(self) -> None:
        """Let in whoever may enter by now; to be called when the risk has changed, too."""
        self._shut_until = 0.0
        while self._turns and self._room() > 0:
            entering = self._turns.pop()
            if not entering.future.done():
                # The place is taken before the waiting task runs, else one free place would be given to many.
                self._take(entering.who)
                entering.future.set_result(None)

    async def _wait(self, who: object, rank: int) -> None:
        loop = asyncio.get_running_loop()
        me = Turn(who, rank, loop.create_future(), loop.time() + self._patience)
        self._turns.add(me)
        self.let_in()
        try:
            if not me.future.done():
                if why := self.closed():
                    raise Held(why)
                if self._looking is None:
                    self._look_later(loop)
            await me.future
        except BaseException:
            me.future.cancel()
            self._turns.discard(me)
            if self._running.pop(who, None) is not None:
                self.let_in()
            raise

    def _look_later(self, loop: asyncio.AbstractEventLoop) -> None:
        # One timer for all who wait: thousands do in a minute, and most of them for milliseconds.
        look_again = max(self._liveness.until_silence, _APART)
        self._looking = loop.call_at(min(self._turns.next_to_give_up(), loop.time() + look_again), self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._looking = None
        self.let_in()
        why, now = self.closed(), loop.time()
        for turn in list(self._turns):
            if not why and now < turn.give_up_at:
                continue
            self._turns.discard(turn)
            if not turn.future.done():
                turn.future.set_exception(Held(why) if why else self._come_again(now))
        if self._turns:
            self._look_later(loop)

    def _come_again(self, now: float) -> RateLimited:
        self._next_turn = max(now + _SOONEST, self._next_turn + _APART)
        return RateLimited("its places in this process are all taken", retry_after=self._next_turn - now)

    def _room(self) -> int:
        free, risk = self._places - len(self._running), self._risk()
        return free if risk is None else min(free, self._liveness.room(risk, self._running.values()))

    def _take(self, who: object) -> None:
        if not self._running:
            self._liveness.heard()
        self._running[who] = self._clock()


class _Place(AbstractAsyncContextManager[None]):
    """A place of a gate, held meanwhile. A class, because a generator would cost more than everything it does."""

    __slots__ = ("_gate", "_rank")

    def __init__(self, gate: Gate, rank: int) -> None:
        self._gate, self._rank = gate, rank

    async def __aenter__(self) -> None:
        await self._gate.enter(self, self._rank)

    async def __aexit__(self, *_: object) -> None:
        self._gate.leave(self)
