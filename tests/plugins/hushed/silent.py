"""A destination for tests that never says whether it could deliver."""

import asyncio

from labrelay.context import ExportContext
from labrelay.results import ExportResult
from labrelay_worker.destinations.base import Destination


class SilentDestination(Destination):
    name = "silent"

    async def validate_config(self) -> tuple[bool, str | None]:
        await asyncio.Event().wait()
        return True, None

    async def export(self, context: ExportContext) -> ExportResult:
        return self.succeeded(context.export_id, verified="")
