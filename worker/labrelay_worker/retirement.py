"""Move exports that ended long ago from Redis to the archive: written and on the disk first, removed then."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from redis.asyncio import Redis

from labrelay.archive import Archive, archive_line
from labrelay.errors import LabrelayError
from labrelay.names import Keys
from labrelay.packed import pack_receipts, whole_export
from labrelay.results import ExportState
from labrelay.rows import Row, from_ms
from labrelay.scripts import script_source

_logger = logging.getLogger(__name__)

#: Dead and unknown exports stay until a person decides.
RETIRED = (ExportState.DELIVERED, ExportState.CANCELLED)

#: Exports moved in one step: with the largest contexts allowed, some 80 MiB pass through memory.
_STEP = 20
_DAY_MS = 86_400_000


@dataclass(frozen=True)
class _Whole:
    export_id: str
    state: ExportState
    row: Row
    trail: list[str]


class Retirement:
    """Retires ended exports in small steps.

    A crash between writing and removing leaves an export in both places; it is then written once more, and readers
    take the last line.

    Parameters
    ----------
    client
        A Redis client that decodes responses.
    keys
        Key names.
    archive
        Where they go.
    """

    def __init__(self, client: Redis, keys: Keys, archive: Archive) -> None:
        self._redis, self._keys, self._archive = client, keys, archive
        self._whole = client.register_script(script_source("labrelay", "whole"))
        self._remove = client.register_script(script_source("labrelay", "remove"))

    async def step(self, retention_days: float) -> int:
        """Retire a few exports that ended more than `retention_days` ago; return how many.

        Raises
        ------
        OSError
            The archive cannot be written; nothing was removed.
        """
        seconds, microseconds = await self._redis.time()
        now = seconds * 1000 + microseconds / 1000
        exports = await self._ended_before(now - retention_days * _DAY_MS)
        if not exports:
            return 0
        at = from_ms(now)
        lines = [archive_line(e.export_id, e.row, e.trail, at=at, why="retention") for e in exports if e.row]
        # A disk may take its time; the loop carries every running export of this process meanwhile.
        path = await asyncio.to_thread(self._archive.append, lines, at) if lines else ""
        removed = 0
        for export in exports:
            where = [str(path), self._archive.host, "retention"]
            seen = [export.state, export.row.get("updated", "")]
            kept = pack_receipts(export.row)
            answer = await self._remove(args=[self._keys.prefix, export.export_id, *seen, *where, kept])
            removed += answer == "removed"
        _logger.info("%d ended exports moved to %s", removed, path)
        return removed

    async def _ended_before(self, milliseconds: float) -> Sequence[_Whole]:
        exports: list[_Whole] = []
        for state in RETIRED:
            ids = await self._redis.zrangebyscore(
                self._keys.state(state), "-inf", f"{milliseconds:.0f}", start=0, num=_STEP - len(exports)
            )
            found = cast("list[str]", ids)
            answers = await self._whole(args=[self._keys.prefix, *found]) if found else []
            for export_id, answer in zip(found, answers, strict=True):
                try:
                    exports.append(_Whole(export_id, state, *whole_export(answer)))
                except LabrelayError as error:
                    _logger.error("export %s is not archived: %s", export_id, error)
        return exports
