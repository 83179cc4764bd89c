"""Planning: what starts now, and what holds the others."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from labrelay.results import Delivery, DeliveryState, DestinationInfo
from labrelay.strategies import Strategy
from labrelay_worker.planning import Hold, NextSteps, next_steps

NOW = 10_000.0
LINK_WAIT = 900.0

Plan = dict[DestinationInfo, Delivery]


def info(name: str, priority: int = 50, waits_for: tuple[str, ...] | None = ()) -> DestinationInfo:
    return DestinationInfo(name=name, type="fake", priority=priority, waits_for=waits_for)


def stands(state: str, **fields: object) -> Delivery:
    return Delivery(state=DeliveryState(state), **fields)


PENDING, SENDING, DELIVERED, FAILED = (stands(s) for s in ("pending", "sending", "delivered", "failed"))


def plan(*pairs: tuple[DestinationInfo, Delivery], strategy: str = "all", age: float = 0.0) -> NextSteps:
    return next_steps(
        Strategy(strategy),
        [info for info, _ in pairs],
        {info.name: delivery for info, delivery in pairs},
        now=NOW,
        created=NOW - age,
        link_wait=LINK_WAIT,
    )


def test_everything_independent_starts_in_order() -> None:
    # Given destinations by priority, one of which has it already
    steps = plan((info("a", 90), PENDING), (info("b", 50), DELIVERED), (info("c", 10), PENDING))
    # Then the others start, higher priority first
    assert steps.start == ("a", "c")
    assert steps.held == {}
    assert steps.look_again_at is None


def test_a_back_off_holds_until_its_end_and_says_why() -> None:
    # Given a delivery that failed for now
    steps = plan((info("a"), stands("retrying", retry_at=NOW + 5, error_kind="rate_limited")))
    # Then it is held until then
    assert steps.start == ()
    assert steps.held == {"a": Hold(NOW + 5, "rate_limited")}
    assert steps.look_again_at == NOW + 5


def test_a_back_off_that_ends_now_holds_no_longer() -> None:
    # Given a retry whose time has come, then it starts
    assert plan((info("a"), stands("retrying", retry_at=NOW))).start == ("a",)


def test_what_is_being_sent_is_not_started_again() -> None:
    # Given a running call, then nothing starts twice
    assert plan((info("a"), SENDING)).start == ()


def test_a_link_waits_until_the_other_is_settled() -> None:
    # Given a destination that links to another one that is tried again later
    retry = stands("retrying", retry_at=NOW + 60)
    steps = plan((info("a"), retry), (info("b", waits_for=("a",)), PENDING))
    # Then it waits for that
    assert steps.start == ()
    assert steps.held["b"] == Hold(NOW + 60, "waits for a", awaits=("a",))


def test_a_link_waits_no_longer_than_link_wait() -> None:
    # Given an awaited destination that is tried again only after that
    retry = stands("retrying", retry_at=NOW + 2 * LINK_WAIT)
    steps = plan((info("a"), retry), (info("b", waits_for=("a",)), PENDING), age=100)
    # Then it is looked at when link_wait is over
    assert steps.held["b"].until == NOW + LINK_WAIT - 100
    assert steps.look_again_at == NOW + LINK_WAIT - 100


def test_a_link_to_something_settled_does_not_wait() -> None:
    # Given awaited destinations that are settled, whichever way
    for settled in ("delivered", "failed", "unknown", "skipped"):
        steps = plan((info("a"), stands(settled)), (info("b", waits_for=("a",)), PENDING))
        # Then the later one starts
        assert steps.start == ("b",)


def test_a_link_to_something_not_in_this_export_does_not_wait() -> None:
    # Given a destination that links to one which is not chosen, or to itself
    for other in ("elsewhere", "b"):
        assert plan((info("b", waits_for=(other,)), PENDING)).start == ("b",)


def test_a_link_names_all_it_waits_for() -> None:
    # Given two awaited destinations
    steps = plan((info("a"), PENDING), (info("b"), SENDING), (info("c", waits_for=("a", "b")), PENDING))
    # Then the reason names both
    assert steps.held["c"].reason == "waits for a and b"


def test_a_class_of_the_seed_lets_each_higher_priority_have_its_turn() -> None:
    # Given a class that says nothing of links, beside one of equal priority
    steps = plan((info("a", 90), PENDING), (info("b", 50), PENDING), (info("seed", 50, None), PENDING))
    # Then it waits for the higher one alone
    assert steps.held["seed"].reason == "waits for a"


def test_a_class_of_the_seed_is_not_held_up_by_a_failure() -> None:
    # Given that the higher one failed for now
    steps = plan((info("a", 90), stands("retrying", retry_at=NOW + 60)), (info("seed", 10, None), PENDING))
    # Then it has had its turn
    assert steps.start == ("seed",)


def test_after_link_wait_a_link_still_waits_for_what_moves_now() -> None:
    # Given an export older than link_wait, with a chain of links whose head starts now
    chain = (info("a"), PENDING), (info("b", waits_for=("a",)), PENDING), (info("c", waits_for=("b",)), PENDING)
    # Then the chain keeps its order in this run
    assert plan(*chain, age=2 * LINK_WAIT).start == ("a",)
    # And also while its head is being sent
    assert plan((info("a"), SENDING), *chain[1:], age=2 * LINK_WAIT).start == ()


def test_after_link_wait_a_back_off_holds_nobody_else() -> None:
    # Given an export older than link_wait, whose awaited destination is in back-off
    steps = plan(
        (info("a"), stands("retrying", retry_at=NOW + 60)),
        (info("b", waits_for=("a",)), PENDING),
        (info("c", waits_for=("b",)), PENDING),
        age=2 * LINK_WAIT,
    )
    # Then the next one goes unlinked, and what links to that waits for it
    assert steps.start == ("b",)
    assert steps.held["c"].reason == "waits for b"


def test_a_circle_of_links_is_broken_after_link_wait() -> None:
    # Given two destinations that wait for each other
    circle = (info("a", waits_for=("b",)), PENDING), (info("b", waits_for=("a",)), PENDING)
    # Then they wait at most link_wait, and the first goes unlinked
    assert plan(*circle).start == ()
    assert plan(*circle, age=LINK_WAIT).start == ("a",)


def test_first_success_does_not_care_for_links() -> None:
    # Given a first destination that would wait for the second
    steps = plan((info("a", waits_for=("b",)), PENDING), (info("b"), PENDING), strategy="first_success")
    # Then it starts alone: there will be one record only
    assert steps.start == ("a",)


# --- properties ----------------------------------------------------------------------------------------

_NAMES = ("a", "b", "c", "d")
_DELIVERIES = st.builds(
    Delivery,
    state=st.sampled_from(DeliveryState),
    retry_at=st.none() | st.floats(NOW - 100, NOW + 2000),
)
_INFOS = [
    st.builds(
        info,
        st.just(name),
        st.integers(0, 3),
        st.none() | st.lists(st.sampled_from(_NAMES), max_size=3, unique=True).map(tuple),
    )
    for name in _NAMES
]
_STRATEGIES = st.sampled_from([str(s) for s in Strategy])


@given(st.tuples(*_INFOS), st.tuples(*[_DELIVERIES] * 4), _STRATEGIES, st.floats(0, 3 * LINK_WAIT))
def test_nothing_settled_sending_or_held_is_started(
    infos: tuple[DestinationInfo, ...], deliveries: tuple[Delivery, ...], strategy: str, age: float
) -> None:
    steps = plan(*zip(infos, deliveries, strict=True), strategy=strategy, age=age)
    by_name = {each.name: delivery for each, delivery in zip(infos, deliveries, strict=True)}
    for name in steps.start:
        assert by_name[name].state in (DeliveryState.PENDING, DeliveryState.RETRYING)
        assert by_name[name].retry_at is None or by_name[name].retry_at <= NOW
        assert name not in steps.held


@given(st.tuples(*_INFOS), st.tuples(*[_DELIVERIES] * 4), _STRATEGIES, st.floats(0, 3 * LINK_WAIT))
def test_what_is_open_starts_or_moves_or_is_looked_at_later(
    infos: tuple[DestinationInfo, ...], deliveries: tuple[Delivery, ...], strategy: str, age: float
) -> None:
    # Otherwise an export would wait for nothing, or be claimed again and again without moving.
    steps = plan(*zip(infos, deliveries, strict=True), strategy=strategy, age=age)
    states = [delivery.state for delivery in deliveries]
    is_open = any(state in (DeliveryState.PENDING, DeliveryState.RETRYING) for state in states)
    fulfilled = strategy == "first_success" and DeliveryState.DELIVERED in states
    if is_open and not steps.start and DeliveryState.SENDING not in states and not fulfilled:
        assert steps.look_again_at is not None
        assert steps.look_again_at > NOW


@given(st.tuples(*_INFOS), _STRATEGIES)
def test_an_export_older_than_link_wait_always_moves(infos: tuple[DestinationInfo, ...], strategy: str) -> None:
    # Whatever waits for whatever, even in circles.
    assert plan(*[(each, PENDING) for each in infos], strategy=strategy, age=LINK_WAIT).start
