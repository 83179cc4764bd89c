"""The bounded window: never more bytes than allowed, first in first out, the oldest gives way."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labrelay_worker.viewers.desk import Budget, CannotShow
from labrelay_worker.viewers.sendwindow import Limits, SendWindow


@dataclass
class Item:
    number: int
    size: int


def test_items_are_sent_in_order_as_far_as_the_window_allows() -> None:
    # Given three items of 40 bytes and a window of 100
    window = SendWindow[Item](Limits(under_way=100, waiting=1000))
    for number in (1, 2, 3):
        assert window.add(Item(number, 40)) == []
    # Then two go, and the third when one is acknowledged
    assert [window.next().number, window.next().number, window.next()] == [1, 2, None]
    assert window.settle(1).number == 1
    assert window.next().number == 3


def test_the_oldest_that_waits_gives_way_to_the_newest() -> None:
    window = SendWindow[Item](Limits(under_way=40, waiting=100))
    assert window.add(Item(1, 40)) == []
    assert window.next().number == 1
    window.add(Item(2, 50))
    window.add(Item(3, 50))
    assert not window.has_room(10)
    assert [item.number for item in window.add(Item(4, 60))] == [2, 3]
    assert (window.under_way, window.waiting) == (1, 1)


def test_an_item_larger_than_every_limit_passes_alone() -> None:
    window = SendWindow[Item](Limits(under_way=10, waiting=10))
    window.add(Item(1, 500))
    assert window.next().number == 1
    window.add(Item(2, 500))
    assert window.next() is None
    window.settle(1)
    assert window.next().number == 2


def test_an_answer_for_what_is_not_under_way_changes_nothing() -> None:
    window = SendWindow[Item](Limits())
    window.add(Item(1, 5))
    for number in (1, 99, None, "1", [1]):
        assert window.settle(number) is None
    assert window.waiting == 1


@given(st.lists(st.one_of(st.integers(1, 60), st.just("next"), st.just("ack")), max_size=60))
def test_every_item_is_counted_once_and_the_bounds_hold(steps) -> None:
    # Given any order of offers, sends and acknowledgements
    window = SendWindow[Item](Limits(under_way=100, waiting=100))
    sent, dropped, acknowledged, offered = [], [], [], 0
    for step in steps:
        if step == "next":
            if (item := window.next()) is not None:
                sent.append(item.number)
        elif step == "ack":
            if unacknowledged := [n for n in sent if n not in acknowledged]:
                window.settle(unacknowledged[0])
                acknowledged.append(unacknowledged[0])
        else:
            offered += 1
            dropped += [item.number for item in window.add(Item(offered, step))]
        # Then no bound is broken
        assert window.under_way_bytes <= 100
        assert window.waiting_bytes <= 100
    # And what was offered is acknowledged, dropped, under way or waiting, in order
    under_way, waiting = window.clear()
    left = [item.number for item in under_way + waiting]
    assert sorted([*acknowledged, *dropped, *left]) == list(range(1, offered + 1))
    assert sent == sorted(sent)
    assert (window.under_way_bytes, window.waiting_bytes) == (0, 0)


def test_a_full_viewer_lets_the_least_recently_shown_go() -> None:
    budget = Budget(100)
    assert budget.admit("a", 40) == budget.admit("b", 40) == []
    assert budget.admit("a", 40) == []
    assert budget.admit("c", 50) == ["b"]
    assert (budget.held, budget.evicted) == (90, 1)
    with pytest.raises(CannotShow, match="--memory"):
        budget.admit("d", 101)
