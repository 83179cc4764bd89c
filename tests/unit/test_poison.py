"""Exports that kill their workers are parked; innocent ones beside them are not, and are held up little."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import fakeredis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labrelay.ledger import Entry, Ledger
from labrelay.names import Keys
from labrelay.results import ExportState
from labrelay_worker.ledger import Claim, WorkerLedger

KEYS = Keys("test:")


class Desk:
    """One worker's ledger on a fake server."""

    def __init__(self, *exports: str) -> None:
        server = fakeredis.FakeServer()
        self.redis = fakeredis.FakeRedis(server=server, decode_responses=True)
        self.client = fakeredis.FakeAsyncRedis(server=server, decode_responses=True)
        self.ledger = Ledger(self.redis, KEYS, wake_up_grace=30)
        self.worker = WorkerLedger(self.client, KEYS, owner="w", lease_seconds=30, poison_limit=5)
        self.runner = asyncio.Runner()
        self.submit(*exports)

    def submit(self, *exports: str) -> None:
        self.ledger.submit([Entry(e, "d", "{}", f"session {e}", "i", "", ()) for e in exports], replace=False)

    def claim(self, export: str = "a") -> Claim | str:
        return self.runner.run(self.worker.claim(export))

    def commit(self, claim: Claim | str, *step: str) -> None:
        assert isinstance(claim, Claim)
        steps: Any = [step]
        assert self.runner.run(self.worker.commit(claim.export_id, claim.row["token"], steps)) == "ok"

    def die(self, export: str = "a", times: int = 1) -> None:
        for _ in range(times):
            assert isinstance(self.claim(export), Claim)
            self.end_lease(export)

    def end_lease(self, *exports: str) -> None:
        for export in exports:
            self.redis.hset(KEYS.export(export), "lease_until", 1)

    def close(self) -> None:
        self.runner.run(self.client.aclose())
        self.runner.close()
        self.redis.close()


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk("a", "b", "c")
    yield desk
    desk.close()


def test_an_export_is_handed_out_five_times_and_then_parked(desk: Desk) -> None:
    # Given five workers that died with an export
    desk.die(times=5)
    # When a sixth asks for it, then a person gets it instead
    assert desk.claim() == "poisoned"
    status = desk.ledger.status("a")
    assert (status.state, status.cause) == (ExportState.DEAD, "poison")
    assert status.summary.startswith("killed its worker 5 times")
    assert desk.claim() == "finished"


@pytest.mark.parametrize("step", [("receipt", "cdcs", "{}"), ("settle", "queued", "0 handed back")])
def test_progress_between_deaths_begins_the_count_anew(desk: Desk, step: tuple[str, str, str]) -> None:
    # Given an export that four workers died with, and a fifth that gets on with it before it dies
    desk.die(times=4)
    desk.commit(desk.claim(), *step)
    desk.end_lease("a")
    # When three more die, then it is still handed out
    desk.die(times=3)
    assert isinstance(desk.claim(), Claim)


def test_suspects_run_in_handfuls_that_grow_with_each_one_that_survives(desk: Desk) -> None:
    # Given exports that were running when two workers died, of which one runs again
    suspects = [f"s{number}" for number in range(7)]
    desk.submit(*suspects)
    for export in suspects:
        desk.die(export, times=2)
    first = desk.claim("s0")
    # When another one is asked for, then it waits its turn, and an export without such a past does not
    assert desk.claim("s1") == "suspect"
    assert isinstance(desk.claim("c"), Claim)
    # When the first is done, then two may run, and when those are done, four
    desk.commit(first, "settle", "delivered", "0 1 of 1")
    second, third = desk.claim("s1"), desk.claim("s2")
    assert desk.claim("s3") == "suspect"
    desk.commit(second, "receipt", "cdcs", "{}")
    desk.commit(third, "settle", "waiting", "0 back-off")
    assert all(isinstance(desk.claim(export), Claim) for export in suspects[3:])


def test_after_a_death_one_runs_at_a_time_and_who_died_in_a_handful_runs_alone(desk: Desk) -> None:
    # Given a handful of two that died
    desk.submit("d")
    for export in "abcd":
        desk.die(export, times=2)
    desk.commit(desk.claim("a"), "settle", "delivered", "0 1 of 1")
    for export in "bc":
        assert isinstance(desk.claim(export), Claim)
    desk.end_lease("b", "c")
    # When a third one runs, then alone, and when it is done, those who died do not run together
    fresh = desk.claim("d")
    assert desk.claim("b") == "suspect"
    desk.commit(fresh, "settle", "delivered", "0 1 of 1")
    assert isinstance(desk.claim("b"), Claim)
    assert desk.claim("c") == "suspect"


def test_with_one_life_left_a_suspect_runs_alone(desk: Desk) -> None:
    # Given a limit so low that the next death would be the last
    desk.worker._poison_limit = 3
    for export in "abc":
        desk.die(export, times=2)
    desk.commit(desk.claim("a"), "settle", "delivered", "0 1 of 1")
    # Then nobody runs beside anybody, however many have survived
    assert isinstance(desk.claim("b"), Claim)
    assert desk.claim("c") == "suspect"


@given(count=st.integers(2, 40), deadly=st.integers(1, 2), limit=st.integers(3, 6), seed=st.integers())
@settings(deadline=None, max_examples=40)
def test_poison_is_parked_and_every_innocent_export_is_delivered(
    count: int, deadly: int, limit: int, seed: int
) -> None:
    # Given exports of which one or two kill the process that works on them, together with whatever it works on
    dice = random.Random(seed)
    left = [f"s{number}" for number in range(count)]
    poison, desk = set(dice.sample(left, deadly)), Desk(*left)
    with closing(desk):
        desk.worker._poison_limit = limit
        while left:
            # When the process takes all that it gets, in any order, and dies if there is poison among them
            dice.shuffle(left)
            claims = [claim for name in left if isinstance(claim := desk.claim(name), Claim)]
            if any(claim.export_id in poison for claim in claims):
                desk.end_lease(*(claim.export_id for claim in claims))
            else:
                for claim in claims:
                    desk.commit(claim, "settle", "delivered", "0 1 of 1")
            left = [name for name in left if not desk.ledger.status(name).state.is_final]

        # Then the poison is with a person and everything else is delivered
        for number in range(count):
            state = desk.ledger.status(f"s{number}").state
            assert state is (ExportState.DEAD if f"s{number}" in poison else ExportState.DELIVERED)


def test_innocent_suspects_are_through_in_a_few_rounds(desk: Desk) -> None:
    # Given two hundred exports that were running when two workers died of something else
    left = [f"s{number}" for number in range(200)]
    desk.submit(*left)
    for export in left:
        desk.die(export, times=2)
    # When everything that may run is delivered, again and again
    rounds = 0
    while left:
        rounds += 1
        for claim in [claim for export in left if isinstance(claim := desk.claim(export), Claim)]:
            desk.commit(claim, "settle", "delivered", "0 1 of 1")
            left.remove(claim.export_id)
    # Then it took eight rounds: one, two, four …
    assert rounds == 8


def test_a_suspect_whose_worker_died_gives_way(desk: Desk) -> None:
    desk.die("a", times=3)
    desk.die("b", times=2)
    assert isinstance(desk.claim("b"), Claim)
    assert desk.claim("a") == "suspect"
