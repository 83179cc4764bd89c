"""What a process takes when it is woken: few looks, the urgent ones first, and nobody waits for slow neighbours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from labrelay.results import ExportState
from labrelay_worker import intake
from labrelay_worker.intake import Intake, Outcome, Silence
from labrelay_worker.ledger import UNCOUNTED, Claim, Places, Taken


class Ledger:
    """Urgent and bulk exports in memory, taken as `lua/claim.lua` does."""

    def __init__(self, *ready: str, urgent: Sequence[str] = ()) -> None:
        self.ready, self.urgent = list(ready), list(urgent)
        self.looks: list[Places] = []
        self.to_ring = 0

    async def take(self, named: Sequence[str], places: Places) -> Taken:
        self.looks.append(places)
        taken = [name for name in named if name in self.ready]
        self.ready = [name for name in self.ready if name not in taken]
        refused = {name: "leased" for name in named if name not in taken}
        if places.left:
            left = 64 if places.left == UNCOUNTED else places.left
            free = min(places.free, left)
            first = self.urgent[: free + places.reserve]
            self.urgent = self.urgent[len(first) :]
            free = max(0, free - len(first))
            taken += first + self.ready[:free]
            self.ready = self.ready[free:]
        used_up = places.left > 0 and (not taken or len(taken) >= places.left)
        claims = [Claim(name, {}, 0.0, 0.0) for name in taken]
        return Taken(claims, refused, used_up, self.to_ring if used_up else 0)


class Silent(Silence):
    """Exports whose destination does not answer."""

    def __init__(self) -> None:
        self.exports, self.told = set[str](), list[str]()

    def calls(self) -> int:
        return len(self.exports)

    def holds(self, export_id: str) -> bool:
        return export_id in self.exports

    def ended(self, outcome: Outcome) -> None:
        self.told.append(outcome.export_id)


class Desk:
    """An intake whose exports are done when the test says so."""

    def __init__(self, ledger: Ledger, places: int = 10) -> None:
        self.silence = Silent()
        self.ledger, self.started, self.rung = ledger, list[str](), list[int]()
        self.held: set[str] = set()
        self.stopping = False
        self._doors: dict[str, asyncio.Event] = {}
        self.intake = Intake(ledger, places, self._work, self._ring, lambda: self.stopping, self.silence)  # type: ignore[arg-type]

    async def _ring(self, count: int) -> None:
        self.rung.append(count)

    async def _work(self, claim: Claim) -> Outcome:
        self.started.append(claim.export_id)
        if claim.export_id in self.held:
            await self._doors.setdefault(claim.export_id, asyncio.Event()).wait()
        return Outcome(claim.export_id, f"session {claim.export_id}", "delivered")

    def finish(self, *names: str) -> None:
        for name in names:
            self.held.discard(name)
            self._doors.setdefault(name, asyncio.Event()).set()

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not true():
                await asyncio.sleep(0.002)


def run(scenario: Callable[[], Any]) -> None:
    asyncio.run(scenario())


def test_a_wake_up_takes_everything_and_ends_with_the_look_that_finds_nothing() -> None:
    async def scenario() -> None:
        # Given five exports, when one wake-up comes
        desk = Desk(Ledger("a", "b", "c", "d", "e"))
        handled = await desk.intake.wake([], looks=True)
        # Then all are delivered and told, and it looked once more than it had to
        assert [outcome.export_id for outcome in handled.outcomes] == ["a", "b", "c", "d", "e"]
        assert [places.left for places in desk.ledger.looks] == [64, 59]
        assert not handled.goes_back

    run(scenario)


def test_a_wake_up_brings_no_more_than_it_is_good_for() -> None:
    async def scenario() -> None:
        # Given more exports than one wake-up is good for, and places for all
        desk = Desk(Ledger(*(f"e{n}" for n in range(100))), places=500)
        desk.ledger.to_ring = 1
        # When it has brought its share, then the worker rings for the rest where the ledger says so
        handled = await desk.intake.wake([], looks=True)
        assert len(handled.outcomes) == 64
        assert desk.rung == [1]

    run(scenario)


def test_no_more_run_than_there_are_places() -> None:
    async def scenario() -> None:
        # Given three places and exports that do not end
        desk = Desk(Ledger("a", "b", "c", "d"), places=3)
        desk.held = {"a", "b", "c"}
        waking = asyncio.create_task(desk.intake.wake([], looks=True))
        await desk.until(lambda: desk.started == ["a", "b", "c"])
        # When one ends, then the next begins
        desk.finish("a")
        await desk.until(lambda: desk.started[-1] == "d")
        desk.finish("b", "c")
        await waking

    run(scenario)


def test_an_urgent_export_is_taken_while_every_place_is() -> None:
    async def scenario() -> None:
        # Given a process whose places are all taken by exports that do not end
        desk = Desk(Ledger("a", "b", "c"), places=2)
        desk.held = {"a", "b"}
        waking = asyncio.create_task(desk.intake.wake([], looks=True))
        await desk.until(lambda: desk.started == ["a", "b"])
        # When an urgent one comes, then it is delivered at once, and the other waits on
        desk.ledger.urgent.append("u")
        await desk.until(lambda: desk.started == ["a", "b", "u"])
        assert desk.ledger.ready == ["c"]
        desk.finish("a", "b")
        await waking

    run(scenario)


def test_a_full_process_keeps_its_wake_ups_but_for_one_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        # Given a full process, and four wake-ups more
        monkeypatch.setattr(intake, "_GIVE_UP_EVERY", 60.0)
        desk = Desk(Ledger(*(f"e{number}" for number in range(300))), places=2)
        desk.held = {"e0", "e1"}
        desk.ledger.to_ring = 1
        waking = [asyncio.create_task(desk.intake.wake([], looks=True)) for _ in range(5)]
        # When it has looked for urgent ones some times
        await desk.until(lambda: len(desk.ledger.looks) >= 8)
        # Then one of these looks used up its wake-up, and rang for another process to answer the next
        full = [places.left for places in desk.ledger.looks if not places.free]
        assert len(full) - full.count(UNCOUNTED) == len(desk.rung) == 1
        desk.finish("e0", "e1")
        desk.ledger.ready.clear()
        await asyncio.gather(*waking)

    run(scenario)


def test_a_loop_that_was_behind_takes_as_many_as_ever_once_everything_is_done() -> None:
    async def scenario() -> None:
        # Given a process that took fewer, because its loop was behind
        desk = Desk(Ledger("a", "b", "c", "d"), places=4)
        desk.intake._allowed, desk.intake._behind = 1.0, 0.5
        # When a burst comes and nothing is under way, then it takes all at once
        await desk.intake.wake([], looks=True)
        assert desk.ledger.looks[0].free == 4

    run(scenario)


def test_a_process_whose_wake_ups_all_wait_looks_by_itself() -> None:
    async def scenario() -> None:
        # Given a wake-up that is used up and waits for a slow export
        desk = Desk(Ledger("slow"))
        desk.held = {"slow"}
        waking = asyncio.create_task(desk.intake.wake([], looks=True))
        await desk.until(lambda: len(desk.ledger.looks) >= 2)
        # When another export comes and no thread of Celery is free to hear of it, then it is taken all the same
        desk.ledger.ready.append("late")
        await desk.until(lambda: "late" in desk.started)
        assert desk.ledger.looks[-1].left == UNCOUNTED
        desk.finish("slow")
        # And its wake-up tells of both
        assert [outcome.export_id for outcome in (await waking).outcomes] == ["slow", "late"]

    run(scenario)


def test_a_wake_up_ends_although_there_is_always_more_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        # Given a process with one thread of Celery, slow exports, and more of them than will ever be done
        monkeypatch.setattr(intake, "_LATE_LOOK", 0.01)
        monkeypatch.setattr(intake, "EXPORTS_PER_WAKE_UP", 2)
        monkeypatch.setattr(intake, "_MOST_TOLD", 8)
        names = [f"e{number}" for number in range(300)]
        desk = Desk(Ledger(*names), places=4)
        desk.held = set(names)

        async def end_what_began() -> None:
            for name in names:
                await asyncio.sleep(0.01)
                desk.finish(name)

        ending = asyncio.create_task(end_what_began())
        # When it is woken, then it tells of some and goes on with the last of them, whose end is told all the same
        handled = await desk.intake.wake([], looks=True)
        assert 8 <= len(handled.outcomes) <= 12
        assert desk.ledger.ready
        left = [outcome.export_id for outcome in handled.outcomes if outcome.state is ExportState.RUNNING]
        assert left
        await desk.until(lambda: desk.silence.told == left)
        ending.cancel()

    run(scenario)


def test_no_wake_up_waits_for_a_destination_that_is_silent() -> None:
    async def scenario() -> None:
        # Given a wake-up with an export that only waits for an answer
        desk = Desk(Ledger("a", "b"))
        desk.held = {"b"}
        desk.silence.exports = {"b"}
        handled = await desk.intake.wake([], looks=True)
        # Then it ends and says so, and the export goes on
        assert [(o.export_id, o.state) for o in handled.outcomes] == [("a", None), ("b", ExportState.RUNNING)]
        assert desk.silence.told == []
        # When the answer comes, then what became of it is told all the same
        desk.finish("b")
        await desk.until(lambda: desk.silence.told == ["b"])

    run(scenario)


def test_half_as_many_as_there_are_places_are_taken_in_the_stead_of_the_silent() -> None:
    async def scenario() -> None:
        # Given four places, and six exports that all wait for an answer
        names = [f"e{number}" for number in range(12)]
        desk = Desk(Ledger(*names), places=4)
        desk.held = set(names)
        first = asyncio.create_task(desk.intake.wake([], looks=True))
        await desk.until(lambda: len(desk.started) == 4)
        # When it shows that nobody answers, then two more are taken, and no third
        desk.silence.exports = set(names)
        await desk.until(lambda: len(desk.started) == 6)
        looks = len(desk.ledger.looks)
        await asyncio.sleep(0)
        assert len(desk.ledger.looks) == looks
        desk.finish(*names)
        await first
        assert desk.started == names

    run(scenario)


def test_a_wake_up_of_an_older_release_takes_what_it_names_alone() -> None:
    async def scenario() -> None:
        # Given three exports, when two are named and one of them is taken already
        desk = Desk(Ledger("a", "b"))
        handled = await desk.intake.wake(["a", "gone"], looks=False)
        # Then that is told, and the third stays
        assert {o.export_id: o.text for o in handled.outcomes} == {"a": "delivered", "gone": "nothing to do: leased"}
        assert desk.ledger.ready == ["b"]

    run(scenario)


def test_a_wake_up_that_comes_at_shutdown_goes_back() -> None:
    async def scenario() -> None:
        # Given a process that shuts down, when it is woken, then it takes nothing and the wake-up goes back
        desk = Desk(Ledger("a"))
        desk.stopping = True
        handled = await desk.intake.wake([], looks=True)
        assert handled.goes_back
        assert desk.ledger.looks == []

    run(scenario)
