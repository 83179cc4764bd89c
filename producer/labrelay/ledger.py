"""The producer's half of the ledger: submit, cancel and read. Every transition is one Lua call."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, cast

from labrelay.errors import LedgerUnavailable, NoSuchExport, NotPermitted
from labrelay.names import FIELD_EARLIER, Keys
from labrelay.outages import explain, is_demoted, is_forbidden, is_outage, said
from labrelay.packed import whole_trail, with_packed
from labrelay.pipelining import Command, answers_to, handfuls
from labrelay.priorities import Priority
from labrelay.redaction import redact
from labrelay.replicas import REPLICA_WAIT_MS, require_replicas
from labrelay.results import Backlog, ExportState, ExportStatus, TrailEntry, WorkerInfo
from labrelay.rows import Row, status_of, to_ms, trail_entry
from labrelay.scripts import script_source
from labrelay.settings import ProducerSettings

if TYPE_CHECKING:
    import redis

#: A worker process not seen for this long is gone (it announces itself every ten seconds).
WORKER_GONE_MS = 45_000
#: Rows read in one call: without contexts they are a few kilobytes each. Pages grow: many want the latest few.
_FIRST_PAGE, _PAGE = 25, 200
#: Of one call of the script: Redis serves nobody else meanwhile, so it must not last longer than a few ms.
_SUBMITTED_AT_ONCE, _CHARACTERS_AT_ONCE = 50, 2**20
#: A reconciler looks every second: what has been due for longer than this shows that none runs.
_LATE_SECONDS = 10


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
    priority: Priority = Priority.NORMAL
    #: Span that the worker's spans are children of (W3C Trace Context); empty: none.
    traceparent: str = ""


@dataclass(frozen=True)
class Answer:
    """What the ledger said to one submit."""

    outcome: str
    state: ExportState
    revision: int
    differs: str
    #: Wake-ups to publish for this and what is ready beside it.
    to_ring: int = 0


def connect(settings: ProducerSettings) -> redis.Redis:
    """Return a client that gives up within ``redis_timeout`` and repeats only on a dropped connection."""
    import redis  # noqa: PLC0415  `import labrelay` must not load it
    from redis.backoff import NoBackoff  # noqa: PLC0415
    from redis.retry import Retry  # noqa: PLC0415

    return settings.redis_address.client(
        decode_responses=True,
        socket_timeout=settings.redis_timeout,
        socket_connect_timeout=settings.redis_timeout,
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.exceptions.ConnectionError,)),
        health_check_interval=25,
    )


def _arguments(entry: Entry) -> tuple[str, ...]:
    return (
        entry.export_id,
        entry.digest,
        entry.context,
        entry.strategy,
        json.dumps(entry.destinations) if entry.destinations else "",
        entry.session,
        entry.instrument,
        entry.priority,
        entry.traceparent,
    )


def _no_script() -> type[Exception]:
    from redis.exceptions import NoScriptError  # noqa: PLC0415  `import labrelay` must not load it

    return NoScriptError


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
    replicas
        How many of them must hold a submit before it is accepted.
    """

    def __init__(self, client: redis.Redis, keys: Keys, wake_up_grace: float, *, replicas: int = 0) -> None:
        self._redis = client
        self._replicas = replicas
        self._keys = keys
        self._grace_ms = int(wake_up_grace * 1000)
        self._submit = client.register_script(script_source("labrelay", "submit"))
        self._cancel = client.register_script(script_source("labrelay", "cancel"))
        self._peek = client.register_script(script_source("labrelay", "peek"))

    def submit(self, entries: Sequence[Entry], *, replace: bool) -> list[Answer]:
        """Accept exports, each atomically, all in one round trip.

        Raises
        ------
        LedgerUnavailable
            Redis is away, frozen or full. Whether the exports arrived is unknown; the same submit again is safe.
        """
        chunks = list(handfuls(entries, lambda entry: len(entry.context), _SUBMITTED_AT_ONCE, _CHARACTERS_AT_ONCE))
        calls: list[Command] = [
            (
                *("EVALSHA", self._submit.sha, 0, self._keys.prefix, int(replace), self._grace_ms),
                int(chunk is chunks[-1]),
                *(part for entry in chunk for part in _arguments(entry)),
            )
            for chunk in chunks
        ]
        if self._replicas:
            calls.append(("WAIT", self._replicas, REPLICA_WAIT_MS))
        with self.reachable():
            answers = answers_to(self._redis, calls)
            if any(isinstance(answer, _no_script()) for answer in answers):
                # Redis was started anew; what it refused did not run, and what it took is a duplicate now.
                self._redis.script_load(self._submit.script)
                answers = answers_to(self._redis, calls)
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer
            if self._replicas:
                require_replicas(answers.pop(), self._replicas)
        taken = [
            Answer(outcome, ExportState(state), int(revision), differs)
            for _, *own in answers
            for outcome, state, revision, differs in own
        ]
        if taken:
            # Counted once for all of them, by the last.
            taken[-1] = dataclasses.replace(taken[-1], to_ring=int(answers[-1][0]))
        return taken

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
        return [WorkerInfo.model_validate_json(info) for info in infos if info]

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
