"""Call plugins that block: each call in a thread of its own, so many at once, and one that hangs keeps its place."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from contextvars import copy_context
from typing import Any

from labrelay.errors import RateLimited


class BlockingCalls:
    """The threads of one destination.

    Parameters
    ----------
    name
        Of the destination, for the names of its threads.
    places
        Calls at once.
    patience
        Seconds a delivery waits for a place.
    """

    def __init__(self, name: str, places: int, *, patience: float) -> None:
        self._name, self._patience = name, patience
        self._places = asyncio.Semaphore(places)
        self._in_place: set[asyncio.Task[Any] | None] = set()
        self._abandoned: set[asyncio.Task[Any] | None] = set()

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place; a call that hangs keeps it until it returns.

        Raises
        ------
        RateLimited
            None came free for a while: the delivery waits in the ledger, where it holds up nothing else.
        """
        try:
            async with asyncio.timeout(self._patience):
                await self._places.acquire()
        except TimeoutError:
            text = "every thread of this destination is busy or hung"
            raise RateLimited(text, retry_after=self._patience * (0.5 + random.random())) from None  # noqa: S311
        task = asyncio.current_task()
        self._in_place.add(task)
        try:
            yield
        finally:
            self._in_place.discard(task)
            if task in self._abandoned:
                self._abandoned.discard(task)
            else:
                self._places.release()

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in a new thread and return what it returns, or raise what it raises."""
        # Not an executor: its threads are joined at exit, so one hung plugin would hold up every shutdown.
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        future: asyncio.Future[Any] = loop.create_future()
        holds_a_place = task in self._in_place

        def returned(setter: Callable[[Any], None], value: Any) -> None:
            if not future.done():
                setter(value)
            elif holds_a_place:
                self._places.release()  # nobody waited any more; see `place`

        def run() -> None:
            try:
                outcome: tuple[Callable[[Any], None], Any] = (future.set_result, function(*arguments))
            except BaseException as error:  # noqa: BLE001  handed to the caller
                outcome = (future.set_exception, _transportable(error))
            with suppress(RuntimeError):  # the loop is closed: the process ends
                loop.call_soon_threadsafe(returned, *outcome)

        threading.Thread(target=copy_context().run, args=(run,), name=f"labrelay-{self._name}", daemon=True).start()
        try:
            return await future
        except asyncio.CancelledError:
            # Had it returned in this very moment, `returned` would have seen somebody waiting.
            if holds_a_place and future.cancelled():
                self._abandoned.add(task)
            raise


def _transportable(error: BaseException) -> BaseException:
    # A StopIteration cannot be set on a future, and SystemExit would end the loop's thread.
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")
