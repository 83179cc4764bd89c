"""What runs side by side: nothing waits for its neighbour, and nothing is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from labrelay_worker.sidebyside import SideBySide


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_whoever_waits_is_told_of_the_first_that_ends() -> None:
    async def scenario() -> None:
        # Given one that waits for a door and one that does not
        calls, door, ended = SideBySide(), asyncio.Event(), list[str]()

        async def call(name: str, *, waits: bool) -> None:
            if waits:
                await door.wait()
            ended.append(name)

        calls.add(call("slow", waits=True))
        calls.add(call("quick", waits=False))
        # When one has ended, then the other still runs
        await calls.one_ended()
        assert ended == ["quick"]
        assert calls
        # And one that joins it does not wait for it either
        calls.add(call("late", waits=False))
        await calls.one_ended()
        assert ended == ["quick", "late"]
        door.set()
        await calls.one_ended()
        assert not calls

    run(scenario)


def test_a_lone_one_runs_in_the_task_that_waits_for_it() -> None:
    async def scenario() -> None:
        # Given a single call
        calls, tasks = SideBySide(), list[object]()

        async def call() -> None:
            tasks.append(asyncio.current_task())

        # When it is awaited, then no task was made for it
        calls.add(call())
        await calls.one_ended()
        assert tasks == [asyncio.current_task()]
        assert not calls

    run(scenario)


def test_whoever_has_other_things_to_do_waits_no_longer_than_it_says() -> None:
    async def scenario() -> None:
        # Given a single call that does not end by itself
        calls, door, ended = SideBySide(), asyncio.Event(), list[bool]()

        async def call() -> None:
            await door.wait()
            ended.append(True)

        calls.add(call())
        # When it is waited for no longer than a moment, then it still runs
        await calls.one_ended(within=0.01)
        assert calls
        door.set()
        await calls.one_ended(within=5)
        assert ended == [True]
        assert not calls

    run(scenario)


def test_what_one_raises_is_raised_and_stopping_ends_the_others() -> None:
    async def scenario() -> None:
        # Given one that fails, one that hangs and one that has not begun
        calls, cancelled = SideBySide(), list[str]()

        async def fails() -> None:
            raise ValueError("lost")

        async def hangs() -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append("hangs")
                raise

        calls.add(hangs())
        calls.add(fails())
        with pytest.raises(ValueError, match="lost"):
            await calls.one_ended()
        calls.add(hangs())
        # When it is stopped, then nothing runs on
        await calls.stop()
        assert cancelled == ["hangs"]

    run(scenario)
