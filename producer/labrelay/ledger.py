"""The producer's half of the ledger: submit, cancel, and read. Every transition is one Lua call."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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


def _answers(calls: Sequence[Any]) -> list[Answer]:
    taken = [
        Answer(outcome, ExportState(state), int(revision), differs)
        for _, *own in calls
        for outcome, state, revision, differs in own
    ]
    if taken:
        # Counted once for all of them, by the last.
        taken[-1] = dataclasses.replace(taken[-1], to_ring=int(calls[-1][0]))
    return taken


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
        chunks = list(handfuls(entries, lambda entry: len(entry.context), _SUBMITTED_AT_ONCE, _CHARACTERS_AT_ONCE))
        calls = [self._call(chunk, replace, rings=chunk is chunks[-1]) for chunk in chunks]
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
            self._kept.keep()
        return _answers(answers)

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
        return None if answer is None else _answers([answer])

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
