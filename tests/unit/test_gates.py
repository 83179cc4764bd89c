"""How many calls one process has under way at one destination."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest

from labrelay.errors import Held, RateLimited
from labrelay_worker.gates import Gate


class Clock:
    """Stands still until it is set forward: a busy machine is no silence."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def gate(
    places: int = 10, risk: int | None = None, patience: float = 5.0, clock: Callable[[], float] | None = None
) -> Gate:
    return Gate(places, lambda: risk, patience=patience, clock=clock or Clock())


async def enter(door: Gate, entered: list[int], leave: asyncio.Event, number: int) -> None:
    async with door.place():
        entered.append(number)
        await leave.wait()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_no_more_enter_than_there_are_places_and_in_their_order():
    async def scenario() -> None:
        # Given two places and five who want in
        door, entered, leave = gate(places=2), [], asyncio.Event()
        tasks = [asyncio.create_task(enter(door, entered, leave, n)) for n in range(5)]
        await settle()
        assert entered == [0, 1]

        # When those leave, then the others follow in their order
        leave.set()
        await asyncio.gather(*tasks)
        assert entered == [0, 1, 2, 3, 4]

    asyncio.run(scenario())


def test_an_unproven_destination_meets_no_more_calls_than_may_fail():
    async def scenario() -> None:
        # Given a risk of three that falls with each failure
        risk = [3]
        door = Gate(100, lambda: risk[0], patience=5.0, clock=Clock())
        calls = []

        async def failing(number: int) -> None:
            async with door.place():
                if risk[0] is None:
                    return  # told that it is held
                calls.append(number)
                await asyncio.sleep(0)
                risk[0] = risk[0] - 1 or None

        # When fifty want in and every call fails, then three calls are made
        await asyncio.gather(*(failing(n) for n in range(50)))
        assert len(calls) == 3

    asyncio.run(scenario())


def test_as_many_more_begin_whenever_the_silence_has_lasted_twice_as_long():
    async def scenario() -> None:
        # Given a risk of one, and calls that hang while others want in again and again
        clock = Clock()
        door, entered, leave = gate(risk=1, clock=clock), [], asyncio.Event()
        tasks, times = [], []
        for tenths in range(25):
            clock.now = tenths / 10
            if not door.closed():
                tasks.append(asyncio.create_task(enter(door, entered, leave, len(tasks))))
            await settle()
            times += [clock.now] * (len(entered) - len(times))

        # Then they begin after half a second, one, two: a slow destination gets some more, a dead one a handful
        assert times == [0.0, 0.5, 1.0, 2.0]
        leave.set()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(scenario())


def test_one_that_answered_gets_all_that_it_has_places_for_until_it_falls_silent():
    async def scenario() -> None:
        # Given a destination that has answered some calls at once, each time more
        clock = Clock()
        door, entered, leave = gate(places=50, risk=3, clock=clock), [], asyncio.Event()
        for many in (3, 9, 21):
            async with AsyncExitStack() as calls:
                for _ in range(many):
                    await calls.enter_async_context(door.place())
                assert door._room() <= 0
                door.answered(0.01)

        # When forty want in, then nobody waits
        tasks = [asyncio.create_task(enter(door, entered, leave, n)) for n in range(40)]
        await settle()
        assert len(entered) == 40

        # When nothing is heard of them, then whoever comes is turned away, although there are places
        clock.now = 0.5
        with pytest.raises(Held, match="none has succeeded"):
            await enter(door, entered, leave, 40)
        assert door.silent() == door.idle() == 40
        assert door.capacity() == 3  # what answered since it was asked last

        # When one succeeds, then it takes again, and as many wait for it as it can take
        door.answered(0.01)
        assert not door.closed()
        assert door.silent() == door.idle() == 0
        assert door.capacity() == 11  # the free places, and the one that answered
        leave.set()
        await asyncio.gather(*tasks)

    asyncio.run(scenario())


def test_one_whose_calls_usually_last_is_not_taken_for_silent_while_they_last():
    async def scenario() -> None:
        # Given two destinations with a call under way, of which one usually takes two seconds
        clock, leave = Clock(), asyncio.Event()
        quick, slow = gate(places=1, clock=clock), gate(places=1, clock=clock)
        for door, seconds in ((quick, 0.01), (slow, 2.0)):
            door.answered(seconds)
        tasks = [asyncio.create_task(enter(door, [], leave, 0)) for door in (quick, slow)]
        await settle()
        # When the quick one is taken for silent, then the other one is not
        clock.now = 0.5
        assert quick.closed()
        assert not slow.closed()
        leave.set()
        await asyncio.gather(*tasks)

    asyncio.run(scenario())


def test_after_some_calls_without_an_answer_nobody_waits_for_the_next():
    async def scenario() -> None:
        # Given calls that were given up, and another handful under way
        door, entered, leave = gate(places=50, risk=3), [], asyncio.Event()
        for _ in range(3):
            async with door.place():
                door.doubt()
        tasks = [asyncio.create_task(enter(door, entered, leave, n)) for n in range(3)]
        await settle()
        # When a fourth one comes, then it is turned away at once, until one of them is answered
        with pytest.raises(Held, match="ended without an answer"):
            await enter(door, entered, leave, 3)
        door.answered(0.01)
        async with door.place():
            assert entered == [0, 1, 2]
        leave.set()
        await asyncio.gather(*tasks)

    asyncio.run(scenario())


def test_who_waits_too_long_is_sent_away_and_all_who_are_come_back_one_after_the_other():
    async def scenario() -> None:
        # Given a place that is taken, and three who wait for it in vain
        door, leave = gate(places=1, patience=0.01), asyncio.Event()
        task = asyncio.create_task(enter(door, [], leave, 0))
        await settle()
        refused = await asyncio.gather(*(enter(door, [], leave, n) for n in range(3)), return_exceptions=True)

        # Then they are told different times
        assert all(isinstance(error, RateLimited) for error in refused)
        first, second, third = sorted(error.retry_after for error in refused)
        assert 0.9 < first < second < third < 1.1

        # And nobody's place is lost by it
        leave.set()
        await task
        async with door.place():
            pass

    asyncio.run(scenario())


def test_nobody_waits_for_a_destination_that_hangs():
    async def scenario() -> None:
        # Given calls that hang and one who waits, with all the patience in the world
        door, leave = gate(places=1, patience=1000.0, clock=time.monotonic), asyncio.Event()
        task = asyncio.create_task(enter(door, [], leave, 0))
        await settle()

        # When nothing moves, then he is sent away soon, and the next one at once
        async with asyncio.timeout(5):
            with pytest.raises(Held):
                await enter(door, [], leave, 1)
        next_one = asyncio.create_task(enter(door, [], leave, 2))
        await settle()
        assert isinstance(next_one.exception(), Held)
        leave.set()
        await task

    asyncio.run(scenario())


def test_a_cancelled_wait_passes_its_place_on():
    async def scenario() -> None:
        door, entered, leave = gate(places=1), [], asyncio.Event()
        first, second, third = (asyncio.create_task(enter(door, entered, leave, n)) for n in range(3))
        await settle()
        second.cancel()
        await settle()
        leave.set()
        await asyncio.gather(first, third)
        assert entered == [0, 2]

    asyncio.run(scenario())
