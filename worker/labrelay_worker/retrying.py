"""When to try again, or never: pure functions from an error and a history to the next `Delivery`."""

from __future__ import annotations

from dataclasses import dataclass

from labrelay.errors import (
    DeliveryError,
    Misconfigured,
    OutcomeUnknown,
    RateLimited,
    Rejected,
    Transient,
    Unavailable,
)
from labrelay.results import Delivery, DeliveryState

_PATIENT = (RateLimited, Unavailable, Misconfigured)  # the record is not to blame: only age ends these


@dataclass(frozen=True)
class RetryPolicy:
    """Limits and delays, in seconds."""

    first_delay: float = 2.0
    longest_delay: float = 900.0
    attempts: int = 30
    age: float = 7 * 86400.0
    misconfigured_delay: float = 300.0
    on_unknown: str = "park"


def after_failure(
    error: DeliveryError,
    before: Delivery,
    *,
    now: float,
    policy: RetryPolicy,
    can_ask: bool,
    jitter: float,
    doubtful: bool = False,
) -> Delivery:
    """Return how a delivery stands after a failed attempt.

    Parameters
    ----------
    error
        What the destination raised.
    before
        How it stood before this attempt.
    now
        Server time, epoch seconds.
    policy
        Limits and delays.
    can_ask
        Whether the destination can be asked or may be sent to again after an unknown outcome.
    jitter
        A number in [0, 1) that spreads retries (exponential back-off with full jitter).
    doubtful
        Whether the record may have arrived: giving up then leaves it to a person instead of calling it failed.
    """
    attempts = before.attempts + (0 if isinstance(error, _PATIENT) else 1)
    first_at = before.first_at if before.first_at is not None else now

    def stands(state: DeliveryState, retry_at: float | None = None, reason: str | None = None) -> Delivery:
        return Delivery(
            state=state,
            attempts=attempts,
            first_at=first_at,
            retry_at=retry_at,
            error_kind=error.kind,
            error_message=str(error),
            reason=reason,
        )

    def given_up(reason: str) -> Delivery:
        if doubtful or isinstance(error, OutcomeUnknown):
            return stands(DeliveryState.UNKNOWN, reason=f"{reason}; it may have arrived")
        return stands(DeliveryState.FAILED, reason=reason)

    if isinstance(error, Rejected):
        return given_up("refused for good")
    if isinstance(error, OutcomeUnknown) and not can_ask and policy.on_unknown == "park":
        return stands(DeliveryState.UNKNOWN, reason="it may have arrived and the destination cannot be asked")
    if now - first_at >= policy.age:
        return given_up("given up: too old")
    if attempts >= policy.attempts:
        return given_up(f"given up after {attempts} attempts")
    return stands(DeliveryState.RETRYING, retry_at=now + _delay(error, attempts, now - first_at, policy, jitter))


def _delay(error: DeliveryError, attempts: int, age: float, policy: RetryPolicy, jitter: float) -> float:
    # A floor keeps full jitter, or a server that says "Retry-After: 0", from making a storm of retries. What was
    # sent and not answered may still be on its way or worked on: asked at once, its receiver would not know of it.
    floor = policy.first_delay if isinstance(error, OutcomeUnknown) else policy.first_delay / 10
    if isinstance(error, Transient) and error.retry_after is not None:
        return min(max(error.retry_after, floor), policy.age)
    if isinstance(error, Misconfigured):
        return policy.misconfigured_delay
    doublings = min(max(attempts - 1, 0), 30)
    # Errors that burn no attempt back off by how long they last, or a destination that is down for a weekend
    # would be asked every other second by every export that waits for it.
    window = age if isinstance(error, _PATIENT) else policy.first_delay * 2.0**doublings
    return max(min(max(window, policy.first_delay), policy.longest_delay) * jitter, floor)
