"""What became of one item that was offered to a viewer, and the counts over all of them."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from labrelay_worker.viewers.frames import Message


class Fate(StrEnum):
    """Where an item stands."""

    PENDING = "pending"  # waiting, or under way
    DISPLAYED = "displayed"  # the viewer drew it, and what it holds is what was sent
    REFUSED = "refused"  # the viewer cannot show it
    DROPPED = "dropped"  # it gave way, or the viewer went: nobody knows it as shown


@dataclass
class Ticket:
    """One offered item. `received` is the viewer's word that the bytes are there; `fate` how it ended."""

    number: int
    name: str
    message: Message
    fate: Fate = Fate.PENDING
    reason: str = ""
    received: bool = False
    size: int = 0
    digest: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)

    def end(self, fate: Fate, reason: str = "") -> None:
        """Settle it, once, and let go of the pixels."""
        if self.fate is Fate.PENDING:
            self.fate, self.reason = fate, reason
            self.message = Message(self.message.kind, {})
            self._ended.set()

    def wait(self, deadline: float) -> Fate:
        """Return its fate, at the latest at the deadline (monotonic seconds)."""
        self._ended.wait(max(0.0, deadline - time.monotonic()))
        return self.fate


@dataclass
class Tally:
    """Counts over items; the reason of the last item that was not shown."""

    counts: Counter[Fate] = field(default_factory=Counter)
    received: int = 0
    reason: str = ""

    @classmethod
    def of(cls, tickets: Iterable[Ticket]) -> Tally:
        """Return the counts of these tickets as they stand."""
        tally = cls()
        for ticket in tickets:
            tally.counts[ticket.fate] += 1
            tally.received += ticket.received or ticket.fate in (Fate.DISPLAYED, Fate.REFUSED)
            tally.reason = ticket.reason or tally.reason
        return tally

    @property
    def offered(self) -> int:
        """How many there are."""
        return self.counts.total()

    def __str__(self) -> str:
        parts = [f"{self.counts[Fate.DISPLAYED]} of {self.offered} displayed"]
        for fate, word in ((Fate.PENDING, "still under way"), (Fate.DROPPED, "dropped"), (Fate.REFUSED, "refused")):
            if self.counts[fate]:
                parts.append(f"{self.counts[fate]} {word}")
        return ", ".join(parts) + (f" ({self.reason})" if self.reason else "")
