"""Retrying: when to try again, or never."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labrelay.errors import (
    Conflict,
    DeliveryError,
    Misconfigured,
    OutcomeUnknown,
    RateLimited,
    Rejected,
    Transient,
    Unavailable,
)
from labrelay.results import Delivery, DeliveryState
from labrelay_worker.retrying import RetryPolicy, after_failure

NOW = 1_000_000.0
POLICY = RetryPolicy(first_delay=2.0, longest_delay=900.0, attempts=5, age=86_400.0)
FIRST = Delivery()


def after(
    error: DeliveryError,
    before: Delivery = FIRST,
    *,
    can_ask: bool = True,
    jitter: float = 0.5,
    policy: RetryPolicy = POLICY,
) -> Delivery:
    return after_failure(error, before, now=NOW, policy=policy, can_ask=can_ask, jitter=jitter)


def tried(attempts: int, *, since: float = 10.0) -> Delivery:
    return Delivery(state=DeliveryState.RETRYING, attempts=attempts, first_at=NOW - since)


def test_a_failure_for_now_is_tried_again_and_counted() -> None:
    # When a first attempt fails for now
    delivery = after(Transient("HTTP 408"))
    # Then it is tried again, and says why it waits
    assert delivery == Delivery(
        state=DeliveryState.RETRYING,
        attempts=1,
        first_at=NOW,
        retry_at=NOW + 1.0,
        error_kind="transient",
        error_message="HTTP 408",
    )


def test_the_back_off_doubles_with_every_attempt() -> None:
    # When attempts fail one after the other, then the window doubles
    delays = [after(Transient("x"), tried(n)).retry_at - NOW for n in range(4)]
    assert delays == [1.0, 2.0, 4.0, 8.0]


def test_the_back_off_never_exceeds_its_longest() -> None:
    # Given very many attempts, when the next fails, then the delay is bounded
    patient = RetryPolicy(first_delay=2.0, longest_delay=60.0, attempts=10**6)
    assert after(Transient("x"), tried(10_000), jitter=0.999, policy=patient).retry_at <= NOW + 60


def test_no_jitter_makes_a_storm_of_retries() -> None:
    # Given the smallest jitter, when an attempt fails, then there is a pause all the same
    assert after(Transient("x"), jitter=0.0).retry_at > NOW + 0.1


def test_a_lost_answer_is_not_asked_about_at_once() -> None:
    # Given the smallest jitter, when an answer is lost, then what may still be on its way has time to arrive
    assert after(OutcomeUnknown("lost"), jitter=0.0).retry_at >= NOW + POLICY.first_delay


@pytest.mark.parametrize("error", [Rejected("no"), Conflict("taken")])
def test_a_refusal_is_never_tried_again(error: DeliveryError) -> None:
    # When the destination refuses for good, then there is no retry
    delivery = after(error)
    assert (delivery.state, delivery.retry_at) == (DeliveryState.FAILED, None)


def test_a_delivery_is_given_up_after_its_last_attempt() -> None:
    # Given a delivery with one attempt left, when that fails, then it is given up with the number
    delivery = after(Transient("x"), tried(4))
    assert delivery.state is DeliveryState.FAILED
    assert delivery.reason == "given up after 5 attempts"


def test_a_delivery_is_given_up_when_too_old() -> None:
    # Given a delivery that began long ago, when it fails again, then it is given up
    for error in (Transient("x"), Unavailable("x"), RateLimited("x"), Misconfigured("x")):
        delivery = after(error, tried(1, since=POLICY.age))
        assert (delivery.state, delivery.reason) == (DeliveryState.FAILED, "given up: too old")


@pytest.mark.parametrize("error", [RateLimited("x"), Unavailable("x"), Misconfigured("x")])
def test_what_is_not_the_record_s_fault_burns_no_attempt(error: DeliveryError) -> None:
    # Given a delivery with one attempt left
    delivery = after(error, tried(4))
    # When the destination as a whole cannot, then the attempt is kept
    assert (delivery.state, delivery.attempts) == (DeliveryState.RETRYING, 4)


def test_a_destination_that_stays_down_is_asked_less_and_less_often() -> None:
    # Given a destination that has been down for a minute, an hour, a day
    delays = [after(Unavailable("x"), tried(0, since=age)).retry_at - NOW for age in (0, 60, 3600, 80_000)]
    # Then its exports do not ask every other second for ever
    assert delays == [1.0, 30.0, 450.0, 450.0]


def test_a_misconfigured_destination_waits_for_a_person() -> None:
    # When the settings are refused, then the delay is the one meant for people
    assert after(Misconfigured("token")).retry_at == NOW + POLICY.misconfigured_delay


@pytest.mark.parametrize("error", [Transient, RateLimited, Unavailable])
def test_retry_after_is_obeyed(error: type[Transient]) -> None:
    # When the destination says how long to wait, then that is what happens, whatever the back-off says
    assert after(error("x", retry_after=3000.0)).retry_at == NOW + 3000


@pytest.mark.parametrize("seconds", [0.0, -5.0])
def test_a_retry_after_of_nothing_is_not_a_reason_to_hurry(seconds: float) -> None:
    # When the destination names no pause, or one in the past, then there is one
    assert after(RateLimited("x", retry_after=seconds)).retry_at > NOW + 0.1


@pytest.mark.parametrize("seconds", [1e12, math.inf])
def test_an_absurd_retry_after_does_not_park_an_export_for_ever(seconds: float) -> None:
    # When the destination names a year or more, then the limit by age holds
    assert after(RateLimited("x", retry_after=seconds)).retry_at == NOW + POLICY.age


def test_an_unknown_outcome_is_asked_about_later() -> None:
    # When an answer is lost where one can ask, then it is retried, which begins with asking
    delivery = after(OutcomeUnknown("lost"))
    assert (delivery.state, delivery.attempts) == (DeliveryState.RETRYING, 1)


def test_an_unknown_outcome_that_cannot_be_asked_is_parked() -> None:
    # When an answer is lost where nobody can ask, then a person decides
    delivery = after(OutcomeUnknown("lost"), can_ask=False)
    assert delivery.state is DeliveryState.UNKNOWN
    assert delivery.retry_at is None


def test_an_unknown_outcome_is_retried_where_the_settings_say_so() -> None:
    # Given on_unknown = "retry", when an answer is lost, then it is sent again later
    careless = RetryPolicy(on_unknown="retry")
    assert after(OutcomeUnknown("lost"), can_ask=False, policy=careless).state is DeliveryState.RETRYING


# --- properties ----------------------------------------------------------------------------------------

_SECONDS = st.none() | st.floats(allow_nan=False)
_KINDS = st.sampled_from([Transient, RateLimited, Unavailable])
_ERRORS = st.one_of(
    st.builds(lambda kind, seconds: kind("x", retry_after=seconds), _KINDS, _SECONDS),
    st.sampled_from([Misconfigured("x"), Rejected("x"), Conflict("x"), OutcomeUnknown("x")]),
)
_BEFORE = st.builds(
    Delivery,
    state=st.sampled_from([DeliveryState.SENDING, DeliveryState.RETRYING]),
    attempts=st.integers(0, 100),
    first_at=st.none() | st.floats(0, NOW),
)
_POLICIES = st.builds(
    RetryPolicy,
    first_delay=st.floats(0.01, 100),
    longest_delay=st.floats(0.01, 10_000),
    attempts=st.integers(1, 50),
    age=st.floats(1, 10**7),
    misconfigured_delay=st.floats(1, 10_000),
    on_unknown=st.sampled_from(["park", "retry"]),
)
_JITTER = st.floats(0, 1, exclude_max=True)


@given(_ERRORS, _BEFORE, _POLICIES, st.booleans(), _JITTER)
def test_a_retry_is_in_the_future_and_within_the_limits(
    error: DeliveryError, before: Delivery, policy: RetryPolicy, can_ask: bool, jitter: float
) -> None:
    delivery = after(error, before, can_ask=can_ask, jitter=jitter, policy=policy)
    if delivery.state is DeliveryState.RETRYING:
        assert NOW < delivery.retry_at < math.inf
        assert NOW - delivery.first_at < policy.age
        assert delivery.attempts < policy.attempts or delivery.attempts == before.attempts
        assert not isinstance(error, Rejected)
    else:
        assert delivery.retry_at is None
        assert delivery.reason


@given(_ERRORS, _BEFORE, _POLICIES, st.booleans(), _JITTER)
def test_the_history_is_kept(
    error: DeliveryError, before: Delivery, policy: RetryPolicy, can_ask: bool, jitter: float
) -> None:
    delivery = after(error, before, can_ask=can_ask, jitter=jitter, policy=policy)
    assert before.attempts <= delivery.attempts <= before.attempts + 1
    assert delivery.first_at == (NOW if before.first_at is None else before.first_at)
    assert (delivery.error_kind, delivery.error_message) == (error.kind, "x")


@given(_BEFORE, _POLICIES, _JITTER)
def test_in_doubt_and_unable_to_ask_is_never_sent_again_by_default(
    before: Delivery, policy: RetryPolicy, jitter: float
) -> None:
    delivery = after(OutcomeUnknown("x"), before, can_ask=False, jitter=jitter, policy=policy)
    given_up = delivery.attempts >= policy.attempts or NOW - (delivery.first_at or NOW) >= policy.age
    # Given up with the last answer lost, it may have arrived: not even `retry` calls that failed.
    assert (delivery.state is DeliveryState.UNKNOWN) == (policy.on_unknown == "park" or given_up)
