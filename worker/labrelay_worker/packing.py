"""Pack what was delivered a while ago: most of a ledger is finished exports, and packed they take a third."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, cast

from redis.asyncio import Redis

from labrelay.errors import LabrelayError
from labrelay.names import FIELD_CONTEXT, Keys
from labrelay.packed import pack, whole_export
from labrelay.results import ExportState
from labrelay.scripts import script_source

_logger = logging.getLogger(__name__)

#: Exports looked at in one step.
STEP = 200
#: Exports read and packed together: with the largest contexts allowed, some 80 MiB pass through memory.
_PAGE = 20
#: Steps after one sweep: a thousand exports a second, so that packing keeps up with what workers deliver.
_STEPS = 5


class Packing:
    """Packs delivered exports, the longest delivered first.

    How far it came is in the ledger: whoever leads next goes on there. The state index has new deliveries only
    behind that point, because its scores are times of the server.

    Parameters
    ----------
    client
        A Redis client that decodes responses.
    keys
        Key names.
    """

    def __init__(self, client: Redis, keys: Keys) -> None:
        self._redis, self._keys = client, keys
        self._whole = client.register_script(script_source("labrelay", "whole"))
        self._pack = client.register_script(script_source("labrelay_worker", "pack"))

    async def run(self, after_seconds: float) -> int:
        """Pack exports that were delivered more than `after_seconds` ago, a bounded number; return how many."""
        packed = 0
        for _ in range(_STEPS):
            found, done = await self.step(after_seconds)
            packed += done
            if found < STEP:
                break
        return packed

    async def step(self, after_seconds: float) -> tuple[int, int]:
        """Look at the next few; return how many there were, and how many were packed."""
        seconds, microseconds = await self._redis.time()
        latest = seconds * 1000 + microseconds // 1000 - round(after_seconds * 1000)
        until = cast("str | None", await self._redis.get(self._keys.packed_until))
        if until is not None and float(until) > latest:
            return 0, 0
        index = self._keys.state(ExportState.DELIVERED)
        first = "-inf" if until is None else f"({until}"
        found = cast(
            "list[tuple[str, float]]",
            await self._redis.zrangebyscore(index, first, latest, start=0, num=STEP, withscores=True),
        )
        if not found:
            return 0, 0
        last = f"{found[-1][1]:.0f}"
        # One group commit ends many exports in the same millisecond, and the next step begins behind it.
        with_last = cast("list[str]", await self._redis.zrangebyscore(index, last, last))
        ids = list(dict.fromkeys([*(export_id for export_id, _ in found), *with_last]))
        packed = sum([await self._pack_all(ids[at : at + _PAGE]) for at in range(0, len(ids), _PAGE)])
        await self._redis.set(self._keys.packed_until, last)
        return len(found), packed

    async def _pack_all(self, ids: Sequence[str]) -> int:
        answers = await self._whole(args=[self._keys.prefix, *ids])
        # A large context takes its time; the loop carries every running export of this process meanwhile.
        arguments = await asyncio.to_thread(_arguments, ids, answers)
        if not arguments:
            return 0
        outcomes = cast("list[str]", await self._pack(args=[self._keys.prefix, *arguments]))
        return outcomes.count("packed")


def _arguments(ids: Sequence[str], answers: Sequence[Any]) -> list[str]:
    found: list[str] = []
    for export_id, answer in zip(ids, answers, strict=True):
        if FIELD_CONTEXT not in answer[0][::2]:
            continue  # it is packed, or gone
        try:
            row, trail = whole_export(answer)
            found += [export_id, row["updated"], pack(row, trail)]
        except LabrelayError as error:
            _logger.error("export %s stays as it is: %s", export_id, error)
    return found
