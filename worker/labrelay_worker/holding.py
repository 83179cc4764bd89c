"""What holds whole destinations (breakers, people's pauses): shared by all workers in Redis, cached in each process.

The rules are `labrelay_worker.breaker`'s. A transition is decided from a copy and written by compare-and-set, so that
no worker overwrites what another one found; a decision that changes nothing costs no round trip, and that is every
successful delivery. The copy is renewed once a second, for all destinations in one call.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from pydantic import BaseModel, ConfigDict, ValidationError

from labrelay.names import Keys
from labrelay_worker.batching import ScriptGroups
from labrelay_worker.breaker import Breaker, BreakerPolicy, BreakerState, Event, after, clock
from labrelay_worker.planning import Hold

_logger = logging.getLogger(__name__)

SCRIPTS = ("holds", "swap", "release")

#: Seconds until a held export is looked at again if nobody released it: a safety net, not the way back.
_LOOK_AGAIN = 900.0
_CLOSED = Breaker()


class Pause(BaseModel):
    """A person's word that a destination shall take nothing until it is resumed."""

    model_config = ConfigDict(frozen=True)

    by: str
    at: float
    reason: str = ""

    def describe(self) -> str:
        """Return in words who paused it and why."""
        return f"paused since {clock(self.at)} by {self.by}" + (f": {self.reason}" if self.reason else "")


@dataclass(frozen=True)
class Standing:
    """How one destination stands, as Redis has it."""

    raw: str = ""
    breaker: Breaker = _CLOSED
    pause: Pause | None = None
    waiting: int = 0

    @cached_property
    def why_held(self) -> str:
        """Why it takes nothing, or an empty text; every export that waits asks for it, some times over."""
        if self.pause is not None:
            return self.pause.describe()
        return self.breaker.describe() if self.breaker.holds else ""


def read_breaker(raw: str) -> Breaker:
    """Return the breaker of its JSON; one that cannot be read is closed, so that deliveries tell how it is."""
    try:
        return Breaker.model_validate_json(raw) if raw else Breaker()
    except ValidationError:
        return Breaker()


def read_pause(raw: str) -> Pause | None:
    """Return the pause of its JSON; one that cannot be read is still a pause: a person meant it."""
    try:
        return Pause.model_validate_json(raw) if raw else None
    except ValidationError:
        return Pause(by="somebody", at=0.0)


class HoldBoard:
    """The standings of this process's destinations.

    Parameters
    ----------
    scripts
        Runs the Lua scripts named in `SCRIPTS`.
    keys
        Key names.
    names
        Destinations of this process.
    policy
        The breakers' limits and delays.
    """

    def __init__(self, scripts: ScriptGroups, keys: Keys, names: Sequence[str], policy: BreakerPolicy) -> None:
        self._scripts, self._keys, self.policy = scripts, keys, policy
        self._standings = dict.fromkeys(names, Standing())
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._clock = time.time() - time.monotonic()

    @property
    def names(self) -> list[str]:
        """The destinations of this process."""
        return list(self._standings)

    def now(self) -> float:
        """Return the Redis server's time, epoch seconds."""
        return self._clock + time.monotonic()

    def standing(self, name: str) -> Standing:
        """Return how a destination stood at the last look."""
        return self._standings[name]

    def is_untroubled(self, name: str) -> bool:
        """Return whether a destination has nothing that a success would have it forget."""
        return self._standings[name].breaker.has_nothing_to_forget

    def held(self, name: str, otherwise: str = "") -> Hold | None:
        """Return why a destination takes nothing now: a pause or its breaker, else what the caller knows of."""
        why = self._standings[name].why_held or otherwise
        return Hold(self.now() + _LOOK_AGAIN, why, whole_destination=True) if why else None

    async def refresh(self) -> None:
        """Renew the copy."""
        names = self.names
        now, *rows = await self._scripts.run("holds", self._keys.prefix, *names)
        self._set_clock(now)
        for name, (raw, pause, waiting) in zip(names, rows, strict=True):
            breaker = self._standings[name].breaker if raw == self._standings[name].raw else read_breaker(raw)
            self._standings[name] = Standing(raw, breaker, read_pause(pause), int(waiting))

    async def report(self, name: str, event: Event) -> Breaker:
        """Tell what happened at a destination; returns how its breaker stands then."""
        async with self._locks[name]:
            while True:
                known = self._standings[name]
                decided = after(known.breaker, event, now=self.now(), policy=self.policy)
                if decided is known.breaker:
                    return decided
                new = decided.model_dump_json(exclude_defaults=True)
                swapped, raw, now = await self._scripts.run("swap", self._keys.prefix, name, known.raw, new)
                self._set_clock(now)
                breaker = decided if swapped else read_breaker(raw)
                self._standings[name] = Standing(raw, breaker, known.pause, known.waiting)
                if swapped:
                    _log(name, known.breaker, decided, self.now())
                    return decided

    async def release(self, name: str, limit: int, *, within: float) -> int:
        """Make exports that wait for a destination due, spread over some seconds; returns how many were taken."""
        spacing = int(within * 1000 / limit)
        return int(await self._scripts.run("release", self._keys.prefix, name, limit, spacing))

    def _set_clock(self, milliseconds: str) -> None:
        self._clock = float(milliseconds) / 1000 - time.monotonic()


def _log(name: str, before: Breaker, now_is: Breaker, now: float) -> None:
    if now_is.state is BreakerState.OPEN and before.state is not BreakerState.OPEN:
        _logger.warning(
            "destination %s takes nothing for now: %s; its deliveries wait and it is asked again in %.0f s",
            name, now_is.describe(), now_is.until - now,
        )  # fmt: skip
    elif now_is.state is BreakerState.TRIAL:
        _logger.info("destination %s says it is back: a few deliveries try it", name)
    elif now_is.state is BreakerState.CLOSED and before.openings:
        _logger.warning("destination %s is back: its deliveries go on", name)
