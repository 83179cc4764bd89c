"""A client's connections, made when first used: Redis may start later than the pipeline that submits to it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, cast

from labrelay.archive import Archive
from labrelay.deadletters import DeadLetters
from labrelay.ledger import Ledger, connect
from labrelay.settings import ProducerSettings
from labrelay.wakeups import WakeUps, producer_app

if TYPE_CHECKING:
    import redis


class Link:
    """Ledger, dead letters and wake-ups of one Redis.

    Raises
    ------
    LedgerUnavailable
        From each: no Redis is configured and no embedded server runs.
    """

    def __init__(self, settings: ProducerSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._redis: redis.Redis | None = None
        self._ledger: Ledger | None = None
        self._dead_letters: DeadLetters | None = None
        self._wake_ups: WakeUps | None = None

    @property
    def ledger(self) -> Ledger:
        """The producer's half of the ledger."""
        with self._lock:
            if self._ledger is None:
                self._redis = connect(self._settings)
                self._ledger = Ledger(
                    self._redis,
                    self._settings.keys,
                    self._settings.wake_up_grace,
                    replicas=self._settings.required_replicas,
                )
            return self._ledger

    @property
    def dead_letters(self) -> DeadLetters:
        """The exports that need a person."""
        ledger = self.ledger
        with self._lock:
            if self._dead_letters is None:
                self._dead_letters = DeadLetters(
                    cast("redis.Redis", self._redis),
                    self._settings.keys,
                    ledger,
                    wake_up_grace=self._settings.wake_up_grace,
                    archive=Archive(self._settings.archive),
                )
            return self._dead_letters

    @property
    def wake_ups(self) -> WakeUps:
        """The publisher of wake-ups."""
        with self._lock:
            if self._wake_ups is None:
                self._wake_ups = WakeUps(producer_app(self._settings))
            return self._wake_ups

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            if self._wake_ups is not None:
                self._wake_ups.close()
            if self._redis is not None:
                self._redis.close()
