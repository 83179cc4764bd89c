"""What an audit finds of one delivery: there and equal, missing, different, or not to be known."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Mark(StrEnum):
    """One sign a delivery, as `labrelay check` prints it."""

    EQUAL = "="
    MISSING = "-"
    DIFFERS = "*"
    UNKNOWN = "!"


@dataclass(frozen=True)
class Finding:
    """What a destination says of something it confirmed earlier.

    Parameters
    ----------
    mark
        How it stands.
    said
        In words what was compared, what is missing or what differs.
    kind
        Of `Mark.UNKNOWN` only: `CANNOT_BE_ASKED`, or the kind of the error that asking ended in.
    """

    mark: Mark
    said: str
    kind: str = ""


#: Kind of a finding that no later audit will better: by its nature the destination cannot be asked.
CANNOT_BE_ASKED = "cannot_be_asked"
#: Kind of a finding about a destination that is paused, down or not served here: nobody asked it.
NOT_ASKED = "not_asked"


def equal(said: str) -> Finding:
    """Return that it is there as it was delivered."""
    return Finding(Mark.EQUAL, said)


def missing(said: str) -> Finding:
    """Return that it is not there any more."""
    return Finding(Mark.MISSING, said)


def differs(said: str) -> Finding:
    """Return that something else, or a part, is there."""
    return Finding(Mark.DIFFERS, said)


def cannot_be_asked(said: str) -> Finding:
    """Return that nobody can find out."""
    return Finding(Mark.UNKNOWN, said, CANNOT_BE_ASKED)
