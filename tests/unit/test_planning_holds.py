"""What starts while destinations take nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from labrelay.results import Delivery, DeliveryState, DestinationInfo
from labrelay.strategies import Strategy
from labrelay_worker.planning import Hold, next_steps

HELD = Hold(1900.0, "unavailable", whole_destination=True)


def infos(*names: str, **waits_for) -> list[DestinationInfo]:
    return [
        DestinationInfo(name=n, type="t", priority=90 - i, waits_for=waits_for.get(n, ()))
        for i, n in enumerate(names)
    ]


def plan(strategy, ordered, deliveries=None, *, closed, now=1000.0):
    states = {info.name: Delivery() for info in ordered} | (deliveries or {})
    return next_steps(strategy, ordered, states, now=now, created=now, link_wait=900, closed=closed.get)


def test_a_held_destination_waits_with_its_reason_and_the_others_start():
    steps = plan(Strategy.ALL, infos("a", "b"), closed={"b": HELD})
    assert (steps.start, dict(steps.held), steps.held_by) == (("a",), {"b": HELD}, ("b",))


def test_first_success_goes_to_the_next_when_the_first_is_held():
    assert plan(Strategy.FIRST_SUCCESS, infos("a", "b"), closed={"a": HELD}).start == ("b",)


def test_first_success_retries_what_failed_although_an_untried_one_is_held():
    # Given a destination that failed for now and whose time has come, and an untried one that takes nothing
    failed = Delivery(state=DeliveryState.RETRYING, attempts=1, retry_at=999.0)
    steps = plan(Strategy.FIRST_SUCCESS, infos("a", "b"), {"a": failed}, closed={"b": HELD})

    # Then the first is retried
    assert steps.start == ("a",)


def test_one_of_the_seeds_classes_does_not_wait_for_a_held_destination():
    assert plan(Strategy.ALL, infos("a", "seed", seed=None), closed={"a": HELD}).start == ("seed",)


def test_one_that_links_to_a_held_destination_waits_for_it_no_longer_than_link_wait():
    steps = plan(Strategy.ALL, infos("a", "b", b=("a",)), closed={"a": HELD})
    assert steps.start == ()
    assert steps.held["b"].until == 1900.0
    assert plan(Strategy.ALL, infos("a", "b", b=("a",)), closed={"a": HELD}, now=1000.0).held_by == ("a",)


def test_the_hold_of_the_destination_comes_before_the_back_off_of_the_delivery():
    # A release makes it due at once, so it must be known to wait for the destination.
    failed = Delivery(state=DeliveryState.RETRYING, retry_at=5000.0, error_kind="unavailable")
    assert plan(Strategy.ALL, infos("a"), {"a": failed}, closed={"a": HELD}).held_by == ("a",)


deliveries = st.builds(
    Delivery,
    state=st.sampled_from(DeliveryState),
    retry_at=st.none() | st.floats(900, 1100),
    attempts=st.integers(0, 5),
)


@given(
    st.sampled_from(Strategy), st.dictionaries(st.sampled_from("abcd"), deliveries), st.sets(st.sampled_from("abcd"))
)
def test_nothing_held_ever_starts_and_no_hold_stops_another(strategy, given_deliveries, closed):
    ordered = infos("a", "b", "c", "d")
    steps = plan(strategy, ordered, given_deliveries, closed=dict.fromkeys(closed, HELD))
    assert not set(steps.start) & closed
    assert set(steps.held_by) <= closed
    # What starts while some are held is what would start if those were settled otherwise.
    if strategy is not Strategy.FIRST_SUCCESS:
        free = plan(strategy, ordered, given_deliveries, closed={})
        assert set(steps.start) == set(free.start) - closed
