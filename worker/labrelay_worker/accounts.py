"""Accounts shared through Redis: the workers' side of `labrelay_worker.destinations.account`."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager

from labrelay_worker.destinations.base import Limits
from labrelay_worker.limiting import AccountLimiter


class SharedAccount:
    """The account of one destination, kept over all workers together; made on the event loop that serves it.

    Parameters
    ----------
    limiter
        Reserves times and places in Redis.
    name
        The destination's name.
    limits
        Its limits; ``account`` and ``requests_per_second`` count here.
    """

    def __init__(self, limiter: AccountLimiter, name: str, limits: Limits) -> None:
        self._limiter = limiter
        self._account = limits.account or name
        self._pace = Limits(f"{self._account}\nrequests", per_second=limits.requests_per_second)
        self.interval = 1 / limits.requests_per_second if limits.requests_per_second else 0.0
        self._loop = asyncio.get_running_loop()

    async def pace(self) -> None:
        """Wait until one more request may go out; a blocking plugin may ask from the loop of its own thread."""
        turn = self._limiter.request(self._account, self._pace)
        if asyncio.get_running_loop() is self._loop:
            await turn
        else:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(turn, self._loop))

    def lock(self, what: str) -> AbstractAsyncContextManager[None]:
        """Hold `what` alone among all workers; a lock is an account with a single place."""
        return self._limiter.call(what, Limits(f"{self._account}\nlock\n{what}", concurrent=1))
