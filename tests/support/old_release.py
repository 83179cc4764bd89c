"""What an older labrelay sends: wake-ups that name their exports and look for no others."""

from __future__ import annotations

from collections.abc import Sequence

from labrelay.client import Client
from labrelay.names import QUEUE_EXPORTS, TASK_EXPORT
from labrelay.wakeups import producer_app


def name_exports(client: Client, export_ids: Sequence[str], *, per_message: int = 64) -> None:
    """Publish wake-ups for these exports as releases before the door bell did."""
    with producer_app(client.settings) as app:
        for start in range(0, len(export_ids), per_message):
            ids = list(export_ids[start : start + per_message])
            app.send_task(TASK_EXPORT, kwargs={"ids": ids}, queue=QUEUE_EXPORTS)
