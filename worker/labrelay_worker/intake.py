"""What a process takes when it is woken: as many exports as it has places for, the urgent ones before all.

One wake-up collects at a time, so that claims travel together; what it took is delivered while the next one collects.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from labrelay.names import EXPORTS_PER_WAKE_UP
from labrelay.results import ExportState
from labrelay_worker.ledger import UNCOUNTED, Claim, Places, Taken, WorkerLedger

#: Seconds between two looks of one wake-up. Exports submitted one by one come in handfuls then, and the first look
#: that finds nothing ends it; until then producers publish no other. After a look that brought little, or with few
#: places free, twice as long: a look costs as much for one export as for many.
_PAUSE = 0.005
_HANDFUL = 8
#: Seconds between two looks for urgent exports while every place is taken.
_FULL_PAUSE = 0.02
#: Seconds between two wake-ups that a full process gives up, so that another process may answer the next one in its
#: stead. Each is a message of Celery's and costs as much as a dozen deliveries; where all are full, it comes back.
_GIVE_UP_EVERY = 0.1
#: Seconds by which the loop may be behind, whoever has the processor. Beyond it, more exports at once would not be
#: delivered sooner, and an urgent one would wait for all of them at each of its steps; so fewer are taken, at least
#: a sixth of the places. `_NEWEST` is the weight of the latest measurement.
_BEHIND, _NEWEST = 0.002, 0.25
_FEWER, _MORE, _LEAST = 0.9, 0.02, 1 / 6
#: Seconds until a process whose wake-ups all wait for slow exports looks without being woken.
_LATE_LOOK = 0.25
#: Exports after which a wake-up that looks so ends and leaves those under way: it would go on for as long as there is
#: a backlog, be seen by nobody meanwhile, and remember all it did.
_MOST_TOLD = 4 * EXPORTS_PER_WAKE_UP
_LEFT = "under way: no answer for a while; the ledger tells how it ends"


@dataclass(frozen=True)
class Outcome:
    """What became of one export of a wake-up, for Flower and the log."""

    export_id: str
    session: str
    text: str
    #: As it stands in the ledger now; None: it was not worked on.
    state: ExportState | None = None


class Silence:
    """Tells which exports only wait for an answer that does not come; by itself: none do."""

    def calls(self) -> int:
        """Return how many deliveries of such exports are under way; asked often, so it is cheap."""
        return 0

    def holds(self, export_id: str) -> bool:
        """Return whether an export under way is one of them."""
        return False

    def ended(self, outcome: Outcome) -> None:
        """Take note of what became of one whose wake-up did not wait for it."""


@dataclass(frozen=True)
class Handled:
    """What became of a wake-up."""

    outcomes: Sequence[Outcome]
    #: The process shuts down before it did all it should: it goes back to the queue.
    goes_back: bool = False


class Intake:
    """Takes exports on wake-ups.

    Parameters
    ----------
    ledger
        Where they are claimed.
    places
        Exports worked on at once, while that does not keep the loop busy; a tenth more are kept for urgent ones.
    work
        Delivers one claimed export.
    ring
        Publishes so many wake-ups.
    stopping
        Tells whether shutdown has begun.
    silence
        Knows the exports that only wait for an answer that does not come: they cost nothing meanwhile, so no wake-up
        waits for them, and others are taken in their stead, half as many as there are places at most.
    """

    def __init__(
        self,
        ledger: WorkerLedger,
        places: int,
        work: Callable[[Claim], Coroutine[Any, Any, Outcome]],
        ring: Callable[[int], Coroutine[Any, Any, None]],
        stopping: Callable[[], bool],
        silence: Silence | None = None,
    ) -> None:
        self._ledger, self._work, self._ring, self._stopping = ledger, work, ring, stopping
        self._silence = silence or Silence()
        self._places, self._reserve = places, max(1, places // 10)
        self._busy: dict[asyncio.Task[Outcome], Claim] = {}
        self._looked_at = self._gave_up_at = float("-inf")
        self._allowed = float(places)
        self._behind = 0.0
        self._brought = 0
        self._freed = asyncio.Event()
        self._turn = asyncio.Lock()

    async def wake(self, named: Sequence[str], *, looks: bool) -> Handled:
        """Answer a wake-up, and return when none of what it took can go on now, or will soon.

        Parameters
        ----------
        named
            Exports to claim whatever else is ready.
        looks
            Whether it is good for other exports that are ready, too.
        """
        async with self._turn:
            if not self._busy:
                # With nothing under way, how far the loop was behind is a thing of the past.
                self._allowed, self._behind = float(self._places), 0.0
            tasks, refused, done = await self._collect(list(named), EXPORTS_PER_WAKE_UP if looks else 0)
        while running := [task for task in tasks if not task.done()]:
            await asyncio.wait(running, timeout=_LATE_LOOK)
            if done and (slow := [task for task in running if not task.done()]):
                # Every thread of Celery may be waiting like this one, and nobody there to answer another wake-up.
                if len(tasks) >= _MOST_TOLD or all(self._silence.holds(self._busy[task].export_id) for task in slow):
                    break
                tasks += await self._look_late()
        outcomes = [Outcome(export_id, "", f"nothing to do: {why}") for export_id, why in refused.items()]
        outcomes += [task.result() if task.done() else self._leave(task) for task in tasks]
        return Handled(outcomes, goes_back=not done)

    def _leave(self, task: asyncio.Task[Outcome]) -> Outcome:
        claim = self._busy[task]
        task.add_done_callback(self._ended)
        return Outcome(claim.export_id, claim.row.get("session", ""), _LEFT, ExportState.RUNNING)

    async def _look_late(self) -> list[asyncio.Task[Outcome]]:
        if self._stopping() or time.monotonic() - self._looked_at < _LATE_LOOK:
            return []
        async with self._turn:
            free, reserve = self._free()
            if not free + reserve:
                return []
            taken = await self._take([], Places(free, reserve, UNCOUNTED))
        return [self._start(claim) for claim in taken.claims]

    async def _take(self, named: Sequence[str], places: Places) -> Taken:
        self._looked_at = time.monotonic()
        return await self._ledger.take(named, places)

    async def _collect(self, named: list[str], left: int) -> tuple[list[asyncio.Task[Outcome]], dict[str, str], bool]:
        tasks: list[asyncio.Task[Outcome]] = []
        refused: dict[str, str] = {}
        while named or left:
            if self._stopping():
                return tasks, refused, False
            free, reserve = self._free()
            now, named = named[:free], named[free:]
            if now or (left and free + reserve):
                taken = await self._take(now, Places(free - len(now), reserve, self._counted(left, free)))
                tasks += [self._start(claim) for claim in taken.claims]
                self._brought = len(taken.claims)
                refused |= taken.refused
                if left:
                    left = 0 if taken.used_up else max(1, left - len(taken.claims) - len(taken.refused))
                if taken.to_ring:
                    await self._ring(taken.to_ring)
            if named or left:
                await self._pause()
        return tasks, refused, True

    def _counted(self, left: int, free: int) -> int:
        """Return how many a look says its wake-up is good for; it would use up one that can bring nothing."""
        if free or not left:
            return left
        if time.monotonic() - self._gave_up_at < _GIVE_UP_EVERY:
            return UNCOUNTED
        self._gave_up_at = time.monotonic()
        return left

    def _free(self) -> tuple[int, int]:
        """Return the free places, and those for urgent exports beside them."""
        busy = max(0, len(self._busy) - min(self._silence.calls(), self._places // 2))
        return max(0, int(self._allowed) - busy), max(0, self._reserve - max(0, busy - self._places))

    def _start(self, claim: Claim) -> asyncio.Task[Outcome]:
        task = asyncio.create_task(self._work(claim))
        self._busy[task] = claim
        task.add_done_callback(self._finished)
        return task

    def _ended(self, task: asyncio.Task[Outcome]) -> None:
        if not task.cancelled() and task.exception() is None:
            self._silence.ended(task.result())

    def _finished(self, task: asyncio.Task[Outcome]) -> None:
        del self._busy[task]
        self._freed.set()

    async def _pause(self) -> None:
        free = self._free()[0]
        if not free:
            self._freed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(_FULL_PAUSE):
                    await self._freed.wait()
        pause = _PAUSE if min(free, self._brought) >= _HANDFUL else 2 * _PAUSE
        began = time.monotonic()
        await asyncio.sleep(pause)
        behind = time.monotonic() - began - pause
        self._behind += _NEWEST * (behind - self._behind)
        if self._behind > _BEHIND:
            self._allowed = max(self._places * _LEAST, 1.0, self._allowed * _FEWER)
        else:
            self._allowed = min(self._places, self._allowed + max(1.0, self._places * _MORE))
