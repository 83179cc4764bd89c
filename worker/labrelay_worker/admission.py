"""What stands before a destination: breaker and pause, its share of the process, its account's limits.

`AdmittedHost` has the same interface as the host it stands before, so neither engine nor plugins know of it.
Everything that may have to wait does so before the intent is written, so a delivery that is held is never doubtful.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError

from labrelay.context import ExportContext
from labrelay.errors import DeliveryError, Held, Misconfigured, OutcomeUnknown, RateLimited, Rejected, Unavailable
from labrelay.priorities import Priority
from labrelay.results import Receipt
from labrelay.scripts import script_source
from labrelay_worker import holding, limiting
from labrelay_worker.accounts import SharedAccount
from labrelay_worker.batching import ScriptGroups
from labrelay_worker.breaker import BreakerPolicy, BreakerState, Event, Failed, Succeeded
from labrelay_worker.engine import Host
from labrelay_worker.gates import Gate
from labrelay_worker.holding import HoldBoard
from labrelay_worker.hosting import HostedDestination
from labrelay_worker.limiting import PATIENCE, AccountLimiter
from labrelay_worker.liveness import AttendedClock
from labrelay_worker.passing import PassingHost
from labrelay_worker.planning import Hold
from labrelay_worker.probing import Prober
from labrelay_worker.settings import WorkerSettings

_logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")


class AdmittedHost(PassingHost):
    """A hosted destination behind its breaker and limits.

    Parameters
    ----------
    host
        The destination.
    board
        The standings, shared by all workers.
    limiter
        The accounts' limits, shared by all workers.
    places
        Most calls of this process to it at once.
    clock
        By which its silence is measured.
    """

    def __init__(
        self,
        host: HostedDestination,
        board: HoldBoard,
        limiter: AccountLimiter,
        *,
        places: int,
        clock: Callable[[], float] | None = None,
    ) -> None:
        super().__init__(host)
        self._hosted, self._board, self._limiter = host, board, limiter
        self._name, self._limits = host.info.name, host.limits
        self._gate = Gate(
            min(places, host.places or places),
            self._risk,
            patience=PATIENCE,
            require_open=self._require_open,
            clock=clock,
        )

    def held(self) -> Hold | None:
        """Return why it takes nothing now."""
        return self._board.held(self._name, self._gate.closed())

    def slot(self, priority: Priority = Priority.NORMAL) -> AbstractAsyncContextManager[None]:
        """Hold a place in the process and at its account.

        Raises
        ------
        Held
            It takes nothing by now, or answers nothing; nothing was tried.
        RateLimited
            No place within a short wait; ``retry_after`` says when to come again.
        """
        if self._limits or self._hosted.places is not None:
            return self._limited_slot(priority)
        return self._gate.place(priority.rank)

    @asynccontextmanager
    async def _limited_slot(self, priority: Priority) -> AsyncIterator[None]:
        # The account's limits come last: a time reserved there must be used when it comes.
        urgent = priority is Priority.URGENT
        async with (
            self._gate.place(priority.rank),
            self._host.slot(priority),
            self._limiter.call(self._name, self._limits, overtakes=urgent),
        ):
            self._require_open()
            yield

    async def export(self, context: ExportContext, *, attempt: int) -> Receipt:
        """Send the record, and tell the breaker how it went."""
        return await self._told(self._host.export(context, attempt=attempt))

    async def resolve_doubt(self, context: ExportContext, *, attempt: int) -> Receipt | None:
        """Ask about an earlier send, and tell the breaker how it went."""
        if not self._hosted.can_find:
            return await self._host.resolve_doubt(context, attempt=attempt)
        receipt = await self._told(self._host.resolve_doubt(context, attempt=attempt))
        if receipt is None:
            await self._limiter.another(self._name, self._limits)  # the send that follows is a call of its own
        return receipt

    async def link(self, context: ExportContext, receipt: Receipt) -> Receipt:
        """Add links, and tell the breaker how it went."""
        return await self._told(self._host.link(context, receipt))

    def look(self) -> None:
        """Take note that the standing may have changed."""
        if self._board.standing(self._name).breaker.state is not BreakerState.CLOSED:
            self._gate.doubt()
        self._gate.let_in()

    def capacity(self) -> int:
        """Return how many waiting deliveries it can take until this is asked again."""
        return self._gate.capacity()

    def silent(self) -> int:
        """Return how many calls only wait for an answer that does not come."""
        return self._gate.silent()

    def idle(self) -> int:
        """Return how many deliveries only wait, as far as can be told early."""
        return self._gate.idle()

    def _require_open(self) -> None:
        hold = self._board.held(self._name)
        if hold is not None:
            raise Held(hold.reason)

    def _risk(self) -> int | None:
        standing = self._board.standing(self._name)
        # Whoever waits at a held destination shall come through to be told so; a limited account is careful anyway.
        if self._limits or standing.why_held:
            return None
        return standing.breaker.allowance(self._board.policy)

    async def _told(self, call: Awaitable[Answer]) -> Answer:
        began = self._board.now()
        try:
            answer = await call
        except DeliveryError as error:
            if isinstance(error, Unavailable | Misconfigured):
                asked = error.retry_after if isinstance(error, Unavailable) else None
                await self._report(Failed(error.kind, str(error), began, asked))
            if isinstance(error, Rejected | RateLimited):
                self._gate.heard()
            if isinstance(error, Unavailable | Misconfigured | OutcomeUnknown):
                self._gate.doubt()
            raise
        self._gate.answered(self._board.now() - began)
        if not self._board.is_untroubled(self._name):
            await self._report(Succeeded(began))
        return answer

    async def _report(self, event: Event) -> None:
        try:
            await self._board.report(self._name, event)
        except RedisError as error:
            # What became of the delivery is what counts, and that is written with patience.
            _logger.warning("breaker of %s was not told (%s); the next call tells", self._name, type(error).__name__)
        self.look()


class Admissions:
    """Every admitted host of one process, and what keeps their breakers and limits.

    Parameters
    ----------
    client
        A Redis client that decodes responses.
    settings
        The worker's settings.
    hosts
        The destinations served here.
    owner
        Name of this process.
    """

    def __init__(self, client: Redis, settings: WorkerSettings, hosts: Mapping[str, Host], *, owner: str) -> None:
        hosted = {name: host for name, host in hosts.items() if isinstance(host, HostedDestination)}
        sources = {name: script_source("labrelay_worker", name) for name in (*holding.SCRIPTS, *limiting.SCRIPTS)}
        scripts = ScriptGroups(client, sources)
        policy = BreakerPolicy(
            **settings.breaker.model_dump(), misconfigured_delay=settings.retry.misconfigured_delay
        )
        self._board = HoldBoard(scripts, settings.keys, list(hosted), policy)
        self._limiter = AccountLimiter(scripts, settings.keys, lease_seconds=settings.lease_seconds)
        # A destination that hangs may fill half of the process at most.
        places = max(1, settings.in_flight // 2)
        self._clock = AttendedClock()
        self._admitted = {
            name: AdmittedHost(host, self._board, self._limiter, places=places, clock=self._clock)
            for name, host in hosted.items()
        }
        for name, host in hosted.items():
            host.share(SharedAccount(self._limiter, name, host.limits))
        probes = {name: host.validate_config for name, host in hosted.items()}
        self._prober = Prober(self._board, probes, owner=owner, looked=self._look, capacity=self._capacity)

    async def start(self) -> list[asyncio.Task[None]]:
        """Learn how the destinations stand, and return the tasks that keep it so."""
        await self._board.refresh()
        return [asyncio.create_task(each.run()) for each in (self._clock, self._prober)] + [
            asyncio.create_task(self._limiter.renew())
        ]

    def before(self, hosts: Mapping[str, Host]) -> dict[str, Host]:
        """Return the hosts as the engine shall see them; stand-ins for what is not served here stay as they are."""
        return {
            name: self._admitted.get(name, host) if isinstance(host, HostedDestination) else host
            for name, host in hosts.items()
        }

    def is_silent(self, name: str) -> bool:
        """Return whether the calls to a destination only wait for an answer that does not come."""
        return name in self._admitted and self._admitted[name].silent() > 0

    def idle(self) -> int:
        """Return how many deliveries of the process only wait, as far as can be told early."""
        return sum(host.idle() for host in self._admitted.values())

    def _capacity(self, name: str) -> int:
        return self._admitted[name].capacity()

    def _look(self) -> None:
        for host in self._admitted.values():
            host.look()
