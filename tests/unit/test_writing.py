"""The writes of one export: in order, few, and none forgotten when one fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from labrelay_worker.writing import Then, Writes


class Desk:
    """A writer that holds each batch until the test lets it go."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.sealing, self.writing = asyncio.Event(), asyncio.Event()
        self.sealing.set()
        self.writing.set()
        self.errors: list[Exception] = []
        self.writes: Writes[str] = Writes(self._begin)
        self.running: list[asyncio.Task[None]] = []

    def _begin(self, steps: Callable[[], Sequence[str]], then: Then) -> None:
        self.running.append(asyncio.create_task(self._write(steps, then)))

    async def _write(self, steps: Callable[[], Sequence[str]], then: Then) -> None:
        await self.sealing.wait()
        self.batches.append(list(steps()))
        await self.writing.wait()
        then(self.errors.pop() if self.errors else "ok")


def test_what_comes_until_the_batch_leaves_travels_along() -> None:
    async def scenario() -> None:
        # Given a receipt that waits for the group it travels in
        desk = Desk()
        desk.sealing.clear()
        desk.writes.begin("receipt")
        await asyncio.sleep(0)
        # When the intents that it lets begin come
        intents = [desk.writes.begin("intent b"), desk.writes.begin("intent c")]
        desk.sealing.set()
        # Then all are one batch, in order, and each is told
        assert await asyncio.gather(*intents) == ["ok", "ok"]
        assert desk.batches == [["receipt", "intent b", "intent c"]]

    asyncio.run(scenario())


def test_what_comes_later_waits_for_the_batch_before() -> None:
    async def scenario() -> None:
        # Given a batch that has left and is not answered
        desk = Desk()
        desk.writing.clear()
        first = desk.writes.begin("receipt")
        while not desk.batches:
            await asyncio.sleep(0)
        # When the verdict comes, then it does not overtake
        second = desk.writes.begin("verdict")
        for _ in range(5):
            await asyncio.sleep(0)
        assert desk.batches == [["receipt"]]
        desk.writing.set()
        assert (await first, await second) == ("ok", "ok")
        assert desk.batches == [["receipt"], ["verdict"]]

    asyncio.run(scenario())


def test_a_failure_that_nobody_waited_for_fails_what_comes_after() -> None:
    async def scenario() -> None:
        # Given a receipt whose write fails while nobody waits
        desk = Desk()
        desk.errors = [RuntimeError("lost")]
        desk.writes.put("receipt")
        await asyncio.sleep(0.01)
        # When the verdict is written, then it is not, and says why
        with pytest.raises(RuntimeError, match="lost"):
            await desk.writes.begin("verdict")
        assert desk.batches == [["receipt"]]
        with pytest.raises(RuntimeError, match="lost"):
            await desk.writes.done()

    asyncio.run(scenario())


def test_a_waiter_that_is_cancelled_does_not_cancel_the_write() -> None:
    async def scenario() -> None:
        # Given a write that two wait for
        desk = Desk()
        desk.writing.clear()

        async def wait() -> str:
            return await desk.writes.begin("intent")

        one, other = asyncio.create_task(wait()), asyncio.create_task(wait())
        while not desk.batches:
            await asyncio.sleep(0)
        # When one is cancelled, then the other is told all the same
        one.cancel()
        desk.writing.set()
        assert await other == "ok"
        await desk.writes.done()

    asyncio.run(scenario())
