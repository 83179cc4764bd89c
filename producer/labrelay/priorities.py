"""Which exports go first: three classes, each a queue of its own that a worker takes in this order."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from enum import StrEnum
from fnmatch import fnmatchcase

from labrelay.errors import InvalidInput


class Priority(StrEnum):
    """How soon an export is taken when many wait. The order of the members is the order of the queues."""

    URGENT = "urgent"  # overtakes everything, and has places of its own in a worker that is full
    NORMAL = "normal"  # one session that an instrument has just finished
    BULK = "bulk"  # many at once: what nobody waits for

    @property
    def rank(self) -> int:
        """0 goes first."""
        return _RANKS[self]


_RANKS = {priority: rank for rank, priority in enumerate(Priority)}


def parse_priority(text: str) -> Priority:
    """Return the priority of that name.

    Raises
    ------
    InvalidInput
        There is none; the text suggests the nearest.
    """
    try:
        return Priority(text)
    except ValueError:
        near = difflib.get_close_matches(text.lower(), list(Priority), n=1)
        hint = f"Did you mean {near[0]}?" if near else f"Use one of {', '.join(Priority)}"
        raise InvalidInput("priority", f"there is no priority {text!r}", hint) from None


def usual_priority(together: int) -> Priority:
    """Return what holds where nobody says otherwise for so many sessions that are submitted together.

    What comes in many at once shall not delay the session that has just ended.
    """
    return Priority.NORMAL if together == 1 else Priority.BULK


def priority_of(instrument: str, by_instrument: Mapping[str, Priority], otherwise: Priority) -> Priority:
    """Return the priority that the settings give an instrument: the first pattern that matches, else `otherwise`.

    Examples
    --------
    >>> str(priority_of("FEI-Titan", {"FEI-*": Priority.URGENT}, Priority.NORMAL))
    'urgent'
    """
    return next((p for pattern, p in by_instrument.items() if fnmatchcase(instrument, pattern)), otherwise)
