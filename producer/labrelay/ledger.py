"""The producer's half of the ledger: submit, cancel and read. Every transition is one Lua call."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from labrelay.errors import LedgerUnavailable, NoSuchExport
from labrelay.names import Keys
from labrelay.redaction import redact
from labrelay.results import ExportState, ExportStatus, TrailEntry, WorkerInfo
from labrelay.rows import status_of, trail_entry
from labrelay.scripts import script_source
from labrelay.settings import ProducerSettings

if TYPE_CHECKING:
    import redis

#: A worker process not seen for this long is gone (it announces itself every ten seconds).
WORKER_GONE_MS = 45_000


@dataclass(frozen=True)
class Entry:
    """One export as it goes into the ledger."""

    export_id: str
    digest: str
    context: str
    session: str
    instrument: str
    strategy: str
    destinations: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """What the ledger said to one submit."""

    outcome: str
    state: ExportState
    revision: int
    differs: str


def connect(settings: ProducerSettings) -> redis.Redis:
    """Return a client that gives up within ``redis_timeout`` and repeats only on a dropped connection."""
    import redis  # noqa: PLC0415  `import labrelay` must not load it
    from redis.backoff import NoBackoff  # noqa: PLC0415
    from redis.retry import Retry  # noqa: PLC0415

    return redis.Redis.from_url(
        settings.resolve_redis_url(),
        decode_responses=True,
        socket_timeout=settings.redis_timeout,
        socket_connect_timeout=settings.redis_timeout,
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.exceptions.ConnectionError,)),
        health_check_interval=25,
    )


def is_full(error: Exception) -> bool:
    """Return whether Redis refuses writes because its memory is full.

    redis-py takes the code OOM off the text of Redis 7 and makes it a class; Redis 6 wraps it in the script's error.
    """
    import redis  # noqa: PLC0415  `import labrelay` must not load it

    if isinstance(error, redis.exceptions.OutOfMemoryError):
        return True
    return isinstance(error, redis.exceptions.ResponseError) and "-OOM " in str(error)


class Ledger:
    """Submit, cancel and read exports.

    Parameters
    ----------
    client
        A Redis client that decodes responses.
    keys
        Key names.
    wake_up_grace
        Seconds after which an export nobody claimed is woken again.
    """

    def __init__(self, client: redis.Redis, keys: Keys, wake_up_grace: float) -> None:
        self._redis = client
        self._keys = keys
        self._grace_ms = int(wake_up_grace * 1000)
        self._submit = client.register_script(script_source("labrelay", "submit"))
        self._cancel = client.register_script(script_source("labrelay", "cancel"))

    def submit(self, entries: Sequence[Entry], *, replace: bool) -> list[Answer]:
        """Accept exports, each atomically, all in one round trip.

        Raises
        ------
        LedgerUnavailable
            Redis is away, frozen or full. Whether the exports arrived is unknown; the same submit again is safe.
        """
        with self.reachable(), self._redis.pipeline(transaction=False) as pipeline:
            for entry in entries:
                self._submit(
                    client=pipeline,
                    args=[
                        self._keys.prefix,
                        entry.export_id,
                        entry.digest,
                        entry.context,
                        entry.strategy,
                        json.dumps(entry.destinations) if entry.destinations else "",
                        entry.session,
                        entry.instrument,
                        "1" if replace else "0",
                        self._grace_ms,
                    ],
                )
            return [Answer(a[0], ExportState(a[1]), int(a[2]), a[3]) for a in pipeline.execute()]

    def cancel(self, export_id: str) -> str:
        """Cancel an export; answers ``cancelled``, ``cancelling`` or the final state it already had."""
        with self.reachable():
            answer = str(self._cancel(args=[self._keys.prefix, export_id]))
        if answer == "missing":
            raise NoSuchExport(f"there is no export {export_id}")
        return answer

    def status(self, export_id: str) -> ExportStatus:
        """Return how an export stands; one that was archived says where it went.

        Raises
        ------
        NoSuchExport
            There is none with this id.
        """
        with self.reachable():
            row = cast("dict[str, str]", self._redis.hgetall(self._keys.export(export_id)))
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

    def recent(self, state: ExportState | None = None, *, limit: int = 50) -> list[ExportStatus]:
        """Return the exports changed last, newest first, from the state indexes."""
        states = [state] if state else list(ExportState)
        with self.reachable(), self._redis.pipeline(transaction=False) as pipeline:
            for each in states:
                pipeline.zrevrange(self._keys.state(each), 0, limit - 1, withscores=True)
            ranked = sorted((pair for found in pipeline.execute() for pair in found), key=lambda p: -float(p[1]))
            ids = [str(export_id) for export_id, _ in ranked[:limit]]
            for export_id in ids:
                pipeline.hgetall(self._keys.export(export_id))
            rows = pipeline.execute()
        return [status_of(export_id, row) for export_id, row in zip(ids, rows, strict=True) if row]

    def counts(self) -> dict[ExportState, int]:
        """Return how many exports are in each state."""
        with self.reachable(), self._redis.pipeline(transaction=False) as pipeline:
            for state in ExportState:
                pipeline.zcard(self._keys.state(state))
            return dict(zip(ExportState, pipeline.execute(), strict=True))

    def trail(self, export_id: str) -> list[TrailEntry]:
        """Return what happened to an export, oldest first."""
        with self.reachable():
            lines = cast("list[str]", self._redis.lrange(self._keys.trail(export_id), 0, -1))
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
        return [WorkerInfo.model_validate_json(info) for info in infos if info]

    @contextmanager
    def reachable(self) -> Iterator[None]:
        """Turn what Redis raises when it is away or full into `LedgerUnavailable`."""
        import redis  # noqa: PLC0415

        try:
            yield
        except redis.exceptions.RedisError as error:
            # A pipeline's error begins with the whole command, and so with the context.
            said = str(error).rpartition("of pipeline caused error: ")[2]
            if isinstance(error, redis.exceptions.ResponseError) and not _is_away(error, said):
                raise
            full = is_full(error)
            reason = "its memory is full" if full else redact(said)
            cure = "free memory or raise maxmemory" if full else "start it or correct LABRELAY_REDIS_URL"
            raise LedgerUnavailable(
                f"Redis does not serve the ledger ({reason}): {cure}, then repeat the command; "
                "repeating a submit is safe",
                reason=reason,
            ) from error


#: Codes of a server that serves nobody for now. A script's error carries the code in the middle of its text, or has
#: lost it to the class, by the age of the server.
_AWAY = re.compile(r"\b(OOM|LOADING|READONLY|MASTERDOWN|MISCONF|NOREPLICAS|CLUSTERDOWN|TRYAGAIN|BUSY)\b")


def _is_away(error: Exception, said: str) -> bool:
    from redis import exceptions  # noqa: PLC0415

    by_class = (
        exceptions.OutOfMemoryError,
        exceptions.ReadOnlyError,
        exceptions.ClusterDownError,
        exceptions.TryAgainError,
    )
    return isinstance(error, by_class) or _AWAY.search(said) is not None
