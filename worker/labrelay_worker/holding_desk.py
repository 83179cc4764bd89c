"""What a person sees and says of held destinations, for commands: read breakers and pauses, pause, resume."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Sequence
from typing import Any, cast

from pydantic import BaseModel, ConfigDict

from labrelay.ledger import Ledger, connect
from labrelay.redaction import redact
from labrelay.scripts import script_source
from labrelay.settings import ProducerSettings
from labrelay_worker.breaker import Breaker, BreakerPolicy, BreakerState, Resumed, after
from labrelay_worker.holding import Pause, read_breaker, read_pause


class DestinationHold(BaseModel):
    """Why a destination takes nothing, or takes little, at the moment."""

    model_config = ConfigDict(frozen=True)

    destination: str
    state: str
    why: str
    since: float
    until: float | None = None
    waiting: int = 0


class HoldingDesk:
    """Reads and changes what holds destinations.

    Parameters
    ----------
    settings
        Where Redis is, and the key prefix.

    Raises
    ------
    LedgerUnavailable
        From every method: Redis does not serve.
    NotPermitted
        From every method: this user of Redis may not do that.
    """

    def __init__(self, settings: ProducerSettings) -> None:
        self._keys = settings.keys
        self._redis = connect(settings)
        self._ledger = Ledger(self._redis, self._keys, settings.wake_up_grace)

    def __enter__(self) -> HoldingDesk:
        return self

    def __exit__(self, *_: object) -> None:
        self._redis.close()

    def served(self) -> set[str]:
        """Return the destinations that running workers serve."""
        return {info.name for worker in self._ledger.workers() for info in worker.destinations}

    def holds(self) -> list[DestinationHold]:
        """Return every destination that is paused, left alone, or on trial."""
        with self._ledger.reachable():
            breakers = cast("dict[str, str]", self._redis.hgetall(self._keys.breakers))
            pauses = cast("dict[str, str]", self._redis.hgetall(self._keys.pauses))
            found = []
            for name in sorted({*breakers, *pauses}):
                waiting = self._redis.zcard(self._keys.held(name))
                hold = _hold(name, read_breaker(breakers.get(name, "")), read_pause(pauses.get(name, "")), waiting)
                if hold is not None:
                    found.append(hold)
        return found

    def pause(self, name: str, reason: str) -> Pause:
        """Let a destination take nothing until it is resumed."""
        with self._ledger.reachable():
            pause = Pause(by=_who(), at=self._now(), reason=redact(reason))
            self._redis.hset(self._keys.pauses, name, pause.model_dump_json())
        return pause

    def resume(self, name: str) -> bool:
        """End a pause, and have an open breaker probed at once; return whether there was either."""
        with self._ledger.reachable():
            was_paused = bool(self._redis.hdel(self._keys.pauses, name))
            return self._probe_now(name) or was_paused

    def _probe_now(self, name: str) -> bool:
        swap = self._redis.register_script(script_source("labrelay_worker", "swap"))
        raw = cast("str | None", self._redis.hget(self._keys.breakers, name)) or ""
        while True:
            before = read_breaker(raw)
            # No limit or delay of the policy matters to a person's word.
            decided = after(before, Resumed(), now=self._now(), policy=BreakerPolicy())
            if decided is before:
                return False
            new = decided.model_dump_json(exclude_defaults=True)
            answer = cast("list[Any]", swap(args=[self._keys.prefix, name, raw, new]))
            if answer[0]:
                return True
            raw = str(answer[1])

    def _now(self) -> float:
        seconds, microseconds = cast("Sequence[int]", self._redis.time())
        return seconds + microseconds / 1e6


def _hold(name: str, breaker: Breaker, pause: Pause | None, waiting: int) -> DestinationHold | None:
    if pause is not None:
        return DestinationHold(
            destination=name, state="paused", why=pause.describe(), since=pause.at, waiting=waiting
        )
    if breaker.state is BreakerState.CLOSED:
        return None
    return DestinationHold(
        destination=name,
        state=breaker.state,
        why=breaker.describe(),
        since=breaker.since,
        until=breaker.until or None,
        waiting=waiting,
    )


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # containers run users without a name
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"
