"""What one worker process holds: event loop, registries, ledger, and the exports it works on."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

import uvloop
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from labrelay.archive import Archive
from labrelay.errors import BootError
from labrelay.redaction import redact
from labrelay.wakeups import Wake
from labrelay_worker.admission import Admissions
from labrelay_worker.choosing import Choices
from labrelay_worker.destinations.registry import ExporterRegistry
from labrelay_worker.engine import Host, Policy
from labrelay_worker.intake import Handled, Intake
from labrelay_worker.packing import Packing
from labrelay_worker.packing_commands import pack_in_c
from labrelay_worker.reconciler import Reconciler
from labrelay_worker.retirement import Retirement
from labrelay_worker.retrying import RetryPolicy
from labrelay_worker.settings import WorkerSettings
from labrelay_worker.silence import SilentCalls
from labrelay_worker.telemetry.assembling import Telemetry
from labrelay_worker.working import HAND_BACK_SECONDS, Work

_logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_WATCH_EVERY = 0.1
_CONNECTIONS = 16


class Runtime:
    """Everything of one process. Made once, after the fork; `boot` and `close` are each effective once.

    Parameters
    ----------
    settings
        The worker's settings.
    ring
        Publishes so many wake-ups for these exports; blocking.
    stopping
        Tells whether shutdown has begun; read often, so it must be cheap.
    telemetry
        Counts and traces what is done; default: nobody does.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        ring: Callable[[int, Sequence[Wake]], None],
        stopping: Callable[[], bool],
        telemetry: Telemetry | None = None,
    ) -> None:
        self.settings = settings
        self.registry = ExporterRegistry(settings)
        self.name = f"{socket.gethostname()}-{os.getpid()}"
        self._ring, self._stopping = ring, stopping
        self._telemetry = telemetry or Telemetry()
        self._policy = Policy(
            retry=RetryPolicy(**settings.retry.model_dump(), on_unknown=settings.on_unknown),
            link_wait=settings.link_wait,
        )
        self._loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        # The default of a few threads would be used up by the first share that hangs.
        self._loop.set_default_executor(ThreadPoolExecutor(settings.in_flight, "labrelay-files"))
        self._thread = threading.Thread(target=self._loop.run_forever, name="labrelay-loop", daemon=True)
        self._housekeeping: list[asyncio.Task[None]] = []
        self._closing = threading.Lock()
        self._closed = False

    def boot(self) -> None:
        """Discover plugins, reach Redis and start the loop.

        Raises
        ------
        BootError
            The worker must not run; the text names the repair.
        """
        self._refuse_open_data()
        self.registry.discover_plugins()
        self._thread.start()
        try:
            self._await(self._start())
        except RedisError as error:
            self.close()
            raise unreachable(error) from None
        for plugin in self.registry.unavailable:
            _logger.warning("plugin %s is unavailable: %s. %s", plugin.name, plugin.reason, plugin.cure)
        _collect_rarely()
        served = [info.name for info in self.registry.infos() if info.enabled]
        _logger.info("labrelay %s serves %s", self.name, ", ".join(served) or "no destination: every export waits")

    def wake(self, named: Sequence[str], *, looks: bool) -> Handled:
        """Deliver what one wake-up is for, and return when none of it can go on now; see `Intake.wake`."""
        return self._await(self._intake.wake(named, looks=looks))

    def close(self) -> None:
        """Drain, then close every plugin and connection, once; errors are logged, never raised."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        if self._thread.is_alive():
            try:
                self._await(self._shut_down())
            except Exception:
                _logger.exception("shutdown: something was left open; the process ends all the same")
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=5)
        self.registry.cleanup_backends()
        _logger.info("labrelay %s is closed", self.name)

    def _await(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _refuse_open_data(self) -> None:
        if not self.settings.data_roots and not self.settings.redis_address.is_local:
            raise BootError(
                "data_roots is empty although Redis is on another machine: whoever can write there could export any "
                "file this worker can read. Set LABRELAY_DATA_ROOTS to the folders of your instruments"
            )

    async def _start(self) -> None:
        self._redis = self.settings.redis_address.async_client(
            decode_responses=True,
            socket_timeout=10,
            socket_connect_timeout=5,
            max_connections=_CONNECTIONS,
            health_check_interval=25,
            retry=Retry(NoBackoff(), 0),  # the ledger repeats by itself and says so
        )
        pack_in_c(self._redis)
        self._ledger = self._telemetry.ledger(
            self._redis,
            self.settings.keys,
            owner=self.name,
            lease_seconds=self.settings.lease_seconds,
            poison_limit=self.settings.poison_limit,
            replicas=self.settings.required_replicas,
        )
        choices = Choices(self.registry, self._hosts_around, self.settings.strategy)
        self._work = Work(self._ledger, choices, self._policy, self._telemetry, self._stopping)
        await self._redis.ping()
        reconciler = Reconciler(
            self._ledger,
            self._ring,
            every=self.settings.reconcile_seconds,
            grace=self.settings.wake_up_grace,
            info=self.registry.describe(self.name),
            retire=self._retiring(),
        )
        served = self.registry.hosts([info.name for info in self.registry.infos()])
        self._admissions = Admissions(self._redis, self.settings, served, owner=self.name)
        self._intake = Intake(
            self._ledger,
            self.settings.in_flight,
            self._work.deliver,
            self._ring_again,
            self._stopping,
            SilentCalls(self._admissions, self._work.running),
        )
        self._telemetry.expect(info.name for info in self.registry.infos() if info.enabled)
        self._housekeeping = [
            *await self._admissions.start(),
            asyncio.create_task(self._work.keep_leases()),
            asyncio.create_task(self._watch_shutdown(asyncio.create_task(reconciler.run()))),
        ]

    def _hosts_around(self, hosts: Mapping[str, Host]) -> dict[str, Host]:
        return self._telemetry.hosts(self._admissions.before(hosts))

    async def _ring_again(self, count: int) -> None:
        try:
            await asyncio.to_thread(self._ring, count, ())
        except Exception as error:  # noqa: BLE001  the reconciler replaces wake-ups that are lost
            _logger.warning("%d wake-ups were not sent (%s); the next sweep sends them", count, type(error).__name__)

    def _retiring(self) -> Callable[[], Awaitable[object]]:
        packing = Packing(self._redis, self.settings.keys)
        retirement = Retirement(self._redis, self.settings.keys, Archive(self.settings.archive))

        async def retire() -> None:
            if self.settings.pack_after_seconds > 0:
                await packing.run(self.settings.pack_after_seconds)
            await retirement.step(self.settings.retention_days)

        return retire

    async def _watch_shutdown(self, reconciling: asyncio.Task[None]) -> None:
        try:
            while not self._stopping():
                await asyncio.sleep(_WATCH_EVERY)
        finally:
            # What is due now is for a worker that stays.
            reconciling.cancel()
        _logger.info("shutdown: no call starts any more, %d exports finish theirs", len(self._work.running))
        with suppress(RedisError, TimeoutError):
            async with asyncio.timeout(HAND_BACK_SECONDS):
                await self._ledger.resign()
        await self._work.drain(self.settings.drain_seconds)
        self._work.cut_off()

    async def _shut_down(self) -> None:
        await self._work.drain(self.settings.drain_seconds)
        for task in self._housekeeping:
            task.cancel()
        await asyncio.gather(*self._housekeeping, *self._work.cut_off(), return_exceptions=True)
        await self.registry.close()
        try:
            await self._ledger.resign()
            await self._ledger.withdraw(self.name)
        except RedisError:
            _logger.info("this worker stays announced until it counts as silent: Redis is away")
        await self._redis.aclose()
        await asyncio.to_thread(self._telemetry.close)


def _collect_rarely() -> None:
    # What is there after the boot stays; thousands of short-lived objects of every batch would have it searched for
    # circles again and again, at a sixth of a worker's CPU (docs/performance.md).
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def unreachable(error: RedisError) -> BootError:
    """Return the error of a worker that finds no Redis."""
    return BootError(f"Redis cannot be reached ({redact(str(error))}): start it or correct LABRELAY_REDIS_URL")
