"""The three strategies as pure functions: which destinations may run next, and what it all amounts to.

Names and meaning are NexusLIMS's (``exporters/strategies.py``); retries are added (DESIGN section 6).
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from labrelay.errors import InvalidInput
from labrelay.results import DeliveryState, ExportState


class Strategy(StrEnum):
    """Which destinations run, and what counts as success."""

    ALL = "all"
    FIRST_SUCCESS = "first_success"
    BEST_EFFORT = "best_effort"


@dataclass(frozen=True)
class Verdict:
    """What an export amounts to at one moment."""

    state: ExportState
    delivered: int
    of: int

    def __str__(self) -> str:
        return f"{self.delivered} of {self.of} delivered"


States = Mapping[str, DeliveryState]

_OPEN = frozenset({DeliveryState.PENDING, DeliveryState.RETRYING})


def parse_strategy(text: str) -> Strategy:
    """Return the strategy of that name.

    Raises
    ------
    InvalidInput
        There is none; the text suggests the nearest.
    """
    try:
        return Strategy(text)
    except ValueError:
        near = difflib.get_close_matches(text.lower(), list(Strategy), n=1)
        hint = f"Did you mean {near[0]}?" if near else f"Use one of {', '.join(Strategy)}"
        raise InvalidInput("strategy", f"there is no strategy {text!r}", hint) from None


def next_destinations(
    strategy: Strategy, ordered: Sequence[str], states: States, ready: Collection[str]
) -> list[str]:
    """Return the destinations to start now.

    Parameters
    ----------
    strategy
        The export's strategy.
    ordered
        All its destinations, highest priority first.
    states
        How each stands.
    ready
        Those that nothing holds: no back-off, no other destination, no breaker.
    """
    can_start = [name for name in ordered if states[name] in _OPEN and name in ready]
    if strategy is not Strategy.FIRST_SUCCESS:
        return can_start
    taken = (DeliveryState.DELIVERED, DeliveryState.SENDING)
    if any(states[name] in taken for name in ordered):
        return []
    # An untried destination comes before the retry of one that failed: moving on at once is the point.
    untried = [name for name in can_start if states[name] is DeliveryState.PENDING]
    return (untried or can_start)[:1]


def not_needed(strategy: Strategy, states: States) -> list[str]:
    """Return the destinations that the strategy does not need any more."""
    if strategy is not Strategy.FIRST_SUCCESS or DeliveryState.DELIVERED not in states.values():
        return []
    return [name for name, state in states.items() if state in _OPEN]


def verdict(strategy: Strategy, states: States) -> Verdict:
    """Decide what the deliveries amount to.

    ``delivered`` is said only when the strategy is fulfilled and nothing moves any more; an unknown outcome that
    matters for the strategy keeps the export with a person.
    """
    kinds = list(states.values())
    delivered, total = kinds.count(DeliveryState.DELIVERED), len(kinds)

    def result(state: ExportState) -> Verdict:
        return Verdict(state, delivered, total)

    if strategy is Strategy.FIRST_SUCCESS and delivered:
        return result(ExportState.DELIVERED)
    if not kinds or any(not kind.is_settled for kind in kinds):
        return result(ExportState.WAITING)
    if strategy is Strategy.ALL and delivered == total:
        return result(ExportState.DELIVERED)
    if strategy is Strategy.BEST_EFFORT and delivered:
        return result(ExportState.DELIVERED)
    return result(ExportState.UNKNOWN if DeliveryState.UNKNOWN in kinds else ExportState.DEAD)
