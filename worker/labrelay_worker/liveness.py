"""How alive a destination seems by the answers to one process's calls. Pure; its clock is handed in."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Collection

#: Calls that have been out for so long (seconds) without any answer are a first sign that nobody will answer: twice
#: as long as its calls usually last, within these limits.
_SILENCE, _LONGEST_SILENCE = 0.5, 5.0
#: So many calls in a row without an answer, and there is nothing to wait for.
_HOPELESS = 3
#: Weight of the newest answer in how long calls usually last.
_NEWEST = 0.1
#: After so many seconds half of the calls that were at once count, after twice as many a quarter, and so on.
_HALF_LIFE = 10.0


def trusted(risk: int, lately: float) -> int:
    """Return how many calls at once are trusted to a destination that answers, and had so many at once lately.

    Examples
    --------
    >>> trusted(3, lately=1), trusted(3, lately=20)
    (5, 43)
    """
    return risk + round(2 * lately)


def lately(at_once: float, seconds: float) -> float:
    """Return how many of so many calls at once, that long ago, still count.

    It is the most that counts, not the mean: exports come in bursts, and at the end of each the calls are few.

    Examples
    --------
    >>> [lately(100, seconds) for seconds in (0, 9, 10, 60)]
    [100, 100, 50.0, 1.5625]
    """
    return at_once if seconds < _HALF_LIFE else at_once * 0.5 ** (seconds // _HALF_LIFE)


class Liveness:
    """What answers, and their absence, say of a destination.

    One that has not answered yet, or falls silent, is met carefully: as many calls as may fail begin at once, and as
    many again each time the silence has lasted twice as long, so that one that is down meets a handful of calls and
    one that is only slow some more. An answer lets more than twice as many begin as there have been lately: in a few
    answers that is every place, and one that dies takes few with it.

    Parameters
    ----------
    clock
        Seconds, from any origin.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._answers, self._doubts = False, 0
        self._at_once, self._at_once_since, self._usual = 0.0, 0.0, 0.0
        self._silence = _SILENCE
        self._heard_at = 0.0

    @property
    def answers(self) -> bool:
        """Whether it has answered since it was last in doubt."""
        return self._answers

    @property
    def is_hopeless(self) -> bool:
        """Whether several calls in a row have ended without an answer."""
        return self._doubts >= _HOPELESS

    @property
    def until_silence(self) -> float:
        """Seconds until it counts as silent if nothing is heard, negative if it does."""
        return self._silence - self.quiet()

    def answered(self, seconds: float, running: int, *, more_wait: bool = False) -> None:
        """Take note of a confirmed call that lasted so long, among so many at once, while others wait or not."""
        self._usual += (_NEWEST if self._usual else 1) * (seconds - self._usual)
        self._silence = min(max(2 * self._usual, _SILENCE), _LONGEST_SILENCE)
        self._answers, self._doubts = True, 0
        self._heard_at = now = self._clock()
        if (at_once := 2 * running if more_wait else running) >= lately(self._at_once, now - self._at_once_since):
            self._at_once, self._at_once_since = at_once, now

    def heard(self) -> None:
        """Take note of a sign of life, or that there has been nothing to answer until now."""
        self._heard_at = self._clock()

    def doubt(self) -> None:
        """Take note that it must answer anew before it is trusted, and what it answered before counts no more."""
        self._answers, self._at_once = False, 0.0
        self._doubts += 1

    def quiet(self) -> float:
        """Return for how many seconds nothing has been heard."""
        return self._clock() - self._heard_at

    def is_silent(self, share: float = 1.0) -> bool:
        """Return whether nothing has been heard for this share of the time that makes it silent."""
        return self._clock() - self._heard_at >= share * self._silence

    def next_handful(self) -> float:
        """Return in how many seconds of silence more calls may begin."""
        quiet = self.quiet()
        return self._silence * 2.0 ** (self._handfuls(quiet) - 1) - quiet

    def room(self, risk: int, began: Collection[float]) -> int:
        """Return how many calls may begin beside those that began at these times, when so many may fail."""
        now = self._clock()
        quiet = now - self._heard_at if began else 0.0
        if self._answers and quiet < self._silence:
            return trusted(risk, lately(self._at_once, now - self._at_once_since)) - len(began)
        return risk * self._handfuls(quiet) - sum(at >= self._heard_at for at in began)

    def _handfuls(self, quiet: float) -> int:
        return 1 if quiet < self._silence else 2 + int(math.log2(quiet / self._silence))


class AttendedClock:
    """The time in which the running loop was not behind, and could have heard an answer."""

    _TICK, _LONGEST = 0.05, 0.1

    def __init__(self) -> None:
        self._counted = 0.0
        self._ticked: float | None = None

    def __call__(self) -> float:
        """Return seconds; those before `run` begins all count."""
        now = time.monotonic()
        if self._ticked is None:
            return now
        passed = now - self._ticked
        return self._counted + (passed if passed < self._LONGEST else self._LONGEST)

    async def run(self) -> None:
        """Count until cancelled."""
        self._counted = self._ticked = time.monotonic()
        while True:
            await asyncio.sleep(self._TICK)
            self._counted, self._ticked = self(), time.monotonic()
