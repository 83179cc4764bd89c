"""What answers say of a destination, by a clock of the test's own; and the clock that a worker uses."""

from __future__ import annotations

import asyncio
import time

from labrelay_worker.liveness import AttendedClock, Liveness


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_an_unknown_destination_gets_one_handful_and_another_whenever_the_silence_doubles() -> None:
    # Given calls of which three may fail, all begun at once
    clock = Clock()
    liveness = Liveness(clock)
    liveness.heard()
    began = [clock.seconds] * 3
    # When time passes and nothing is heard, then as many more may begin after 0.5, 1 and 2 s
    seen = []
    for seconds in (0.0, 0.4, 0.5, 0.9, 1.0, 1.9, 2.0):
        clock.seconds = 100.0 + seconds
        seen.append(liveness.room(3, began))
    assert seen == [0, 0, 3, 3, 6, 6, 9]


def test_the_next_handful_is_told_in_time() -> None:
    clock = Clock()
    liveness = Liveness(clock)
    liveness.heard()
    clock.seconds += 0.7
    assert round(liveness.next_handful(), 6) == 0.3


def test_one_that_answers_slowly_is_silent_later() -> None:
    # Given a destination whose calls last two seconds
    clock = Clock()
    liveness = Liveness(clock)
    liveness.answered(2.0, 1)
    # When three seconds pass, then it is not silent; after four it is
    clock.seconds += 3.0
    assert not liveness.is_silent()
    assert liveness.is_silent(1 / 2)
    clock.seconds += 1.0
    assert liveness.is_silent()


def test_an_answer_ends_every_doubt() -> None:
    liveness = Liveness(Clock())
    for _ in range(3):
        liveness.doubt()
    assert liveness.is_hopeless
    liveness.answered(0.01, 1)
    assert liveness.answers
    assert not liveness.is_hopeless


def test_one_that_answers_gets_every_place_in_three_answers_while_others_wait() -> None:
    # Given an unknown destination with three calls, and many who wait
    liveness = Liveness(Clock())
    running, seen = 3, []
    # When each answer lets in whoever may begin
    for _ in range(3):
        liveness.answered(0.02, running, more_wait=True)
        running += liveness.room(3, [100.0] * running)
        seen.append(running)
    # Then there are four times as many each time
    assert seen == [15, 63, 255]


def test_one_that_nobody_waits_for_is_trusted_with_twice_what_it_had() -> None:
    liveness = Liveness(Clock())
    for _ in range(100):
        liveness.answered(0.02, 5)
    assert liveness.room(3, []) == 13


def test_a_burst_begins_with_what_the_one_before_reached_and_is_forgotten_in_a_minute() -> None:
    # Given a burst that had fifty calls at once and fewer and fewer at its end
    clock = Clock()
    liveness = Liveness(clock)
    for running in range(50, 0, -1):
        liveness.answered(0.02, running)
    # When the next one comes at once, after ten seconds, and after a minute
    seen = []
    for seconds in (0, 10, 60):
        clock.seconds = 100.0 + seconds
        seen.append(liveness.room(3, []))
    # Then twice as many may begin, half of that, and a handful
    assert seen == [103, 53, 5]


def test_what_it_answered_before_a_doubt_counts_no_more() -> None:
    # Given a destination that had fifty calls at once, and then failed
    liveness = Liveness(Clock())
    liveness.answered(0.02, 50)
    liveness.doubt()
    assert liveness.room(3, []) == 3
    # When it answers a trial, then it is met as an unknown one
    liveness.answered(0.02, 1)
    assert liveness.room(3, []) == 5


def test_time_in_which_the_loop_was_busy_is_no_silence() -> None:
    async def scenario() -> None:
        # Given a clock that counts what the loop attends to
        clock = AttendedClock()
        counting = asyncio.create_task(clock.run())
        await asyncio.sleep(0.06)
        attended, began = clock(), asyncio.get_running_loop().time()
        # When something computes for half a second, and the loop could hear nobody
        time.sleep(0.5)
        await asyncio.sleep(0)
        # Then a fraction of it counts
        assert asyncio.get_running_loop().time() - began >= 0.5
        assert clock() - attended <= 0.2
        counting.cancel()

    asyncio.run(scenario())
