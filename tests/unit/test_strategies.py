"""The three strategies: what runs next, and what it all amounts to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labrelay.errors import InvalidInput
from labrelay.results import DeliveryState, ExportState
from labrelay.strategies import Strategy, Verdict, next_destinations, not_needed, parse_strategy, verdict

States = dict[str, DeliveryState]
D = DeliveryState
OPEN = {D.PENDING, D.RETRYING}


def states(**by_name: str) -> States:
    return {name: D(state) for name, state in by_name.items()}


def starts(strategy: str, given: States, *, ready: str = "abcd") -> list[str]:
    return next_destinations(Strategy(strategy), list(given), given, ready)


# --- examples ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "given", "expected"),
    [
        ("all", states(a="delivered", b="delivered"), ExportState.DELIVERED),
        ("all", states(a="delivered", b="failed"), ExportState.DEAD),
        ("all", states(a="delivered", b="unknown"), ExportState.UNKNOWN),
        ("all", states(a="delivered", b="skipped"), ExportState.DEAD),
        ("all", states(a="delivered", b="retrying"), ExportState.WAITING),
        ("all", states(a="failed", b="pending"), ExportState.WAITING),
        ("first_success", states(a="failed", b="delivered"), ExportState.DELIVERED),
        ("first_success", states(a="delivered", b="retrying"), ExportState.DELIVERED),
        ("first_success", states(a="failed", b="failed"), ExportState.DEAD),
        ("first_success", states(a="unknown", b="failed"), ExportState.UNKNOWN),
        ("first_success", states(a="failed", b="retrying"), ExportState.WAITING),
        ("best_effort", states(a="delivered", b="failed"), ExportState.DELIVERED),
        ("best_effort", states(a="delivered", b="unknown"), ExportState.DELIVERED),
        ("best_effort", states(a="delivered", b="retrying"), ExportState.WAITING),
        ("best_effort", states(a="failed", b="failed"), ExportState.DEAD),
        ("best_effort", states(a="failed", b="unknown"), ExportState.UNKNOWN),
    ],
)
def test_the_verdict_follows_the_strategy(strategy: str, given: States, expected: ExportState) -> None:
    # Given deliveries as they stand, when they are judged, then the strategy decides
    assert verdict(Strategy(strategy), given).state is expected


def test_a_verdict_says_n_of_m() -> None:
    # Given a partial delivery, when it is shown, then nobody takes it for a whole one
    assert str(verdict(Strategy.ALL, states(a="delivered", b="failed", c="delivered"))) == "2 of 3 delivered"


@pytest.mark.parametrize("strategy", list(Strategy))
def test_an_export_without_destinations_waits(strategy: Strategy) -> None:
    # Given no destination, when judged, then nothing is called delivered
    assert verdict(strategy, {}) == Verdict(ExportState.WAITING, 0, 0)


def test_first_success_prefers_an_untried_destination_to_a_retry() -> None:
    # Given a first destination that failed for now, when choosing, then the next has its turn at once
    assert starts("first_success", states(a="retrying", b="pending")) == ["b"]


def test_first_success_retries_by_priority_once_all_were_tried() -> None:
    # Given that none delivered, when choosing, then the highest priority is tried again first
    assert starts("first_success", states(a="retrying", b="retrying")) == ["a"]


def test_first_success_passes_over_a_destination_in_back_off() -> None:
    # Given that the highest priority is in back-off, when choosing, then the next one is retried
    assert starts("first_success", states(a="retrying", b="retrying"), ready="b") == ["b"]


def test_first_success_does_not_need_the_others_once_one_has_it() -> None:
    # Given one delivery, when asked what is not needed, then it is what was still open
    given = states(a="failed", b="delivered", c="retrying", d="pending")
    assert not_needed(Strategy.FIRST_SUCCESS, given) == ["c", "d"]
    assert not_needed(Strategy.ALL, given) == []


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("best-effort", "Did you mean best_effort?"),
        ("ALL", "Did you mean all?"),
        ("firstsuccess", "Did you mean first_success?"),
        ("sometimes", "Use one of all, first_success, best_effort"),
    ],
)
def test_a_misspelled_strategy_is_refused_with_the_nearest(text: str, hint: str) -> None:
    # When a strategy is misspelled, then the error says what was meant
    with pytest.raises(InvalidInput) as caught:
        parse_strategy(text)
    assert caught.value.field == "strategy"
    assert caught.value.cure == hint


# --- properties ----------------------------------------------------------------------------------------

_STATES = st.dictionaries(st.sampled_from("abcd"), st.sampled_from(D), min_size=1)
_READY = st.sets(st.sampled_from("abcd"))
_STRATEGIES = st.sampled_from(Strategy)


@given(_STATES)
def test_all_is_delivered_exactly_if_every_destination_is(given: States) -> None:
    everywhere = set(given.values()) == {D.DELIVERED}
    assert (verdict(Strategy.ALL, given).state is ExportState.DELIVERED) == everywhere


@given(_STATES)
def test_first_success_is_delivered_exactly_if_one_destination_is(given: States) -> None:
    assert (verdict(Strategy.FIRST_SUCCESS, given).state is ExportState.DELIVERED) == (D.DELIVERED in given.values())


@given(_STATES)
def test_best_effort_is_delivered_exactly_if_one_is_and_nothing_moves(given: States) -> None:
    settled = all(state.is_settled for state in given.values())
    delivered = verdict(Strategy.BEST_EFFORT, given).state is ExportState.DELIVERED
    assert delivered == (settled and D.DELIVERED in given.values())


@given(_STRATEGIES, _STATES)
def test_a_verdict_never_counts_more_than_there_are(strategy: Strategy, given: States) -> None:
    result = verdict(strategy, given)
    assert result.delivered == list(given.values()).count(D.DELIVERED) <= result.of == len(given)


@given(_STRATEGIES, _STATES)
def test_a_final_verdict_leaves_nothing_to_send(strategy: Strategy, given: States) -> None:
    # Otherwise an export would end while a destination still waits for its turn.
    if verdict(strategy, given).state.is_final:
        assert set(given.values()).isdisjoint(OPEN | {D.SENDING}) or strategy is Strategy.FIRST_SUCCESS


@given(_STRATEGIES, _STATES)
def test_a_verdict_is_never_queued_running_or_cancelled(strategy: Strategy, given: States) -> None:
    # These are for the engine and for people to say.
    assert verdict(strategy, given).state not in (ExportState.QUEUED, ExportState.RUNNING, ExportState.CANCELLED)


@given(_STRATEGIES, _STATES, _READY)
def test_what_starts_is_ready_and_open(strategy: Strategy, given: States, ready: set[str]) -> None:
    chosen = next_destinations(strategy, list(given), given, ready)
    assert set(chosen) <= ready
    assert {given[name] for name in chosen} <= OPEN
    assert chosen == [name for name in given if name in chosen]


@given(_STATES, _READY)
def test_first_success_never_starts_a_second(given: States, ready: set[str]) -> None:
    chosen = next_destinations(Strategy.FIRST_SUCCESS, list(given), given, ready)
    assert len(chosen) <= 1
    if {D.SENDING, D.DELIVERED} & set(given.values()):
        assert chosen == []


@given(st.sampled_from([Strategy.ALL, Strategy.BEST_EFFORT]), _STATES)
def test_the_other_strategies_start_everything_that_may(strategy: Strategy, given: States) -> None:
    chosen = next_destinations(strategy, list(given), given, "abcd")
    assert set(chosen) == {name for name, state in given.items() if state in OPEN}
