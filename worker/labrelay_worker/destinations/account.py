"""What a destination shares with every other worker that uses the same account: its pace, and locks."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import AbstractAsyncContextManager
from typing import Protocol


class Account(Protocol):
    """An account at a destination, as one of its users sees it."""

    @property
    def interval(self) -> float:
        """Seconds between two requests (`Limits.requests_per_second`); 0: they need no distance.

        `pace` spaces the moments at which requests may begin; how long each is on its way differs. Who owes the
        server this distance exactly also waits this long after each answer.
        """

    async def pace(self) -> None:
        """Wait until one more request may go out (`Limits.requests_per_second`); from any event loop.

        Raises
        ------
        RateLimited
            The wait is long: come back later, as with a busy server.
        """

    def lock(self, what: str) -> AbstractAsyncContextManager[None]:
        """Hold `what` alone among all workers, e.g. round "find the folder or create it".

        Servers without unique names make two objects for two that look at the same moment. A lock outlives a dead
        worker by its lease; so it narrows the window, and looking before creating closes it.

        Raises
        ------
        RateLimited
            Somebody else holds it for long: come back later.
        """


class OwnAccount:
    """An account that nobody else uses: what a destination has outside of a worker.

    Parameters
    ----------
    interval
        Seconds between two requests, which its only user keeps by itself.
    """

    def __init__(self, interval: float = 0.0) -> None:
        self.interval = interval
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def pace(self) -> None:
        """Wait for nobody."""

    def lock(self, what: str) -> AbstractAsyncContextManager[None]:
        """Hold `what` alone in this process."""
        return self._locks[what]
