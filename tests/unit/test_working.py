"""Exports under way when their process loses them: the call that runs ends, and nobody asks too early how."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import fakeredis
import pytest

from labrelay.context import ExportContext
from labrelay.errors import InvalidInput
from labrelay.ledger import Entry, Ledger
from labrelay.names import Keys
from labrelay.results import DestinationInfo, ExportState, Receipt, utc_now
from labrelay.strategies import Strategy
from labrelay_worker.engine import Policy
from labrelay_worker.intake import Outcome
from labrelay_worker.ledger import Claim, WorkerLedger
from labrelay_worker.retrying import RetryPolicy
from labrelay_worker.telemetry.assembling import Telemetry
from labrelay_worker.working import Work

KEYS = Keys("test:")
FIRST_DELAY = 7.0


class Slow:
    """A destination whose call ends when the test says so."""

    info = DestinationInfo(name="slow", type="fake", priority=50, waits_for=())
    can_ask = can_link = True

    def __init__(self) -> None:
        self.begun, self.answers = asyncio.Event(), asyncio.Event()
        self.cut_off = False

    def held(self) -> None:
        return None

    def slot(self, _: object) -> Any:
        return nullcontext()

    async def export(self, context: ExportContext, *, attempt: int) -> Receipt:
        self.begun.set()
        try:
            await self.answers.wait()
        except asyncio.CancelledError:
            self.cut_off = True
            raise
        return Receipt(destination="slow", at=utc_now())


class Desk:
    """A worker that is sending export 1 to the slow destination."""

    def __init__(self, context: ExportContext, lease_seconds: float = 30.0) -> None:
        server = fakeredis.FakeServer()
        self.redis = fakeredis.FakeRedis(server=server, decode_responses=True)
        self.client = fakeredis.FakeAsyncRedis(server=server, decode_responses=True)
        self.ledger = Ledger(self.redis, KEYS, wake_up_grace=30)
        self.worker = WorkerLedger(self.client, KEYS, owner="worker-1", lease_seconds=lease_seconds)
        self.slow, self._context = Slow(), context
        self.choices: Any = SimpleNamespace(hosts_of=lambda _: (Strategy.ALL, {"slow": self.slow}))
        policy = Policy(retry=RetryPolicy(first_delay=FIRST_DELAY))
        self.work = Work(self.worker, self.choices, policy, Telemetry(), lambda: False)

    def submit(self, content: str, *, replace: bool = False) -> None:
        session, instrument = self._context.session_identifier, self._context.instrument_pid
        entry = Entry("export-1", content, self._context.to_json(), session, instrument, "", ())
        self.ledger.submit([entry], replace=replace)

    def row(self) -> dict[str, str]:
        return self.redis.hgetall(KEYS.export("export-1"))

    async def deliver(self) -> Outcome:
        claim = await self.worker.claim("export-1")
        assert isinstance(claim, Claim)
        return await self.work.deliver(claim)

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[asyncio.Task[Outcome]]:
        self.submit("a")
        delivering = asyncio.create_task(self.deliver())
        keeping = asyncio.create_task(self.work.keep_leases())
        async with asyncio.timeout(10):
            await self.slow.begun.wait()
            yield delivering
        keeping.cancel()
        await self.client.aclose()
        self.redis.close()


@pytest.fixture
def run(make_context: Callable[..., ExportContext]) -> Callable[..., None]:
    def run(scenario: Callable[[Desk], Coroutine[Any, Any, None]], **options: Any) -> None:
        async def whole() -> None:
            await scenario(Desk(make_context(), **options))

        asyncio.run(whole())

    return run


def test_a_call_ends_when_its_export_is_another_ones(run: Callable[..., None]) -> None:
    async def scenario(desk: Desk) -> None:
        async with desk.sending() as delivering:
            # Given a call that runs when its export is replaced
            desk.submit("b", replace=True)
            # When the lease is to be prolonged, then the call is cut off before the next revision may begin
            outcome = await delivering
        assert desk.slow.cut_off
        assert "another worker goes on" in outcome.text

    run(scenario, lease_seconds=1.5)


def test_a_call_goes_on_while_its_lease_is_prolonged(run: Callable[..., None]) -> None:
    async def scenario(desk: Desk) -> None:
        async with desk.sending() as delivering:
            # Given a call that outlasts its lease
            await asyncio.sleep(2)
            desk.slow.answers.set()
            # When it ends, then its receipt counts
            assert (await delivering).state is ExportState.DELIVERED

    run(scenario, lease_seconds=1.5)


def test_nobody_asks_at_once_what_became_of_a_call_that_was_cut_off(run: Callable[..., None]) -> None:
    async def scenario(desk: Desk) -> None:
        async with desk.sending() as delivering:
            # Given a call that is cut off at shutdown
            desk.work.cut_off()
            outcome = await delivering
            # When another worker comes, then what the call sent has time to arrive before it is asked about
            assert await desk.worker.claim("export-1") == "later"
        assert outcome.text == "handed back at shutdown"
        row = desk.row()
        assert row["state"] == ExportState.QUEUED
        assert "i:slow" in row
        seconds, _ = desk.redis.time()
        assert 0 < float(row["not_before"]) / 1000 - seconds <= FIRST_DELAY + 1

    run(scenario)


def test_a_row_that_this_release_cannot_read_is_not_said_to_kill_workers(run: Callable[..., None]) -> None:
    async def scenario(desk: Desk) -> None:
        # Given an export one of whose deliveries a newer release has left in a state that this one does not know
        desk.submit("a")
        desk.redis.hset(KEYS.export("export-1"), "d:slow", '{"state": "negotiating"}')
        # When a worker claims it, then it is left to a person at once, and says why
        outcome = await desk.deliver()
        assert outcome.state is ExportState.DEAD
        status = desk.row()
        assert status["state"] == ExportState.DEAD
        assert "of a newer labrelay" in status["summary"]
        assert "crashes" not in status

    run(scenario)


def test_an_error_while_destinations_are_chosen_is_tried_again_later(run: Callable[..., None]) -> None:
    async def scenario(desk: Desk) -> None:
        # Given a row that asks for what this release does not have
        def fail(_: object) -> Any:
            raise InvalidInput("strategy", "there is no strategy 'quorum'", "")

        desk.choices.hosts_of = fail
        desk.submit("a")
        # When a worker claims it, then it waits and says why
        outcome = await desk.deliver()
        assert outcome.state is ExportState.WAITING
        assert "quorum" in desk.row()["summary"]

    run(scenario)
