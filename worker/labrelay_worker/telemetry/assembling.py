"""What the Runtime puts round its parts so that they are counted and traced; by itself it adds nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING

from redis.asyncio import Redis

from labrelay.logs import about
from labrelay.metrics.exposing import require_client
from labrelay.names import Keys
from labrelay.tracing import require_opentelemetry
from labrelay_worker.claimed import LedgerJob
from labrelay_worker.engine import Host
from labrelay_worker.ledger import Claim, WorkerLedger
from labrelay_worker.settings import WorkerSettings

if TYPE_CHECKING:
    from labrelay_worker.telemetry.counting import WorkerMetrics
    from labrelay_worker.telemetry.traced import WorkerTracing


class Telemetry:
    """Makes the ledger, jobs and hosts of one process.

    Parameters
    ----------
    metrics
        What counts; None: nothing is counted, and prometheus-client is not imported.
    address
        Where the counters are read.
    is_shared
        Whether other processes are read there too.
    tracing
        What makes spans; None: none are made, and OpenTelemetry is not imported.
    """

    def __init__(
        self,
        metrics: WorkerMetrics | None = None,
        address: str = "",
        *,
        is_shared: bool = False,
        tracing: WorkerTracing | None = None,
    ) -> None:
        self._metrics, self._address, self._tracing = metrics, address, tracing
        self._is_shared = is_shared

    def ledger(
        self, client: Redis, keys: Keys, *, owner: str, lease_seconds: float, poison_limit: int, replicas: int
    ) -> WorkerLedger:
        """Return the ledger of this process."""
        if self._metrics is None:
            return WorkerLedger(
                client, keys, owner=owner, lease_seconds=lease_seconds, poison_limit=poison_limit, replicas=replicas
            )
        from labrelay_worker.telemetry.measured import MeasuredLedger  # noqa: PLC0415  needs prometheus-client

        return MeasuredLedger(
            client, keys, owner=owner, lease_seconds=lease_seconds, poison_limit=poison_limit, replicas=replicas,
            metrics=self._metrics, address=self._address, is_shared=self._is_shared,
        )  # fmt: skip

    def job(self, ledger: WorkerLedger, claim: Claim) -> LedgerJob:
        """Return a claimed export as the engine sees it; raises what `LedgerJob` raises."""
        if self._metrics is None:
            return LedgerJob(ledger, claim)
        from labrelay_worker.telemetry.measured import MeasuredJob  # noqa: PLC0415  needs prometheus-client

        return MeasuredJob(ledger, claim, self._metrics)

    def hosts(self, hosts: Mapping[str, Host]) -> dict[str, Host]:
        """Return hosts as the engine shall see them; what counts is nearest to the destination."""
        around = dict(hosts)
        if self._metrics is not None:
            from labrelay_worker.telemetry.measured import MeasuredHost  # noqa: PLC0415  needs prometheus-client

            around = {name: MeasuredHost(host, self._metrics) for name, host in around.items()}
        if self._tracing is not None:
            from labrelay_worker.telemetry.traced import TracedHost  # noqa: PLC0415  needs OpenTelemetry

            around = {name: TracedHost(host, self._tracing.tracer) for name, host in around.items()}
        return around

    def running(self, claim: Claim, job: LedgerJob) -> AbstractContextManager[None]:
        """Count, trace and name in the log what is done for an export meanwhile."""
        if self._metrics is None and self._tracing is None:
            return about(job.export_id, job.session)
        return self._observed(claim, job)

    @contextmanager
    def _observed(self, claim: Claim, job: LedgerJob) -> Iterator[None]:
        with about(job.export_id, job.session), ExitStack() as stack:
            if self._metrics is not None:
                stack.enter_context(self._metrics.in_flight.track_inprogress())
            if self._tracing is not None:
                stack.enter_context(self._tracing.run(claim, job))
            yield

    def expect(self, destinations: Iterable[str]) -> None:
        """Show the families of these destinations from the start."""
        if self._metrics is not None:
            for name in destinations:
                self._metrics.expect(name)

    def close(self) -> None:
        """Send what waits to be sent."""
        if self._tracing is not None:
            self._tracing.flush()


def telemetry_of(settings: WorkerSettings, slot: int | None = None) -> Telemetry:
    """Return what the settings ask for.

    Parameters
    ----------
    settings
        The worker's.
    slot
        Place in the pool of a prefork child, whose counters are shared; None: this process has its own endpoint.

    Raises
    ------
    InvalidInput
        What they ask for needs a package that is not installed.
    """
    metrics, address, tracing = None, "", None
    if settings.metrics_port is not None:
        require_client()
        from labrelay_worker.telemetry.counting import WorkerMetrics  # noqa: PLC0415  needs prometheus-client
        from labrelay_worker.telemetry.endpoint import join_shared, open_alone  # noqa: PLC0415

        registry, address = open_alone(settings) if slot is None else join_shared(slot)
        metrics = WorkerMetrics(registry)
    if settings.traces:
        require_opentelemetry()
        from labrelay_worker.telemetry.traced import WorkerTracing  # noqa: PLC0415  needs OpenTelemetry

        tracing = WorkerTracing()
    return Telemetry(metrics, address, is_shared=slot is not None, tracing=tracing)
