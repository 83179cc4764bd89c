"""A host that passes everything on: what holds, measures or traces calls changes only what it is about."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from labrelay.context import ExportContext
from labrelay.priorities import Priority
from labrelay.results import DestinationInfo, Receipt
from labrelay_worker.engine import Host
from labrelay_worker.planning import Hold


class PassingHost:
    """A host before another one, with the same interface."""

    def __init__(self, host: Host) -> None:
        self._host = host

    @property
    def info(self) -> DestinationInfo:
        """Name, priority and waits as planned."""
        return self._host.info

    @property
    def can_ask(self) -> bool:
        """Whether it can be asked or sent to again after an unknown outcome."""
        return self._host.can_ask

    @property
    def can_link(self) -> bool:
        """Whether a link can be added to an entry that is there."""
        return self._host.can_link

    def held(self) -> Hold | None:
        """Return why it takes nothing now."""
        return self._host.held()

    def slot(self, priority: Priority) -> AbstractAsyncContextManager[None]:
        """Hold a place at the destination."""
        return self._host.slot(priority)

    async def export(self, context: ExportContext, *, attempt: int) -> Receipt:
        """Send the record."""
        return await self._host.export(context, attempt=attempt)

    async def resolve_doubt(self, context: ExportContext, *, attempt: int) -> Receipt | None:
        """Ask about an earlier send."""
        return await self._host.resolve_doubt(context, attempt=attempt)

    async def link(self, context: ExportContext, receipt: Receipt) -> Receipt:
        """Add links."""
        return await self._host.link(context, receipt)
