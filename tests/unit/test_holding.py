"""Breakers as the workers share them: two boards on one Redis, with the real Lua."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import fakeredis

from labrelay.names import Keys
from labrelay.results import Delivery, DeliveryState
from labrelay.scripts import script_source
from labrelay_worker.batching import ScriptGroups
from labrelay_worker.breaker import BreakerPolicy, BreakerState, Failed, Succeeded
from labrelay_worker.holding import SCRIPTS, HoldBoard, Pause
from labrelay_worker.probing import Prober

KEYS = Keys("labrelay:")
POLICY = BreakerPolicy(threshold=3, open_seconds=0.01, longest_open_seconds=0.02)


class Lab:
    """A Redis with two workers' boards."""

    def __init__(self) -> None:
        self.redis = fakeredis.FakeAsyncRedis(decode_responses=True)
        self.calls = 0
        self.one, self.two = self.board(), self.board()

    def board(self) -> HoldBoard:
        scripts = ScriptGroups(self.redis, {name: script_source("labrelay_worker", name) for name in SCRIPTS})
        run = scripts.run

        async def counted(*arguments: str | int) -> object:
            self.calls += 1
            return await run(*arguments)

        scripts.run = counted
        return HoldBoard(scripts, KEYS, ["portal", "archive"], POLICY)

    async def fail(self, board: HoldBoard, times: int = 1) -> None:
        for _ in range(times):
            await board.report("portal", Failed("unavailable", "no connection", board.now()))

    async def wait_for(self, export_id: str, **row: str) -> None:
        """Put an export into the ledger that waits for the portal."""
        await self.redis.hset(KEYS.export(export_id), mapping={"state": "waiting", "not_before": "9e15"} | row)
        await self.redis.zadd(KEYS.due, {export_id: 9e15})
        await self.redis.zadd(KEYS.held("portal"), {export_id: 1})


def with_lab(scenario: Callable[[Lab], Awaitable[None]]) -> None:
    async def run() -> None:
        lab = Lab()
        await lab.one.refresh()
        await lab.two.refresh()
        await scenario(lab)
        await lab.redis.aclose()

    asyncio.run(run())


def test_failures_that_two_workers_meet_count_together_and_hold_both():
    async def scenario(lab: Lab) -> None:
        # Given two failures seen by one worker and one by the other, which knows nothing of them yet
        await lab.fail(lab.one, 2)
        await lab.fail(lab.two)

        # Then the breaker is open for the second at once, and for the first at its next look
        assert lab.two.held("portal") is not None
        assert lab.one.held("portal") is None
        await lab.one.refresh()
        hold = lab.one.held("portal")
        assert "no connection" in hold.reason
        assert hold.whole_destination
        assert lab.one.held("archive") is None

    with_lab(scenario)


def test_a_healthy_delivery_costs_no_round_trip():
    async def scenario(lab: Lab) -> None:
        before = lab.calls
        for _ in range(100):
            await lab.one.report("portal", Succeeded(lab.one.now()))
        assert lab.calls == before

    with_lab(scenario)


def test_many_failures_at_once_open_it_once():
    async def scenario(lab: Lab) -> None:
        # Given calls that run side by side in two workers, when all of them fail
        began = lab.one.now()
        failed = Failed("unavailable", "no connection", began)
        await asyncio.gather(*(board.report("portal", failed) for board in (lab.one, lab.two) for _ in range(50)))

        # Then it opened once, for the first delay
        await lab.one.refresh()
        breaker = lab.one.standing("portal").breaker
        assert (breaker.state, breaker.openings) == (BreakerState.OPEN, 1)

    with_lab(scenario)


def test_a_breaker_that_cannot_be_read_lets_deliveries_through_and_a_pause_does_not():
    async def scenario(lab: Lab) -> None:
        await lab.redis.hset(KEYS.breakers, "portal", "{not json")
        await lab.redis.hset(KEYS.pauses, "archive", "{not json")
        await lab.one.refresh()
        assert lab.one.held("portal") is None
        assert "somebody" in lab.one.held("archive").reason

        # And the next failures mend it
        await lab.fail(lab.one, 3)
        assert json.loads(await lab.redis.hget(KEYS.breakers, "portal"))["state"] == "open"

    with_lab(scenario)


