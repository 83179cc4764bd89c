"""After a restore of Redis from a backup: what is unfinished may be delivered by now, so it is asked about first.

A delivery in doubt is an open intent, as when a worker died: the destination is asked whether it has the record, and
where it cannot be asked a person decides.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from labrelay.errors import InvalidInput
from labrelay.ledger import WORKER_GONE_MS, Ledger, connect
from labrelay.plans import select
from labrelay.results import UNFINISHED
from labrelay.rows import destinations_of
from labrelay.scripts import script_source
from labrelay_worker.destinations.registry import ExporterRegistry
from labrelay_worker.settings import WorkerSettings

if TYPE_CHECKING:
    import redis

_AT_ONCE = 200
_FIELDS = ("instrument", "strategy", "destinations")


@dataclass(frozen=True)
class Doubted:
    """What was marked."""

    exports: int
    deliveries: int


def doubt_unfinished(settings: WorkerSettings) -> Doubted:
    """Mark every delivery of every unfinished export as doubtful, and make the exports due.

    Raises
    ------
    InvalidInput
        Workers run: they would deliver what is not marked yet.
    LedgerUnavailable
        Redis is away.
    """
    registry = ExporterRegistry(settings)
    registry.discover_plugins()
    infos = [info for info in registry.infos() if info.enabled]
    with closing(connect(settings)) as client:
        ledger = Ledger(client, settings.keys, settings.wake_up_grace)
        running = ledger.workers()
        if running:
            raise InvalidInput(
                "workers",
                f"{len(running)} are running ({', '.join(worker.name for worker in running)})",
                f"Stop them first; one that was killed counts as gone after {WORKER_GONE_MS // 1000} s",
            )
        script = client.register_script(script_source("labrelay_worker", "doubt"))
        exports = deliveries = 0
        with ledger.reachable():
            for ids in _unfinished(client, settings):
                chosen = [
                    select(
                        row["instrument"],
                        row["strategy"],
                        destinations_of(row),
                        infos,
                        registry.routes,
                        settings.strategy,
                    ).names
                    for row in _rows(client, settings, ids)
                ]
                with client.pipeline(transaction=False) as pipeline:
                    for export_id, names in zip(ids, chosen, strict=True):
                        script(client=pipeline, args=[settings.key_prefix, export_id, socket.gethostname(), *names])
                    answers = [int(answer) for answer in pipeline.execute()]
                exports += sum(answer >= 0 for answer in answers)
                deliveries += sum(answer for answer in answers if answer > 0)
    return Doubted(exports, deliveries)


def _unfinished(client: redis.Redis, settings: WorkerSettings) -> Iterator[Sequence[str]]:
    # All first: marking moves them from one state to another.
    ids = [
        export_id
        for state in UNFINISHED
        for export_id in cast("list[str]", client.zrange(settings.keys.state(state), 0, -1))
    ]
    for start in range(0, len(ids), _AT_ONCE):
        yield ids[start : start + _AT_ONCE]


def _rows(client: redis.Redis, settings: WorkerSettings, ids: Sequence[str]) -> list[dict[str, str]]:
    with client.pipeline(transaction=False) as pipeline:
        for export_id in ids:
            pipeline.hmget(settings.keys.export(export_id), _FIELDS)
        return [
            {field: value or "" for field, value in zip(_FIELDS, values, strict=True)}
            for values in pipeline.execute()
        ]
