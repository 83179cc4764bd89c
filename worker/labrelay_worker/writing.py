"""The writes of one export, in order: what waits to be written at the same time is written in one step."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Step = TypeVar("Step")
#: Told how a write ended: the answer, or what it failed with.
Then = Callable[[str | BaseException], None]
Write = Callable[[Callable[[], Sequence[Step]], Then], None]


class _Batch(Generic[Step]):
    __slots__ = ("steps", "waiters")

    def __init__(self, steps: list[Step]) -> None:
        self.steps = steps
        self.waiters: list[asyncio.Future[str]] = []

    def waiter(self) -> asyncio.Future[str]:
        # One for each who waits: whoever is cancelled takes neither the write nor the others along.
        waiter: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.waiters.append(waiter)
        return waiter

    def tell(self, ended: str | BaseException) -> None:
        for waiter in self.waiters:
            if not waiter.done():
                _tell(waiter, ended)


class Writes(Generic[Step]):
    """Hands steps to a writer, one batch after the other.

    A batch takes in what comes until the writer asks for it, so a receipt, the intents that it lets begin and the
    verdict share a write. A batch that fails fails everything that comes after it. None of this is a task: an export
    makes half a dozen writes, and a worker hundreds of exports at once.

    Parameters
    ----------
    write
        Begins to write one batch. It calls the function it is given for the steps, and again when it has to repeat
        the write; it tells how that ended, once.
    """

    def __init__(self, write: Write[Step]) -> None:
        self._write = write
        #: Takes in what comes; its turn is after `_under_way`.
        self._open: _Batch[Step] | None = None
        self._under_way: _Batch[Step] | None = None
        self._failed: BaseException | None = None

    def begin(self, *steps: Step) -> asyncio.Future[str]:
        """Put steps on their way; the future ends with the writer's answer to their batch."""
        if self._failed is None:
            return self._put(steps).waiter()
        return self._failure(self._failed)

    def put(self, *steps: Step) -> None:
        """Put steps on their way for somebody who does not wait."""
        if self._failed is None:
            self._put(steps)

    async def done(self) -> None:
        """Wait until everything is written; raises what a write raised."""
        last = self._open or self._under_way
        if self._failed is not None:
            raise self._failed
        if last is not None:
            await last.waiter()

    def _put(self, steps: Sequence[Step]) -> _Batch[Step]:
        batch = self._open
        if batch is not None:
            batch.steps += steps
            return batch
        self._open = batch = _Batch(list(steps))
        if self._under_way is None:
            self._begin(batch)
        return batch

    def _begin(self, batch: _Batch[Step]) -> None:
        self._under_way = batch

        def seal() -> Sequence[Step]:
            if self._open is batch:
                self._open = None
            return batch.steps

        self._write(seal, self._ended)

    def _ended(self, ended: str | BaseException) -> None:
        batch, self._under_way, following = self._under_way, None, self._open
        if batch is not None:
            batch.tell(ended)
        if isinstance(ended, BaseException):
            self._failed, self._open = ended, None
            if following is not None and following is not batch:
                following.tell(ended)
        elif following is not None:
            self._begin(following)

    def _failure(self, error: BaseException) -> asyncio.Future[str]:
        waiter: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        _tell(waiter, error)
        return waiter


def _tell(waiter: asyncio.Future[str], ended: str | BaseException) -> None:
    if isinstance(ended, BaseException):
        waiter.set_exception(ended)
    else:
        waiter.set_result(ended)
