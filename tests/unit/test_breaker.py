"""The breaker's rules, as sentences and as properties."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from labrelay_worker.breaker import (
    Breaker,
    BreakerPolicy,
    BreakerState,
    Failed,
    Probed,
    ProbeWanted,
    Resumed,
    Succeeded,
    after,
)

POLICY = BreakerPolicy(threshold=3, open_seconds=30, longest_open_seconds=600, misconfigured_delay=300)


def down(began: float, retry_after: float | None = None) -> Failed:
    return Failed("unavailable", "no connection", began, retry_after)


def run(breaker: Breaker, *steps) -> Breaker:
    """Apply (time, event) pairs."""
    for now, event in steps:
        breaker = after(breaker, event, now=now, policy=POLICY)
    return breaker


def opened_at(now: float) -> Breaker:
    return run(Breaker(), *[(now, down(now))] * POLICY.threshold)


def test_it_opens_after_as_many_failures_in_a_row_as_the_threshold_says():
    # Given a closed breaker, when two of three fail, then it is closed
    almost = run(Breaker(), (10, down(9)), (10, down(9)))
    assert almost.state is BreakerState.CLOSED

    # When the third fails, then it is open for the first delay, with the reason
    opened = run(almost, (11, down(9)))
    assert (opened.state, opened.until, opened.since, opened.reason) == (BreakerState.OPEN, 41, 11, "no connection")


def test_a_success_between_failures_keeps_it_closed():
    breaker = run(Breaker(), (1, down(1)), (2, down(2)), (3, Succeeded(3)), (4, down(4)), (5, down(5)))
    assert (breaker.state, breaker.failures) == (BreakerState.CLOSED, 2)


def test_a_success_of_a_healthy_destination_changes_nothing_at_all():
    breaker = Breaker()
    assert after(breaker, Succeeded(5), now=6, policy=POLICY) is breaker


def test_one_misconfigured_answer_pauses_it_for_the_time_of_its_own():
    breaker = run(Breaker(), (10, Failed("misconfigured", "HTTP 401", 9)))
    assert (breaker.state, breaker.until, breaker.kind) == (BreakerState.OPEN, 310, "misconfigured")


def test_what_began_before_it_opened_neither_prolongs_nor_closes_it():
    opened = opened_at(10)
    assert run(opened, (12, down(9)), (13, Succeeded(9))) == opened


def test_what_began_before_it_closed_does_not_open_it_again():
    back = run(opened_at(10), (45, ProbeWanted("a")), (46, Probed("a", True)), (47, Succeeded(46.5)))
    assert run(back, *[(48, down(40))] * 10) == back


def test_only_one_worker_probes_until_its_lease_ends():
    # Given an open breaker whose time has come, when two workers offer to probe
    first = run(opened_at(10), (41, ProbeWanted("a")))
    second = run(first, (42, ProbeWanted("b")))

    # Then the first does; when it falls silent, then the second takes over and the late answer counts no more
    assert (first.prober, second.prober) == ("a", "a")
    taken_over = run(second, (41 + POLICY.probe_seconds, ProbeWanted("b")))
    assert taken_over.prober == "b"
    assert run(taken_over, (80, Probed("a", True))) == taken_over


def test_nobody_probes_before_its_time():
    opened = opened_at(10)
    assert run(opened, (39.9, ProbeWanted("a"))) == opened


def test_the_probes_yes_lets_few_try_and_their_success_closes_it():
    trial = run(opened_at(10), (41, ProbeWanted("a")), (42, Probed("a", True)))
    assert (trial.state, trial.holds, trial.allowance(POLICY)) == (BreakerState.TRIAL, False, 1)
    assert run(trial, (50, Succeeded(43))) == Breaker(changed=50)


def test_a_failure_on_trial_opens_it_at_once_and_for_longer():
    # Given a probe that looks at settings alone and says yes to a dead destination, again and again
    breaker, now, delays = opened_at(0), 0.0, []
    for _ in range(7):
        delays.append(breaker.until - now)
        now = breaker.until
        breaker = run(breaker, (now, ProbeWanted("a")), (now, Probed("a", True)), (now, down(now)))

    # Then one call each is risked, and the delays grow to the longest
    assert delays == [30, 60, 120, 240, 480, 600, 600]


def test_it_stays_open_as_long_as_the_destination_asked_up_to_the_longest():
    asked = run(Breaker(), (0, down(0)), (0, down(0)), (0, down(0, retry_after=120)))
    too_long = run(Breaker(), (0, down(0)), (0, down(0)), (0, down(0, retry_after=86400)))
    assert (asked.until, too_long.until) == (120, 600)


def test_a_persons_word_brings_the_probe_forward():
    assert run(opened_at(10), (12, Resumed())).until == 12
    assert run(Breaker(), (12, Resumed())) == Breaker()


names = st.sampled_from("ab")
times = st.floats(0, 1000)
events = st.one_of(
    st.builds(
        Failed,
        st.sampled_from(["unavailable", "misconfigured"]),
        st.just("down"),
        times,
        st.none() | st.floats(0, 1e5),
    ),
    st.builds(Succeeded, times),
    st.builds(ProbeWanted, names),
    st.builds(Probed, names, st.booleans()),
    st.just(Resumed()),
)
histories = st.lists(st.tuples(st.floats(0, 60), events), max_size=60)


@given(histories)
def test_whatever_happens_it_never_waits_longer_than_the_longest_and_always_says_why(history):
    breaker, now = Breaker(), 1000.0
    for pause, event in history:
        now += pause
        breaker = after(breaker, event, now=now, policy=POLICY)
        if breaker.holds:
            # A dead end would be a destination that nobody ever asks again.
            assert breaker.until - now <= max(POLICY.longest_open_seconds, POLICY.misconfigured_delay)
            assert breaker.reason
            assert 0 < breaker.since <= now
        assert breaker.failures < POLICY.threshold
        assert Breaker.model_validate_json(breaker.model_dump_json(exclude_defaults=True)) == breaker


@given(histories)
def test_whatever_happened_a_destination_that_is_back_is_closed_by_one_probe_and_one_delivery(history):
    breaker, now = Breaker(), 1000.0
    for pause, event in history:
        now += pause
        breaker = after(breaker, event, now=now, policy=POLICY)
    if breaker.holds:
        now = max(now, breaker.until)
        breaker = run(breaker, (now, ProbeWanted("c")), (now, Probed("c", True)))
    breaker = run(breaker, (now, Succeeded(now)))
    assert (breaker.state, breaker.failures, breaker.openings) == (BreakerState.CLOSED, 0, 0)


@given(st.lists(st.tuples(names, st.floats(0, 20)), min_size=1, max_size=40))
def test_two_workers_never_both_hold_the_probe(offers):
    breaker, now, lease = opened_at(0), 30.0, {}
    for name, pause in offers:
        now += pause
        before, breaker = breaker, after(breaker, ProbeWanted(name), now=now, policy=POLICY)
        if breaker is not before:
            assert all(now >= end for end in lease.values())
            lease[name] = breaker.until
