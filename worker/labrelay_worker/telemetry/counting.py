"""The counters of one worker process, with every label resolved once: counting is then an addition."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from labrelay.metrics import families as f
from labrelay.results import ExportState

_WHY_WOKEN = ("retry", "unclaimed", "lease_ended", "handed_back")
_CLAIM_ANSWERS = ("claimed", "missing", "finished", "leased", "later", "suspect", "poisoned")


class WorkerMetrics:
    """The families of a worker (`labrelay.metrics.families.WORKER_FAMILIES`) and their resolved children.

    Parameters
    ----------
    registry
        Where they are registered; a fresh one for each process.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which Prometheus has no use for
        # Of a recycled prefork child the next one goes on in the same slot, so what is in flight begins at none.
        self.in_flight = _gauge(f.IN_FLIGHT, registry)
        self.in_flight.set(0)
        claims, settled, woken = (_counter(family, registry) for family in (f.CLAIMS, f.SETTLED, f.WOKEN))
        deliveries, seconds = _counter(f.DELIVERIES, registry), _histogram(f.DELIVERY_SECONDS, registry)
        self.lease_losses = _counter(f.LEASE_LOSSES, registry)
        self.export_seconds = _histogram(f.EXPORT_SECONDS, registry)
        self.claims: Callable[[str], Counter] = cache(claims.labels)
        self.settled: Callable[[str], Counter] = cache(settled.labels)
        self.woken: Callable[[str], Counter] = cache(woken.labels)
        #: By destination, outcome and error kind ("" where there is none).
        self.deliveries: Callable[[str, str, str], Counter] = cache(deliveries.labels)
        self.delivery_seconds: Callable[[str], Histogram] = cache(seconds.labels)
        _gauge(f.BUILD, registry, mode="max").labels(version("labrelay")).set(1)
        # What has not happened yet is a zero: a rate over a counter that is not there would miss its first step.
        for answer in _CLAIM_ANSWERS:
            self.claims(answer)
        for state in ExportState:
            self.settled(str(state))
        for why in _WHY_WOKEN:
            self.woken(why)

    def expect(self, destination: str) -> None:
        """Show a destination's families from the start."""
        self.deliveries(destination, "delivered", "")
        self.delivery_seconds(destination)


def _counter(family: f.Family, registry: CollectorRegistry) -> Counter:
    return Counter(family.name.removesuffix("_total"), family.help, family.labels, registry=registry)


def _gauge(family: f.Family, registry: CollectorRegistry, *, mode: Literal["sum", "max"] = "sum") -> Gauge:
    return Gauge(family.name, family.help, family.labels, registry=registry, multiprocess_mode=mode)


def _histogram(family: f.Family, registry: CollectorRegistry) -> Histogram:
    return Histogram(family.name, family.help, family.labels, registry=registry, buckets=family.buckets)
