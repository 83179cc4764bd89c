"""Time limits of calls that are made by the thousand and nearly all end in time: one timer for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Generic, TypeVar

What = TypeVar("What")


class Expiry(Generic[What]):
    """Says of what was added when its time is over, unless it was removed before.

    Parameters
    ----------
    expire
        Told so.
    """

    def __init__(self, expire: Callable[[What], None]) -> None:
        self._expire = expire
        self._loop: asyncio.AbstractEventLoop | None = None
        self._deadlines: dict[What, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._looks_at = float("inf")

    def add(self, what: What, deadline: float) -> None:
        """Wait for the end of something, at most until this time of the loop."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # a command runs one loop after the other, and a timer ends with its own
            self._loop, self._deadlines, self._timer, self._looks_at = loop, {}, None, float("inf")
        self._deadlines[what] = deadline
        # The timer stays when this ends: whatever comes meanwhile needs no other.
        if deadline < self._looks_at:
            self._look_at(deadline)

    def remove(self, what: What) -> None:
        """Take note that it has ended."""
        self._deadlines.pop(what, None)

    def _look_at(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._looks_at = asyncio.get_running_loop().call_at(at, self._look), at

    def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        self._timer, self._looks_at = None, float("inf")
        for what in [what for what, deadline in self._deadlines.items() if deadline <= now]:
            del self._deadlines[what]
            self._expire(what)
        if self._deadlines:
            self._look_at(min(self._deadlines.values()))


class TimeLimit:
    """`asyncio.timeout` for many calls with the same limit: ``with limit.over_call(): await ...``.

    Parameters
    ----------
    seconds
        How long each may last.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._expiry: Expiry[_Limited] = Expiry(_Limited.expire)

    def over_call(self) -> _Limited:
        """Limit what is awaited meanwhile in this task; raises `TimeoutError` out of it."""
        return _Limited(self._expiry, self.seconds)


class _Limited:
    __slots__ = ("_cancelling", "_expired", "_expiry", "_seconds", "_task")

    def __init__(self, expiry: Expiry[_Limited], seconds: float) -> None:
        self._expiry, self._seconds = expiry, seconds
        self._expired = False

    def expire(self) -> None:
        self._expired = True
        self._task.cancel()

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("only a task can be told that its time is over")
        self._task, self._cancelling = task, task.cancelling()
        self._expiry.add(self, asyncio.get_running_loop().time() + self._seconds)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._expiry.remove(self)
        # A cancellation that somebody else asked for is passed on.
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
