"""The writes of one export, in order: what waits to be written at the same time is written in one step."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Generic, TypeVar

Step = TypeVar("Step")


class Writes(Generic[Step]):
    """Hands steps to a writer, one batch after the other.

    A batch takes in what comes until the writer asks for it, so a receipt, the intents that it lets begin and the
    verdict share a write. A batch that fails fails everything that comes after it.

    Parameters
    ----------
    write
        Writes one batch and returns an answer; it calls the function it is given for the steps, and again when it has
        to repeat the write.
    """

    def __init__(self, write: Callable[[Callable[[], Sequence[Step]]], Coroutine[Any, Any, str]]) -> None:
        self._write = write
        self._open: list[Step] | None = None
        self._last: asyncio.Task[str] | None = None

    def begin(self, *steps: Step) -> asyncio.Future[str]:
        """Put steps on their way; the future ends with the writer's answer to their batch."""
        # Whoever waits may be cancelled; the write goes on, because others wait for it too.
        return asyncio.shield(self.put(*steps))

    def put(self, *steps: Step) -> asyncio.Task[str]:
        """Put steps on their way for somebody who does not wait: the task is not to be cancelled."""
        if self._open is None or self._last is None:
            self._open = list(steps)
            self._last = asyncio.create_task(self._next(self._last, self._open))
            self._last.add_done_callback(_look_at)
        else:
            self._open += steps
        return self._last

    async def done(self) -> None:
        """Wait until everything is written; raises what a write raised."""
        if self._last is not None:
            await asyncio.shield(self._last)

    async def _next(self, before: asyncio.Future[str] | None, steps: list[Step]) -> str:
        if before is not None:
            await before

        def seal() -> Sequence[Step]:
            if self._open is steps:
                self._open = None
            return steps

        return await self._write(seal)


def _look_at(write: asyncio.Future[str]) -> None:
    """Take note of a failure, which the next write raises: nobody may be waiting for this one."""
    if not write.cancelled():
        write.exception()
