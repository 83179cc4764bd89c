"""Spans of OpenTelemetry: where they go, how they are carried in the ledger, and those of a submit.

What a span says: ids, names, states, error kinds and redacted error texts. Nothing of records or settings.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import ProxyTracerProvider, Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from labrelay.ledger import Entry
from labrelay.results import Submission
from labrelay.tracing import Send

_CARRIER = TraceContextTextMapPropagator()
_FIELD = "traceparent"
#: A collector that is away must not hold up the end of a `labrelay submit`.
_EXPORT_SECONDS = 3


def tracer(service: str) -> Tracer:
    """Return labrelay's tracer. A provider that the process has already is used; else one that sends OTLP over HTTP.

    Parameters
    ----------
    service
        Name of this process in the traces, unless ``OTEL_SERVICE_NAME`` gives one.
    """
    if isinstance(trace.get_tracer_provider(), ProxyTracerProvider):
        named = os.environ.get("OTEL_SERVICE_NAME") or service
        provider = TracerProvider(resource=Resource.create({"service.name": named}))
        timeout = None if "OTEL_EXPORTER_OTLP_TIMEOUT" in os.environ else _EXPORT_SECONDS
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=timeout)))
        trace.set_tracer_provider(provider)
    return trace.get_tracer("labrelay")


def flush() -> None:
    """Send what waits to be sent; a forked child ends without the hooks that would do it."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        provider.force_flush(_EXPORT_SECONDS * 1000)


def carried(span: Span) -> str:
    """Return a span as the ledger carries it (W3C Trace Context, ``traceparent``)."""
    fields: dict[str, str] = {}
    _CARRIER.inject(fields, trace.set_span_in_context(span))
    return fields.get(_FIELD, "")


def parent_of(traceparent: str) -> Context:
    """Return the context of a carried span; of anything else an empty one: a new trace begins."""
    return _CARRIER.extract({_FIELD: traceparent}, Context())


class SpanTracing:
    """One span for each export submitted, a child of whatever span the pipeline is in."""

    def __init__(self) -> None:
        self._tracer = tracer("labrelay-producer")

    def submit(self, entries: Sequence[Entry], send: Send) -> list[Submission]:
        """Return what `send` answers to the entries, each with its span's `traceparent`."""
        spans = [
            self._tracer.start_span(
                "labrelay submit",
                kind=SpanKind.PRODUCER,
                attributes={
                    "labrelay.export_id": entry.export_id,
                    "labrelay.session": entry.session,
                    "labrelay.instrument": entry.instrument,
                },
            )
            for entry in entries
        ]
        try:
            submissions = send([e._replace(traceparent=carried(s)) for e, s in zip(entries, spans, strict=True)])
            for span, submission in zip(spans, submissions, strict=True):
                span.set_attribute("labrelay.outcome", submission.outcome)
        except Exception as error:
            for span in spans:
                span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise
        finally:
            for span in spans:
                span.end()
        return submissions