def test_a_release_makes_what_waited_due_one_after_the_other():
    async def scenario(lab: Lab) -> None:
        # Given exports that wait for the portal, one of them after a failure there, and one that was finished since
        failed = Delivery(
            state=DeliveryState.RETRYING, first_at=1784567890.123, retry_at=9e12, error_kind="unavailable"
        )
        await lab.wait_for("failed", **{"d:portal": failed.model_dump_json(exclude_none=True)})
        await lab.wait_for("pending")
        await lab.wait_for("finished", state="delivered")

        # When they are released over a second
        assert await lab.one.release("portal", 10, within=1.0) == 3

        # Then both that wait are due, apart, and the back-off is over; the finished one is left alone
        now = lab.one.now() * 1000
        due = {name: at - now for name, at in await lab.redis.zrange(KEYS.due, 0, -1, withscores=True)}
        assert -1000 < due["failed"] < 100  # by a clock of our own, which is a little off
        assert due["pending"] - due["failed"] == 100
        assert due["finished"] > 1e12
        delivery = Delivery.model_validate_json(await lab.redis.hget(KEYS.export("failed"), "d:portal"))
        assert delivery == failed.model_copy(update={"retry_at": None})
        assert await lab.redis.zcard(KEYS.held("portal")) == 0

    with_lab(scenario)


def prober(board: HoldBoard, answers: list[bool], asked: list[str], owner: str = "me") -> Prober:
    async def probe() -> tuple[bool, str | None]:
        asked.append(owner)
        return answers.pop(0), "still down"

    return Prober(
        board, {"portal": probe, "archive": probe}, owner=owner, looked=lambda: None, capacity=lambda _: 500
    )


async def look_until(condition: Callable[[], bool], *probers: Prober) -> None:
    async with asyncio.timeout(10):
        while not condition():
            for each in probers:
                await each.look()
            await asyncio.sleep(0)


def test_an_open_breaker_is_probed_by_one_worker_until_it_answers_and_few_go_first():
    async def scenario(lab: Lab) -> None:
        # Given a breaker that is open, with three exports waiting, and two workers
        await lab.fail(lab.one, 3)
        for number in range(3):
            await lab.wait_for(f"export-{number}")
        asked: list[str] = []
        answers = [False, True]
        probers = prober(lab.one, answers, asked, "one"), prober(lab.two, answers, asked, "two")

        # When they look again and again, then it was asked twice in all, and is on trial
        await look_until(lambda: lab.one.standing("portal").breaker.state is BreakerState.TRIAL, *probers)
        assert len(asked) == 2

        # And one at a time goes until one has arrived
        await lab.redis.zadd(KEYS.held("portal"), {f"export-{n}": n for n in range(3)})
        await lab.one.refresh()
        await probers[0].look()
        assert await lab.redis.zcard(KEYS.held("portal")) == 2
        await lab.one.report("portal", Succeeded(lab.one.now()))
        await probers[0].look()
        assert await lab.redis.zcard(KEYS.held("portal")) == 0

    with_lab(scenario)


def test_a_paused_destination_is_neither_probed_nor_released():
    async def scenario(lab: Lab) -> None:
        await lab.fail(lab.one, 3)
        await lab.wait_for("export")
        await lab.redis.hset(KEYS.pauses, "portal", Pause(by="me", at=0, reason="repairs").model_dump_json())
        asked: list[str] = []
        keeper = prober(lab.one, [True], asked)
        for _ in range(20):
            await keeper.look()
            await asyncio.sleep(0.002)
        assert asked == []
        assert "repairs" in lab.one.held("portal").reason
        assert await lab.redis.zcard(KEYS.held("portal")) == 1

    with_lab(scenario)
