"""The breaker of one destination: a pure state machine, from what is known and what happened to what holds next.

    closed --threshold x Unavailable, or one Misconfigured--> open --its time has come--> probing
    probing --validate_config says yes--> trial --a delivery succeeds--> closed
    probing --it says no--> open (longer)        trial --Unavailable or Misconfigured--> open (longer)

The probe asks ``validate_config``, which for many plugins looks at the settings alone; so its yes only lets a few
deliveries try, and the first that succeeds closes the breaker. Shared state is kept by `labrelay_worker.holding`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import assert_never

from pydantic import BaseModel, ConfigDict


class BreakerState(StrEnum):
    """What a destination's breaker lets through."""

    CLOSED = "closed"  # everything
    OPEN = "open"  # nothing, until its time has come
    PROBING = "probing"  # nothing; one worker asks the destination
    TRIAL = "trial"  # a few, to see whether it is really back


@dataclass(frozen=True)
class BreakerPolicy:
    """Limits and delays, in seconds."""

    threshold: int = 3
    open_seconds: float = 30.0
    longest_open_seconds: float = 600.0
    misconfigured_delay: float = 300.0
    #: A probe may last so long; then another worker takes it over.
    probe_seconds: float = 30.0


class Breaker(BaseModel):
    """How one destination's breaker stands. Times are the Redis server's, epoch seconds."""

    model_config = ConfigDict(frozen=True)

    state: BreakerState = BreakerState.CLOSED
    failures: int = 0  # in a row while closed
    openings: int = 0  # in a row without a success between them
    changed: float = 0.0  # since when it is in this state
    since: float = 0.0  # since when deliveries wait; 0: they do not
    until: float = 0.0  # open: the next probe; probing: the end of the probe's lease
    kind: str = ""  # the error that opened it: unavailable or misconfigured
    reason: str = ""
    prober: str = ""

    @property
    def holds(self) -> bool:
        """Whether deliveries wait."""
        return self.state in (BreakerState.OPEN, BreakerState.PROBING)

    @property
    def has_nothing_to_forget(self) -> bool:
        """Whether a success changes nothing."""
        return self.state is BreakerState.CLOSED and not self.failures

    def waits_for_probe(self, now: float) -> bool:
        """Return whether somebody should probe now: its time has come, or whoever probed fell silent."""
        return self.holds and now >= self.until

    def allowance(self, policy: BreakerPolicy) -> int:
        """Return how many calls of unknown end one process may risk: none beyond what would open it."""
        return 1 if self.state is BreakerState.TRIAL else max(1, policy.threshold - self.failures)

    def describe(self) -> str:
        """Return in words why deliveries wait."""
        return f"{self.kind} since {clock(self.since)}: {self.reason}"


def clock(at: float) -> str:
    """Return a time as people read it."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"


@dataclass(frozen=True)
class Failed:
    """A call begun at `began` met the destination down or misconfigured."""

    kind: str
    reason: str
    began: float
    retry_after: float | None = None


@dataclass(frozen=True)
class Succeeded:
    """A call begun at `began` reached the destination and was confirmed."""

    began: float


@dataclass(frozen=True)
class ProbeWanted:
    """A worker offers to probe; it may if the answer is a `PROBING` breaker with its name."""

    by: str


@dataclass(frozen=True)
class Probed:
    """The probe's answer."""

    by: str
    usable: bool
    reason: str = ""


@dataclass(frozen=True)
class Resumed:
    """A person says that it should be tried now."""


Event = Failed | Succeeded | ProbeWanted | Probed | Resumed


def after(before: Breaker, event: Event, *, now: float, policy: BreakerPolicy) -> Breaker:
    """Return how the breaker stands after an event; the same object says that nothing changes.

    Calls that began before the present state are ignored: what they tell is old.
    """
    match event:
        case Failed():
            return _after_failure(before, event, now, policy)
        case Succeeded():
            return _after_success(before, event, now)
        case ProbeWanted():
            return _after_offer(before, event, now, policy)
        case Probed():
            return _after_probe(before, event, now, policy)
        case Resumed():
            is_open = before.state is BreakerState.OPEN
            return before.model_copy(update={"until": min(before.until, now)}) if is_open else before
        case _:
            assert_never(event)


def _after_failure(before: Breaker, event: Failed, now: float, policy: BreakerPolicy) -> Breaker:
    if before.holds or event.began < before.changed:
        return before
    failures = before.failures + 1
    at_once = before.state is BreakerState.TRIAL or event.kind == "misconfigured"
    if at_once or failures >= policy.threshold:
        return _opened(before, event.kind, event.reason, now, policy, event.retry_after)
    # `changed` stays: calls that run side by side all count, whichever ends first.
    return before.model_copy(update={"failures": failures})


def _after_success(before: Breaker, event: Succeeded, now: float) -> Breaker:
    return before if before.has_nothing_to_forget or event.began < before.changed else Breaker(changed=now)


def _after_offer(before: Breaker, event: ProbeWanted, now: float, policy: BreakerPolicy) -> Breaker:
    if not before.waits_for_probe(now):
        return before
    lease = now + policy.probe_seconds
    return before.model_copy(
        update={"state": BreakerState.PROBING, "changed": now, "until": lease, "prober": event.by}
    )


def _after_probe(before: Breaker, event: Probed, now: float, policy: BreakerPolicy) -> Breaker:
    if before.state is not BreakerState.PROBING or before.prober != event.by:
        return before
    if not event.usable:
        return _opened(before, before.kind, event.reason or before.reason, now, policy)
    return before.model_copy(update={"state": BreakerState.TRIAL, "changed": now, "until": 0.0, "prober": ""})


def _opened(
    before: Breaker, kind: str, reason: str, now: float, policy: BreakerPolicy, asked: float | None = None
) -> Breaker:
    if kind == "misconfigured":
        delay = policy.misconfigured_delay  # a person corrects settings; asking more rarely would not help
    else:
        delay = policy.open_seconds * 2.0 ** min(before.openings, 30)
        delay = min(max(delay, asked or 0.0), max(policy.longest_open_seconds, policy.open_seconds))
    return Breaker(
        state=BreakerState.OPEN,
        openings=before.openings + 1,
        changed=now,
        since=before.since or now,
        until=now + delay,
        kind=kind,
        reason=reason,
    )
