"""The producer's half of the ledger: submit, cancel, and read. Every transition is one Lua call."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from labrelay.digests import Content
from labrelay.errors import NoSuchExport
from labrelay.kept_connection import KeptConnection
from labrelay.ledger_reading import WORKER_GONE_MS, LedgerReader
from labrelay.names import Keys
from labrelay.pipelining import Command, answers_to, handfuls
from labrelay.priorities import Priority
from labrelay.replicas import REPLICA_WAIT_MS, require_replicas
from labrelay.results import ExportState
from labrelay.scripts import script_source
from labrelay.settings import ProducerSettings

if TYPE_CHECKING:
    import redis

__all__ = ["WORKER_GONE_MS", "Answer", "Entry", "Ledger", "connect"]

#: Of one call of the script: Redis serves nobody else meanwhile, so it must not last longer than a few ms.
_SUBMITTED_AT_ONCE, _CHARACTERS_AT_ONCE = 50, 2**20


class Entry(NamedTuple):
    """One export as it goes into the ledger."""

    export_id: str
    #: What is to be exported, or its digest.
    content: Content | str
    context: str
    session: str
    instrument: str
    strategy: str
    destinations: tuple[str, ...]
    priority: Priority = Priority.NORMAL
    #: Span that the worker's spans are children of (W3C Trace Context); empty: none.
    traceparent: str = ""

    @property
    def digest(self) -> str:
        """The digest of the content; made when it is asked for, which is while Redis works on entries before it."""
        return self.content if isinstance(self.content, str) else self.content.digest()


class Answer(NamedTuple):
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


def _taken(answer: list[Any]) -> list[Answer]:
    to_ring, *own = answer
    taken = [Answer(outcome, ExportState(state), int(revision), differs) for outcome, state, revision, differs in own]
    if to_ring:
        # Counted once for all of them, by the last.
        taken[-1] = taken[-1]._replace(to_ring=int(to_ring))
    return taken


def _read(answer: list[Any] | int) -> list[Answer] | int:
    """Return the answers to one call of the script, or how many replicas confirmed."""
    return answer if isinstance(answer, int) else _taken(answer)


def _no_script() -> type[Exception]:
    from redis.exceptions import NoScriptError  # noqa: PLC0415  `import labrelay` must not load it

    return NoScriptError


class Ledger(LedgerReader):
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
        super().__init__(client, keys)
        self._replicas = replicas
        self._grace_ms = int(wake_up_grace * 1000)
        self._submit = client.register_script(script_source("labrelay", "submit"))
        self._cancel = client.register_script(script_source("labrelay", "cancel"))
        self._kept = KeptConnection(client)

    def submit(self, entries: Sequence[Entry], *, replace: bool) -> list[Answer]:
        """Accept exports, each atomically, all in one round trip.

        Raises
        ------
        LedgerUnavailable
            Redis is away, frozen or full. Whether the exports arrived is unknown; the same submit again is safe.
        """
        with self.reachable():
            answers = answers_to(self._redis, lambda: self._calls(entries, replace), _read)
            if any(isinstance(answer, _no_script()) for answer in answers):
                # Redis was started anew; what it refused did not run, and what it took is a duplicate now.
                self._redis.script_load(self._submit.script)
                answers = answers_to(self._redis, lambda: self._calls(entries, replace), _read)
            taken: list[Answer] = []
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer
                if isinstance(answer, int):
                    require_replicas(answer, self._replicas)
                else:
                    taken += answer
            self._kept.keep()
        return taken

    def submit_here(self, entries: Sequence[Entry], seconds: float, *, replace: bool) -> list[Answer] | None:
        """Accept one export as `submit` does, within so many seconds; None: that cannot be promised, call `submit`.

        Raises
        ------
        TimeoutError
            No answer came; whether the export arrived is unknown.
        """
        if len(entries) != 1 or self._replicas:
            return None
        answer = self._kept.ask(self._call(entries, replace, rings=True), seconds)
        return None if answer is None else _taken(answer)

    def _calls(self, entries: Sequence[Entry], replace: bool) -> Iterator[Command]:
        left = len(entries)
        for chunk in handfuls(entries, lambda entry: len(entry.context), _SUBMITTED_AT_ONCE, _CHARACTERS_AT_ONCE):
            left -= len(chunk)
            yield self._call(chunk, replace, rings=not left)
        if self._replicas:
            # It waits for what its own connection wrote.
            yield "WAIT", self._replicas, REPLICA_WAIT_MS

    def _call(self, entries: Sequence[Entry], replace: bool, *, rings: bool) -> Command:
        return (
            *("EVALSHA", self._submit.sha, 0, self._keys.prefix, int(replace), self._grace_ms, int(rings)),
            *(part for entry in entries for part in _arguments(entry)),
        )

    def cancel(self, export_id: str) -> str:
        """Cancel an export; answers ``cancelled``, ``cancelling`` or the final state it already had."""
        with self.reachable():
            answer = str(self._cancel(args=[self._keys.prefix, export_id]))
        if answer == "missing":
            raise NoSuchExport(f"there is no export {export_id}")
        return answer
