"""Who waits for a place: the lowest rank first, the others as they came."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from labrelay_worker.turns import Turn, Turns


def test_the_lowest_rank_comes_first_and_the_others_as_they_came() -> None:
    def scenario(turn: Callable[[str, int, float], Turn]) -> None:
        turns = Turns()
        for who, rank in (("a", 2), ("b", 1), ("c", 2), ("d", 0), ("e", 1)):
            turns.add(turn(who, rank, 0.0))
        assert [each.who for each in turns] == ["d", "b", "e", "a", "c"]
        assert [turns.pop().who for _ in range(len(turns))] == ["d", "b", "e", "a", "c"]
        assert not turns

    with_turns(scenario)


def test_who_gives_up_is_no_longer_among_them() -> None:
    def scenario(turn: Callable[[str, int, float], Turn]) -> None:
        # Given three who wait
        turns, first, second, third = Turns(), turn("a", 1, 7.0), turn("b", 0, 8.0), turn("c", 1, 9.0)
        for each in (first, second, third):
            turns.add(each)
        assert turns.next_to_give_up() == 7.0
        # When the first gives up, and says so twice
        turns.discard(first)
        turns.discard(first)
        # Then the others wait on
        assert turns.next_to_give_up() == 8.0
        assert [each.who for each in turns] == ["b", "c"]

    with_turns(scenario)


def with_turns(scenario: Callable[[Callable[[str, int, float], Turn]], None]) -> None:
    async def run() -> None:
        future = asyncio.get_running_loop().create_future
        scenario(lambda who, rank, give_up_at: Turn(who, rank, future(), give_up_at))

    asyncio.run(run())
