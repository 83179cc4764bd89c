"""What the ledger says of exports and workers. Nothing here changes it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, cast

from labrelay.errors import LedgerUnavailable, NoSuchExport, NotPermitted
from labrelay.names import FIELD_EARLIER, Keys
from labrelay.outages import explain, is_demoted, is_forbidden, is_outage, said
from labrelay.packed import whole_trail, with_packed
from labrelay.priorities import Priority
from labrelay.redaction import redact
from labrelay.results import Backlog, ExportState, ExportStatus, TrailEntry, WorkerInfo
from labrelay.rows import Row, status_of, to_ms, trail_entry
from labrelay.scripts import script_source

if TYPE_CHECKING:
    import redis

#: A worker process not seen for this long is gone (it announces itself every ten seconds).
WORKER_GONE_MS = 45_000
#: Rows read in one call: without contexts they are a few kilobytes each. Pages grow: many want the latest few.
_FIRST_PAGE, _PAGE = 25, 200
#: A reconciler looks every second: what has been due for longer than this shows that none runs.
_LATE_SECONDS = 10


class LedgerReader:
    """Read exports.

    Parameters
    ----------
    client
        A Redis client that decodes responses.
    keys
        Key names.
    """

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._redis = client
        self._keys = keys
        self._peek = client.register_script(script_source("labrelay", "peek"))

    def status(self, export_id: str) -> ExportStatus:
        """Return how an export stands; one that was archived says where it went.

        Raises
        ------
        NoSuchExport
            There is none with this id.
        """
        row = self.rows([export_id])[0]
        with self.reachable():
            if not row:
                row = json.loads(cast("str | None", self._redis.hget(self._keys.archived, export_id)) or "{}")
        if not row:
            raise NoSuchExport(f"there is no export {export_id}; `labrelay list` shows what there is")
        return status_of(export_id, row)

    def ids_of_session(self, session: str) -> list[str]:
        """Return the exports made from a session; one for each instrument that recorded it."""
        with self.reachable():
            known = cast("str | None", self._redis.hget(self._keys.sessions, session))
        return known.split() if known else []

    def recent(
        self, state: ExportState | None = None, *, limit: int = 50, before: datetime | None = None
    ) -> list[ExportStatus]:
        """Return the exports changed last (before a time), newest first, from the state indexes."""
        states = [state] if state else list(ExportState)
        latest = f"({to_ms(before)}" if before else "+inf"
        with self.reachable(), self._redis.pipeline(transaction=False) as pipeline:
            for each in states:
                pipeline.zrevrangebyscore(self._keys.state(each), latest, "-inf", start=0, num=limit, withscores=True)
            ranked = sorted((pair for found in pipeline.execute() for pair in found), key=lambda p: -float(p[1]))
        ids = [str(export_id) for export_id, _ in ranked[:limit]]
        return [status_of(export_id, row) for export_id, row in zip(ids, self.rows(ids), strict=True) if row]

    def ranked(self, state: ExportState, oldest: str = "-inf") -> Iterator[tuple[str, float]]:
        """Yield the ids in a state with the time of their last change in milliseconds, newest first, page by page.

        Those that leave the state meanwhile make no others be left out.
        """
        latest, seen, size = "+inf", set[str](), _FIRST_PAGE
        while True:
            with self.reachable():
                found = cast(
                    "list[tuple[str, float]]",
                    self._redis.zrevrangebyscore(
                        self._keys.state(state), latest, oldest, start=0, num=size + len(seen), withscores=True
                    ),
                )
            new = [pair for pair in found if pair[0] not in seen]
            if not new:
                return
            yield from new
            last = new[-1][1]
            # Many may have changed in the same millisecond: the next page begins with it again.
            latest, seen = f"{last:.0f}", {export_id for export_id, at in found if at == last}
            size = min(2 * size, _PAGE)

    def rows(self, export_ids: Sequence[str]) -> list[Row]:
        """Return rows without their contexts, page by page; an empty one where there is no such export."""
        found: list[Row] = []
        for start in range(0, len(export_ids), _PAGE):
            with self.reachable():
                answer = cast(
                    "list[list[str]]", self._peek(args=[self._keys.prefix, *export_ids[start : start + _PAGE]])
                )
            found += [dict(zip(fields[::2], fields[1::2], strict=True)) for fields in answer]
        return found

    def counts(self) -> dict[ExportState, int]:
        """Return how many exports are in each state."""
        with self.reachable(), self._redis.pipeline(transaction=False) as pipeline:
            for state in ExportState:
                pipeline.zcard(self._keys.state(state))
            return dict(zip(ExportState, pipeline.execute(), strict=True))

    def backlog(self) -> Backlog:
        """Return how much waits for workers: what scales them and what an alert looks at."""
        with self.reachable(), self._redis.pipeline(transaction=False) as pipeline:
            pipeline.time()
            for priority in Priority:
                pipeline.zcard(self._keys.ready(priority))
            pipeline.zcard(self._keys.due)
            pipeline.zcard(self._keys.state(ExportState.RUNNING))
            pipeline.llen(self._keys.wake_ups)
            (seconds, _), *ready, due, running, wake_ups = pipeline.execute()
            overdue = self._redis.zcount(self._keys.due, "-inf", (seconds - _LATE_SECONDS) * 1000)
        waiting = dict(zip(Priority, ready, strict=True))
        return Backlog(ready=waiting, running=running, unfinished=due, overdue=overdue, wake_ups=wake_ups)

    def trail(self, export_id: str) -> list[TrailEntry]:
        """Return what happened to an export, oldest first."""
        with self.reachable(), self._redis.pipeline(transaction=True) as pipeline:
            pipeline.lrange(self._keys.trail(export_id), 0, -1)
            pipeline.hget(self._keys.export(export_id), FIELD_EARLIER)
            pipeline.get(self._keys.packed(export_id))
            lines, earlier, packed = pipeline.execute()
        lines = whole_trail(with_packed({FIELD_EARLIER: earlier} if earlier else {}, packed), lines)
        if not lines:
            raise NoSuchExport(f"there is no export {export_id}")
        return [trail_entry(line) for line in lines]

    def workers(self) -> list[WorkerInfo]:
        """Return the worker processes that announced themselves lately."""
        with self.reachable():
            seconds, _ = self._redis.time()
            names = cast(
                "list[str]", self._redis.zrangebyscore(self._keys.workers, seconds * 1000 - WORKER_GONE_MS, "+inf")
            )
            if not names:
                return []
            infos = cast("list[str | None]", self._redis.hmget(self._keys.worker_info, names))
        return [WorkerInfo.read(info) for info in infos if info]

    @contextmanager
    def reachable(self) -> Iterator[None]:
        """Turn what Redis raises when it is away or full into `LedgerUnavailable`."""
        import redis  # noqa: PLC0415

        try:
            yield
        except redis.exceptions.RedisError as error:
            if isinstance(error, redis.exceptions.ResponseError) and not is_outage(error):
                if is_forbidden(error):
                    raise NotPermitted(
                        f"this user of Redis may not do that ({redact(said(error))}): use the address of a user that "
                        "may, or correct the access list"
                    ) from error
                raise
            if is_demoted(error):
                self._redis.connection_pool.disconnect(inuse_connections=False)
            reason, cure = explain(error)
            raise LedgerUnavailable(
                f"Redis does not serve the ledger ({reason}): {cure}, then repeat the command; "
                "repeating a submit is safe",
                reason=reason,
            ) from error
