"""The bounded window of a stream: what waits, what is under way, and what gives way when there is no room. Pure."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """Something with an id and a size in bytes."""

    @property
    def number(self) -> int:
        """Its id, given once."""

    @property
    def size(self) -> int:
        """Bytes it occupies until it is acknowledged."""


Item = TypeVar("Item", bound=Sized)


@dataclass(frozen=True)
class Limits:
    """Bytes that may be under way (sent, not yet displayed) and that may wait behind them."""

    under_way: int = 64 << 20
    waiting: int = 256 << 20


class SendWindow(Generic[Item]):
    """First in, first out; bounded in bytes. A single item larger than a limit passes alone."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._waiting: deque[Item] = deque()
        self._under_way: OrderedDict[int, Item] = OrderedDict()
        self.waiting_bytes = 0
        self.under_way_bytes = 0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._under_way)

    @property
    def under_way(self) -> int:
        """How many are sent and not acknowledged as displayed."""
        return len(self._under_way)

    @property
    def waiting(self) -> int:
        """How many are not sent yet."""
        return len(self._waiting)

    def has_room(self, size: int) -> bool:
        """Return whether an item of this size may join without another one giving way."""
        return not self._waiting or self.waiting_bytes + size <= self._limits.waiting

    def add(self, item: Item) -> list[Item]:
        """Add an item; return those that gave way to it, oldest first."""
        dropped = []
        while not self.has_room(item.size):
            oldest = self._waiting.popleft()
            self.waiting_bytes -= oldest.size
            dropped.append(oldest)
        self._waiting.append(item)
        self.waiting_bytes += item.size
        return dropped

    def next(self) -> Item | None:
        """Return the next item to send, now under way, or None when the window is full or nothing waits."""
        if not self._waiting:
            return None
        size = self._waiting[0].size
        if self._under_way and self.under_way_bytes + size > self._limits.under_way:
            return None
        item = self._waiting.popleft()
        self.waiting_bytes -= size
        self.under_way_bytes += size
        self._under_way[item.number] = item
        return item

    def find(self, number: object) -> Item | None:
        """Return an item under way."""
        return self._under_way.get(number) if isinstance(number, int) else None

    def settle(self, number: object) -> Item | None:
        """Take an item out that was displayed or refused; None for one that is not under way (a late answer)."""
        item = self._under_way.pop(number, None) if isinstance(number, int) else None
        if item is not None:
            self.under_way_bytes -= item.size
        return item

    def clear(self) -> tuple[list[Item], list[Item]]:
        """Take everything out; return what was under way and what was waiting."""
        under_way, waiting = list(self._under_way.values()), list(self._waiting)
        self._under_way.clear()
        self._waiting.clear()
        self.under_way_bytes = self.waiting_bytes = 0
        return under_way, waiting
