"""What one worker process holds: event loop, registries, ledger, and the exports it works on."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import redis.asyncio
import uvloop
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from labrelay.archive import Archive
from labrelay.errors import BootError, LabrelayError, LeaseLost
from labrelay.plans import select
from labrelay.redaction import redact
from labrelay.results import ExportState
from labrelay.wakeups import Wake
from labrelay_worker.admission import Admissions
from labrelay_worker.destinations.registry import ExporterRegistry
from labrelay_worker.engine import Policy, run_export
from labrelay_worker.ledger import LedgerJob, WorkerLedger
from labrelay_worker.reconciler import Reconciler
from labrelay_worker.retirement import Retirement
from labrelay_worker.retrying import RetryPolicy
from labrelay_worker.settings import WorkerSettings

_logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_INTERNAL_ERROR_PAUSE = 60.0
_WATCH_EVERY = 0.1
_CONNECTIONS = 16
#: Shutdown is bounded even when Redis is away; a lease that is not given back runs out.
_HAND_BACK_SECONDS = 5.0


@dataclass(frozen=True)
class Outcome:
    """What became of one export id of a wake-up, for Flower and the log."""

    export_id: str
    session: str
    text: str
    #: Not taken because the process is shutting down: somebody else must.
    left: bool = False


class Runtime:
    """Everything of one process. Made once, after the fork; `boot` and `close` are each effective once.

    Parameters
    ----------
    settings
        The worker's settings.
    publish
        Sends wake-ups; blocking.
    stopping
        Tells whether shutdown has begun; read often, so it must be cheap.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        publish: Callable[[Sequence[Wake]], None],
        stopping: Callable[[], bool],
    ) -> None:
        self.settings = settings
        self.registry = ExporterRegistry(settings)
        self.name = f"{socket.gethostname()}-{os.getpid()}"
        self._publish, self._stopping = publish, stopping
        self._policy = Policy(
            retry=RetryPolicy(**settings.retry.model_dump(), on_unknown=settings.on_unknown),
            link_wait=settings.link_wait,
        )
        self._loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="labrelay-loop", daemon=True)
        self._jobs: dict[str, tuple[LedgerJob, asyncio.Task[Any]]] = {}
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
        served = [info.name for info in self.registry.infos() if info.enabled]
        _logger.info("labrelay %s serves %s", self.name, ", ".join(served) or "no destination: every export waits")

    def run(self, export_ids: Sequence[str]) -> list[Outcome]:
        """Deliver the exports of one wake-up, and return when none of them can go on now."""
        return self._await(self._run_all(export_ids))

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
        url = self.settings.resolve_redis_url()
        local = url.startswith("unix:") or any(
            f"{at}{host}" in url for at in "/@" for host in ("127.0.0.1", "localhost")
        )
        if not self.settings.data_roots and not local:
            raise BootError(
                "data_roots is empty although Redis is on another machine: whoever can write there could export any "
                "file this worker can read. Set LABRELAY_DATA_ROOTS to the folders of your instruments"
            )

    async def _start(self) -> None:
        self._redis = redis.asyncio.Redis.from_url(
            self.settings.resolve_redis_url(),
            decode_responses=True,
            socket_timeout=10,
            socket_connect_timeout=5,
            max_connections=_CONNECTIONS,
            health_check_interval=25,
            retry=Retry(NoBackoff(), 0),  # the ledger repeats by itself and says so
        )
        self._slots = asyncio.Semaphore(self.settings.in_flight)
        self._ledger = WorkerLedger(
            self._redis,
            self.settings.keys,
            owner=self.name,
            lease_seconds=self.settings.lease_seconds,
            poison_limit=self.settings.poison_limit,
        )
        await self._redis.ping()
        retirement = Retirement(self._redis, self.settings.keys, Archive(self.settings.archive))
        reconciler = Reconciler(
            self._ledger,
            self._publish,
            every=self.settings.reconcile_seconds,
            grace=self.settings.wake_up_grace,
            info=self.registry.describe(self.name),
            retire=lambda: retirement.step(self.settings.retention_days),
        )
        served = self.registry.hosts([info.name for info in self.registry.infos()])
        self._admissions = Admissions(self._redis, self.settings, served, owner=self.name)
        self._housekeeping = [
            *await self._admissions.start(),
            asyncio.create_task(self._keep_leases()),
            asyncio.create_task(self._watch_shutdown(asyncio.create_task(reconciler.run()))),
        ]

    async def _run_all(self, export_ids: Sequence[str]) -> list[Outcome]:
        return list(await asyncio.gather(*(self._run_one(export_id) for export_id in export_ids)))

    async def _run_one(self, export_id: str) -> Outcome:
        async with self._slots:
            if self._stopping():
                return Outcome(export_id, "", "left to another worker: this one is shutting down", left=True)
            claim = await self._ledger.claim(export_id)
            if isinstance(claim, str):
                return Outcome(export_id, "", f"nothing to do: {claim}")
            try:
                job = LedgerJob(self._ledger, claim)
            except LabrelayError as error:
                _logger.error("export %s cannot be read and is dead until a person looks: %s", export_id, error)
                await self._ledger.refuse(claim, error)
                return Outcome(export_id, claim.row["session"], f"dead: {error}")
            task = asyncio.create_task(self._deliver(job))
            self._jobs[export_id] = job, task
            try:
                return Outcome(export_id, job.session, await task)
            finally:
                del self._jobs[export_id]

    async def _deliver(self, job: LedgerJob) -> str:
        selection = select(
            job.instrument,
            job.named_strategy,
            job.named,
            self.registry.infos(),
            self.registry.routes,
            self.settings.strategy,
        )
        hosts = self._admissions.before(self.registry.hosts(selection.names))
        job.choose(selection.strategy, list(hosts))
        try:
            verdict = await run_export(job, hosts, self._policy, self._stopping)
        except LeaseLost:
            _logger.warning("export %s is another worker's by now; nothing more is written here", job.export_id)
            return "lease lost: another worker goes on"
        except asyncio.CancelledError:
            return await self._hand_back(job)
        except Exception as error:
            _logger.exception("export %s met an error in labrelay itself; it is tried again", job.export_id)
            text = redact(f"internal error {type(error).__name__}: {error}")
            await job.settle(ExportState.WAITING, text, not_before=job.now() + _INTERNAL_ERROR_PAUSE)
            return text
        return f"{verdict.state}: {verdict}"

    async def _hand_back(self, job: LedgerJob) -> str:
        try:
            async with asyncio.timeout(_HAND_BACK_SECONDS):
                await job.settle(ExportState.QUEUED, "handed back at shutdown")
        except (TimeoutError, LeaseLost, RedisError):
            return "its lease runs out by itself"
        return "handed back at shutdown"

    async def _keep_leases(self) -> None:
        while True:
            await asyncio.sleep(self.settings.lease_seconds / 3)
            jobs = [job for job, _ in self._jobs.values()]
            try:
                if jobs:
                    await self._ledger.renew(jobs)
            except Exception as error:  # noqa: BLE001  the leases run out by themselves if this goes on
                _logger.warning("leases could not be renewed (%s); trying again", type(error).__name__)

    async def _watch_shutdown(self, reconciling: asyncio.Task[None]) -> None:
        try:
            while not self._stopping():
                await asyncio.sleep(_WATCH_EVERY)
        finally:
            # What is due now is for a worker that stays.
            reconciling.cancel()
        _logger.info("shutdown: no call starts any more, %d exports finish theirs", len(self._jobs))
        with suppress(RedisError, TimeoutError):
            async with asyncio.timeout(_HAND_BACK_SECONDS):
                await self._ledger.resign()
        deadline = time.monotonic() + self.settings.drain_seconds
        while self._jobs and time.monotonic() < deadline:
            await asyncio.sleep(_WATCH_EVERY)
        for job, task in list(self._jobs.values()):
            _logger.warning("export %s: its running call is cut off; another worker asks how it ended", job.export_id)
            task.cancel()

    async def _shut_down(self) -> None:
        deadline = time.monotonic() + self.settings.drain_seconds
        while self._jobs and time.monotonic() < deadline:
            await asyncio.sleep(_WATCH_EVERY)
        tasks = [task for _, task in self._jobs.values()]
        for task in [*self._housekeeping, *tasks]:
            task.cancel()
        await asyncio.gather(*self._housekeeping, *tasks, return_exceptions=True)
        await self.registry.close()
        try:
            await self._ledger.withdraw(self.name)
        except RedisError:
            _logger.info("this worker stays announced until it counts as silent: Redis is away")
        await self._redis.aclose()


def unreachable(error: RedisError) -> BootError:
    """Return the error of a worker that finds no Redis."""
    return BootError(f"Redis cannot be reached ({redact(str(error))}): start it or correct LABRELAY_REDIS_URL")
