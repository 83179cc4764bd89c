"""A destination that is planned and not served here: its deliveries wait, with the reason."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from labrelay.context import ExportContext
from labrelay.errors import Misconfigured
from labrelay.priorities import Priority
from labrelay.results import DestinationInfo, Receipt
from labrelay_worker.planning import Hold


class UnservedDestination:
    """Stands in for a destination this worker does not serve, so that its delivery waits with the reason."""

    can_ask = True
    can_link = False

    def __init__(self, info: DestinationInfo) -> None:
        self.info = info

    def held(self) -> Hold | None:
        """Return None: asking tells the reason."""
        return None

    @asynccontextmanager
    async def slot(self, priority: Priority = Priority.NORMAL) -> AsyncIterator[None]:
        """Hold nothing."""
        yield

    async def export(self, context: ExportContext, *, attempt: int) -> Receipt:
        """Refuse with the reason."""
        raise Misconfigured(self.info.reason)

    async def resolve_doubt(self, context: ExportContext, *, attempt: int) -> Receipt | None:
        """Refuse with the reason; the doubt stays open."""
        raise Misconfigured(self.info.reason)

    async def link(self, context: ExportContext, receipt: Receipt) -> Receipt:
        """Refuse with the reason."""
        raise Misconfigured(self.info.reason)
