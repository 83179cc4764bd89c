"""What one export does at once: calls that run side by side, of which a lone one costs no task."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any


class SideBySide:
    """Coroutines that run side by side; whoever added them is told when one has ended."""

    def __init__(self) -> None:
        self._new: list[Coroutine[Any, Any, None]] = []
        self._running: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()

    def __bool__(self) -> bool:
        return bool(self._new or self._running)

    def add(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Take one along; it begins when `one_ended` is awaited."""
        self._new.append(coroutine)

    async def one_ended(self, within: float | None = None) -> None:
        """Wait until at least one has ended, and raise what it raised.

        Parameters
        ----------
        within
            Seconds after which whoever waits has other things to do; None: it has none.
        """
        if within is None and len(self._new) == 1 and not self._running:
            # The usual case: it needs no task of its own.
            await self._new.pop()
            return
        self._running |= {self._started(coroutine) for coroutine in self._new}
        self._new.clear()
        # An event costs a fifth of `asyncio.wait`.
        if within is None:
            await self._ended.wait()
        else:
            with suppress(TimeoutError):
                async with asyncio.timeout(within):
                    await self._ended.wait()
        self._ended.clear()
        for task in [task for task in self._running if task.done()]:
            self._running.discard(task)
            task.result()

    async def stop(self) -> None:
        """Cancel what still runs, and wait until it has ended."""
        for coroutine in self._new:
            coroutine.close()
        self._new.clear()
        if self._running:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    def _started(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine)
        task.add_done_callback(self._note)
        return task

    def _note(self, _: asyncio.Task[None]) -> None:
        self._ended.set()
