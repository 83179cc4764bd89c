"""Spans of a worker: each run of an export below the span of its submit, and below it the claim and every call."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, use_span

from labrelay import spans
from labrelay.context import ExportContext
from labrelay.errors import DeliveryError
from labrelay.names import FIELD_TRACEPARENT
from labrelay.results import Receipt
from labrelay_worker.claimed import LedgerJob
from labrelay_worker.engine import Host
from labrelay_worker.ledger import Claim
from labrelay_worker.passing import PassingHost


class WorkerTracing:
    """Makes the spans of one process."""

    def __init__(self) -> None:
        self.tracer = spans.tracer("labrelay-worker")

    @contextmanager
    def run(self, claim: Claim, job: LedgerJob) -> Iterator[None]:
        """Trace the run of a claimed export; calls made meanwhile are its children."""
        asked = time.time() - (time.monotonic() - claim.asked_at)
        began = int(asked * 1e9)
        span = self.tracer.start_span(
            "labrelay run",
            context=spans.parent_of(claim.row.get(FIELD_TRACEPARENT, "")),
            kind=SpanKind.CONSUMER,
            start_time=began,
            attributes={
                "labrelay.export_id": job.export_id,
                "labrelay.session": job.session,
                "labrelay.instrument": job.instrument,
                "labrelay.run": job.runs,
            },
        )
        with use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            self.tracer.start_span("labrelay claim", start_time=began).end()
            yield

    def flush(self) -> None:
        """Send what waits to be sent."""
        spans.flush()


class TracedHost(PassingHost):
    """A host whose calls are spans, with the outcome."""

    def __init__(self, host: Host, tracer: Tracer) -> None:
        super().__init__(host)
        self._tracer, self._name = tracer, host.info.name

    async def export(self, context: ExportContext, *, attempt: int) -> Receipt:
        """Send the record."""
        with self._call("deliver", attempt) as span:
            receipt = await self._host.export(context, attempt=attempt)
            span.set_attribute("labrelay.outcome", "delivered")
            return receipt

    async def resolve_doubt(self, context: ExportContext, *, attempt: int) -> Receipt | None:
        """Ask about an earlier send."""
        with self._call("ask", attempt) as span:
            receipt = await self._host.resolve_doubt(context, attempt=attempt)
            span.set_attribute("labrelay.outcome", "not there" if receipt is None else "adopted")
            return receipt

    async def link(self, context: ExportContext, receipt: Receipt) -> Receipt:
        """Add links."""
        with self._call("link", receipt.attempt) as span:
            linked = await self._host.link(context, receipt)
            span.set_attribute("labrelay.outcome", "linked")
            return linked

    @contextmanager
    def _call(self, what: str, attempt: int) -> Iterator[Span]:
        with self._tracer.start_as_current_span(
            f"labrelay {what} {self._name}",
            kind=SpanKind.CLIENT,
            attributes={"labrelay.destination": self._name, "labrelay.attempt": attempt},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield span
            except DeliveryError as error:
                # Its text is redacted by whoever hosts the plugin.
                span.set_attribute("labrelay.outcome", error.kind)
                span.set_status(Status(StatusCode.ERROR, str(error)))
                raise
