"""Whether submits are traced. Without the setting `traces` nothing of OpenTelemetry is imported or done."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Protocol

from labrelay.errors import InvalidInput
from labrelay.ledger import Entry
from labrelay.results import Submission
from labrelay.settings import ProducerSettings

Send = Callable[[Sequence[Entry]], list[Submission]]


class Tracing(Protocol):
    """Sends entries, each as a span that the worker's spans will be children of."""

    def submit(self, entries: Sequence[Entry], send: Send) -> list[Submission]:
        """Return what `send` answers to the entries."""


class NoTracing:
    """Sends entries as they are."""

    def submit(self, entries: Sequence[Entry], send: Send) -> list[Submission]:
        """Return what `send` answers to the entries."""
        return send(entries)


def tracing_of(settings: ProducerSettings) -> Tracing:
    """Return how submits are traced under these settings.

    Raises
    ------
    InvalidInput
        They shall be, and OpenTelemetry is not installed.
    """
    if not settings.traces:
        return NoTracing()
    require_opentelemetry()
    from labrelay.spans import SpanTracing  # noqa: PLC0415  an extra

    return SpanTracing()


def require_opentelemetry() -> None:
    """Raise `InvalidInput` with the cure unless OpenTelemetry is installed."""
    if importlib.util.find_spec("opentelemetry") is None or importlib.util.find_spec("opentelemetry.sdk") is None:
        raise InvalidInput(
            "traces", "OpenTelemetry is not installed", 'pip install "labrelay[otel]", or unset LABRELAY_TRACES'
        )
