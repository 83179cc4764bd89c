"""Who waits for a place at a gate, the lowest rank first and the others in the order in which they came."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import suppress


class Turn:
    """One who waits; the future is done when it is his turn, or fails with why it will not be."""

    __slots__ = ("future", "give_up_at", "rank", "who")

    def __init__(self, who: object, rank: int, future: asyncio.Future[None], give_up_at: float) -> None:
        self.who, self.rank, self.future, self.give_up_at = who, rank, future, give_up_at


class Turns:
    """All who wait. Each has the same patience, so within a rank the first to come is the first to give up."""

    def __init__(self) -> None:
        self._ranks: dict[int, deque[Turn]] = {}

    def __bool__(self) -> bool:
        return bool(self._ranks)

    def __len__(self) -> int:
        return sum(map(len, self._ranks.values()))

    def __iter__(self) -> Iterator[Turn]:
        return (turn for rank in sorted(self._ranks) for turn in self._ranks[rank])

    def add(self, turn: Turn) -> None:
        """Let one wait behind those of its rank."""
        self._ranks.setdefault(turn.rank, deque()).append(turn)

    def pop(self) -> Turn:
        """Take out whose turn it is."""
        rank = min(self._ranks)
        turn = self._ranks[rank].popleft()
        if not self._ranks[rank]:
            del self._ranks[rank]
        return turn

    def discard(self, turn: Turn) -> None:
        """Take one out, if it is still there."""
        if turn.rank not in self._ranks:
            return
        with suppress(ValueError):
            self._ranks[turn.rank].remove(turn)
        if not self._ranks[turn.rank]:
            del self._ranks[turn.rank]

    def next_to_give_up(self) -> float:
        """Return when the first of them gives up, by the loop's time."""
        return min(waiting[0].give_up_at for waiting in self._ranks.values())
