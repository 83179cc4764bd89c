"""One timer for many calls: each ends at its own time, and nobody is told of what ended before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from labrelay_worker.timelimits import Expiry, TimeLimit


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 10))


async def until(true: Callable[[], bool]) -> None:
    while not true():
        await asyncio.sleep(0.001)


def test_each_expires_in_the_order_of_its_deadline() -> None:
    async def scenario() -> None:
        # Given three of which the last added ends first
        expired: list[str] = []
        expiry, now = Expiry(expired.append), asyncio.get_running_loop().time()
        for name, seconds in (("late", 0.06), ("never", 0.03), ("early", 0.01)):
            expiry.add(name, now + seconds)
        # When one of them ends in time, then the others expire, the earliest first
        expiry.remove("never")
        await until(lambda: len(expired) == 2)
        assert expired == ["early", "late"]

    run(scenario)


def test_what_is_added_after_everything_expired_expires_too() -> None:
    async def scenario() -> None:
        # Given an expiry whose timer has done its work
        expired: list[str] = []
        expiry, loop = Expiry(expired.append), asyncio.get_running_loop()
        expiry.add("first", loop.time() + 0.005)
        await until(lambda: expired == ["first"])
        # When something is added, then it expires
        expiry.add("second", loop.time() + 0.005)
        await until(lambda: expired == ["first", "second"])

    run(scenario)


def test_a_call_that_lasts_too_long_is_ended_and_its_neighbour_is_not() -> None:
    async def scenario() -> None:
        # Given two calls with the same limit
        limit = TimeLimit(0.02)

        async def call(hangs: bool) -> str:
            with limit.over_call():
                await (asyncio.Event().wait() if hangs else asyncio.sleep(0))
            await asyncio.sleep(0.05)
            return "went on"

        # When one hangs, then it alone is told that its time is over
        hung, quick = await asyncio.gather(call(True), call(False), return_exceptions=True)
        assert isinstance(hung, TimeoutError)
        assert quick == "went on"

    run(scenario)


def test_a_limit_holds_in_the_next_loop_too() -> None:
    # Given a limit whose timer was still set when its loop ended, as between two steps of a command
    limit = TimeLimit(0.01)

    async def quick() -> None:
        with limit.over_call():
            await asyncio.sleep(0)

    async def hanging() -> None:
        with pytest.raises(TimeoutError), limit.over_call():
            await asyncio.Event().wait()

    run(quick)
    # When a call hangs in the next loop, then its time ends as well
    run(hanging)


def test_a_task_can_go_on_after_its_time_was_over() -> None:
    async def scenario() -> None:
        # Given a call whose time is over
        with pytest.raises(TimeoutError), TimeLimit(0.01).over_call():
            await asyncio.Event().wait()
        # When the task waits again, then nothing is left of the cancellation
        await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    run(scenario)


def test_a_cancellation_by_others_stays_one() -> None:
    async def scenario() -> None:
        # Given a call far from its limit
        async def call() -> None:
            with TimeLimit(60).over_call():
                await asyncio.Event().wait()

        task = asyncio.create_task(call())
        await asyncio.sleep(0)
        # When somebody cancels it, then it is cancelled and no time was over
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(scenario)
