"""Limits of accounts as the workers share them: two limiters on one Redis, with the real Lua."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable

import fakeredis
import pytest

from labrelay.errors import InvalidInput, RateLimited
from labrelay.names import Keys
from labrelay.scripts import script_source
from labrelay_worker import limiting
from labrelay_worker.accounts import SharedAccount
from labrelay_worker.batching import ScriptGroups
from labrelay_worker.destinations.base import Limits
from labrelay_worker.limiting import SCRIPTS, AccountLimiter, account_key

KEYS = Keys("labrelay:")
PLACES = f"{KEYS.prefix}places:{account_key('portal')}"


def with_limiters(scenario: Callable[..., Awaitable[None]], server: fakeredis.FakeServer | None = None) -> None:
    async def run() -> None:
        redis = fakeredis.FakeAsyncRedis(server=server or fakeredis.FakeServer(), decode_responses=True)

        def limiter() -> AccountLimiter:
            sources = {name: script_source("labrelay_worker", name) for name in SCRIPTS}
            return AccountLimiter(ScriptGroups(redis, sources), KEYS, lease_seconds=30)

        await scenario(redis, limiter(), limiter())
        await redis.aclose()

    asyncio.run(run())


async def attempts(limiters: list[AccountLimiter], limits: Limits, count: int) -> tuple[list[float], list[float]]:
    """Begin calls side by side; answer when they began, and when the refused ones may come again."""
    began: list[float] = []
    again: list[float] = []

    async def one(number: int) -> None:
        try:
            async with limiters[number % len(limiters)].call("portal", limits):
                began.append(time.monotonic())
        except RateLimited as refused:
            again.append(refused.retry_after)

    await asyncio.gather(*(one(n) for n in range(count)))
    return sorted(began), sorted(again)


def test_calls_of_two_workers_are_spaced_and_who_must_wait_long_comes_back_in_turn():
    async def scenario(redis: object, one: AccountLimiter, two: AccountLimiter) -> None:
        # Given four calls per second, when two workers begin thirty calls at once
        began, again = await attempts([one, two], Limits(per_second=4), 30)

        # Then those whose time comes within two seconds begin, a quarter of a second apart
        assert 8 <= len(began) <= 9
        gaps = [later - earlier for earlier, later in itertools.pairwise(began)]
        assert min(gaps) > 0.1  # one that begins late makes the gap after it shorter

        # And the others are told times a quarter apart, not one for all
        turns = [later - earlier for earlier, later in itertools.pairwise(again)]
        assert all(gap == pytest.approx(0.25, abs=0.1) for gap in turns)

    with_limiters(scenario)


def test_no_more_calls_run_at_once_than_the_account_allows():
    async def scenario(redis: object, one: AccountLimiter, two: AccountLimiter) -> None:
        # Given two places, when two workers begin ten calls that last a while
        running, most, done = 0, 0, 0

        async def call(limiter: AccountLimiter) -> None:
            nonlocal running, most, done
            async with limiter.call("portal", Limits(concurrent=2)):
                running += 1
                most = max(most, running)
                await asyncio.sleep(0.01)
                running -= 1
                done += 1

        await asyncio.gather(*(call(limiter) for limiter in (one, two) for _ in range(5)))
        assert (most, done) == (2, 10)

    with_limiters(scenario)


def test_the_place_of_a_dead_worker_comes_free_when_its_lease_ends():
    async def scenario(redis: fakeredis.FakeAsyncRedis, one: AccountLimiter, two: AccountLimiter) -> None:
        # Given an account whose only place was held by a worker that died
        seconds, _ = await redis.time()
        places = KEYS.places(account_key("portal"))
        await redis.zadd(places, {"dead": seconds * 1000 + 200})

        # When another one calls, then it gets the place once the lease has ended
        async with one.call("portal", Limits(concurrent=1)):
            assert await redis.zrange(places, 0, -1) != ["dead"]
        assert await redis.zcard(places) == 0

    with_limiters(scenario)


def test_destinations_of_one_account_share_its_limits_and_its_name_is_in_no_key():
    async def scenario(redis: fakeredis.FakeAsyncRedis, one: AccountLimiter, two: AccountLimiter) -> None:
        limits = Limits(account="akid-0123456789", per_second=0.1)
        async with one.call("notebook", limits):
            pass
        with pytest.raises(RateLimited) as refused:
            async with two.call("other notebook", limits):
                pytest.fail("the account was used just now")
        assert 9 < refused.value.retry_after <= 20
        async with two.call("other notebook", Limits(per_second=0.1)):
            pass
        assert not [key for key in await redis.keys() if "0123456789" in key or "notebook" in key]

    with_limiters(scenario)


def test_without_redis_a_limited_delivery_waits_and_nothing_is_tried():
    server = fakeredis.FakeServer()

    async def scenario(redis: fakeredis.FakeAsyncRedis, one: AccountLimiter, two: AccountLimiter) -> None:
        server.connected = False
        with pytest.raises(RateLimited, match="Redis does not answer"):
            async with one.call("portal", Limits(per_second=5)):
                pytest.fail("nobody knows whether it may be called")

    with_limiters(scenario, server)


def test_a_destination_without_limits_asks_nobody():
    async def scenario(redis: fakeredis.FakeAsyncRedis, one: AccountLimiter, two: AccountLimiter) -> None:
        async with one.call("portal", Limits()):
            pass
        assert await redis.keys() == []

    with_limiters(scenario)


@pytest.mark.parametrize("wrong", [{"per_second": 0}, {"per_second": -1.0}, {"concurrent": 0}])
def test_limits_that_would_let_nothing_through_are_refused(wrong):
    with pytest.raises(InvalidInput, match="Pause the destination"):
        Limits(**wrong)


def test_a_blocking_plugin_awaits_the_pace_from_the_loop_of_its_own_thread():
    async def scenario(redis: object, one: AccountLimiter, two: AccountLimiter) -> None:
        # Given an account with five requests a second, one of which was just made
        account = SharedAccount(one, "portal", Limits(requests_per_second=5))
        assert account.interval == 0.2
        await account.pace()
        # When a thread awaits the next turn on a loop of its own
        began = time.monotonic()
        await asyncio.to_thread(asyncio.run, account.pace())
        # Then it has waited for it
        assert time.monotonic() - began > 0.1

    with_limiters(scenario)


def test_who_is_cut_off_while_its_time_comes_gives_its_place_back():
    async def scenario(redis: fakeredis.FakeAsyncRedis, one: AccountLimiter, two: AccountLimiter) -> None:
        # Given a single place, and somebody who has it and waits for the pace
        limits = Limits(concurrent=1, per_second=1)
        async with one.call("portal", limits):
            pass

        async def call() -> None:
            async with one.call("portal", limits):
                raise AssertionError("its time has not come")

        waits = asyncio.create_task(call())
        while not await redis.zcard(PLACES):
            await asyncio.sleep(0.001)
        # When it is cut off, as at a shutdown
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits
        # Then another worker has the place at once, not when its lease ends
        assert not await redis.zcard(PLACES)

    with_limiters(scenario)


def test_locks_of_single_records_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limiting, "_REMEMBERED", 3)

    async def scenario(redis: object, one: AccountLimiter, two: AccountLimiter) -> None:
        # Given a destination that locks each record, when it delivers many
        account = SharedAccount(one, "portal", Limits())
        for number in range(10):
            async with account.lock(f"record {number}"):
                pass
        # Then the process does not remember all of them
        assert len(one._duration) == 3

    with_limiters(scenario)
