"""Samples in Prometheus's text format, as JSON, and as what answers whoever scrapes the ledger over HTTP."""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from labrelay.errors import InvalidInput
from labrelay.metrics.scraping import Sample

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication
    from prometheus_client import Metric

Scrape = Callable[[], Sequence[Sample]]


class SampleCollector:
    """What prometheus-client asks at each scrape; one scrape at a time.

    Parameters
    ----------
    scrape
        Returns the samples of now.
    """

    def __init__(self, scrape: Scrape) -> None:
        self._scrape, self._lock = scrape, threading.Lock()

    def collect(self) -> Iterator[Metric]:
        """Yield the samples by family."""
        from prometheus_client.metrics_core import GaugeMetricFamily  # noqa: PLC0415  an extra

        with self._lock:
            samples = self._scrape()
        for family in dict.fromkeys(sample.family for sample in samples):
            metric = GaugeMetricFamily(family.name, family.help, labels=family.labels)
            for sample in samples:
                if sample.family is family:
                    metric.add_metric(sample.labels, sample.value)
            yield metric


def require_client() -> None:
    """Raise `InvalidInput` with the cure unless prometheus-client is installed."""
    if importlib.util.find_spec("prometheus_client") is None:
        raise InvalidInput(
            "metrics", "prometheus-client is not installed", 'pip install "labrelay[monitor]", or use --json'
        )


def as_text(samples: Sequence[Sample]) -> str:
    """Return samples in Prometheus's text format."""
    require_client()
    from prometheus_client import generate_latest  # noqa: PLC0415  an extra

    return generate_latest(SampleCollector(lambda: samples)).decode()


def as_records(samples: Iterable[Sample]) -> list[dict[str, Any]]:
    """Return samples as JSON has them: name, labels, value."""
    return [
        {
            "name": sample.family.name,
            "labels": dict(zip(sample.family.labels, sample.labels, strict=True)),
            "value": float(sample.value),
        }
        for sample in samples
    ]


def ledger_app(scrape: Scrape, targets: Callable[[], Sequence[str]]) -> WSGIApplication:
    """Return what answers ``/metrics`` with a scrape, and ``/workers`` with the workers' own endpoints.

    The form of ``/workers`` is that of Prometheus's HTTP service discovery: a list of target groups.
    """
    require_client()
    from prometheus_client import make_wsgi_app  # noqa: PLC0415  an extra

    metrics: WSGIApplication = make_wsgi_app(SampleCollector(scrape))

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/workers":
            return metrics(environ, start_response)
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps([{"targets": list(targets())}]).encode()]

    return app
