"""What the receivers of a fault plan remember: when each POST arrived, and how often each export was accepted."""

from __future__ import annotations

import time
from collections import Counter

from labrelay_worker.demo.inbox import Delivery, Inbox, Stored
from labrelay_worker.demo.posted import Posted


class TimedInbox(Inbox):
    """Remembers when each POST arrived."""

    def __init__(self) -> None:
        super().__init__()
        self.arrivals: list[tuple[float, Delivery]] = []
        #: How often each export was accepted at each path, keys not honoured.
        self.acceptances: Counter[tuple[str, str]] = Counter()

    def behave(self) -> None:
        """Forget every misbehaviour that is still lined up."""
        with self._lock:
            self._scripts.clear()

    def accept(self, path: str, key: str | None, posted: Posted, base_url: str) -> tuple[Stored, bool]:
        self.acceptances[path, str(key).partition(".")[0]] += 1
        return super().accept(path, key, posted, base_url)

    def note(self, delivery: Delivery) -> None:
        self.arrivals.append((time.time(), delivery))
        super().note(delivery)
