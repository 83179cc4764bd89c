"""What labrelay claims, as ratios within a round: each with the figure that was seen."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.queue.variants import PEERS

Figures = Mapping[str, float]
Round = Mapping[str, Figures]
_US, _LIMIT = "labrelay_full", "raw_streams_lean"
#: Peers that keep what a dead worker had (facts of their documentation; none was crash-tested here).
_DURABLE = tuple(name for name in PEERS)


@dataclass(frozen=True)
class Target:
    """One claim."""

    text: str
    wanted: float
    #: Whether the ratio must be at most what is wanted, else at least.
    at_most: bool
    ratio: Callable[[Round], float | None]

    def judge(self, rounds: Sequence[Round]) -> str:
        """Return the claim with its median ratio, the range, and whether it holds."""
        seen = [ratio for each in rounds if (ratio := self.ratio(each)) is not None]
        if not seen:
            return f"not run: {self.text}"
        middle = statistics.median(seen)
        holds = middle <= self.wanted if self.at_most else middle >= self.wanted
        said = "holds" if holds else "does not hold"
        sign = "<=" if self.at_most else ">="
        return f"{said}: {self.text} {middle:.2f} ({min(seen):.2f}-{max(seen):.2f}), wanted {sign} {self.wanted:g}"


def _of(each: Round, name: str, key: str) -> float | None:
    return each.get(name, {}).get(key)


def _to_best_peer(key: str, best: Callable[[list[float]], float]) -> Callable[[Round], float | None]:
    def ratio(each: Round) -> float | None:
        ours = _of(each, _US, key)
        peers = [value for name in _DURABLE if (value := _of(each, name, key)) is not None]
        return ours / best(peers) if ours is not None and peers else None

    return ratio


def _to_limit(key: str) -> Callable[[Round], float | None]:
    def ratio(each: Round) -> float | None:
        ours, limit = _of(each, _US, key), _of(each, _LIMIT, key)
        return ours / limit if ours is not None and limit else None

    return ratio


def _own(over: str, under: str) -> Callable[[Round], float | None]:
    def ratio(each: Round) -> float | None:
        first, second = _of(each, _US, over), _of(each, _US, under)
        return first / second if first is not None and second else None

    return ratio


TARGETS = (
    Target("bulk, contexts/s / fastest peer", 2.5, False, _to_best_peer("bulk: contexts/s", max)),
    Target("bulk, contexts/s / raw with our client", 0.9, False, _to_limit("bulk: contexts/s")),
    Target("single, contexts/s / fastest peer", 1.8, False, _to_best_peer("single: contexts/s", max)),
    Target("single, contexts/s / raw with our client", 0.75, False, _to_limit("single: contexts/s")),
    Target("bulk enqueue / fastest peer", 2.0, False, _to_best_peer("enqueue: bulk /s", max)),
    Target("bulk enqueue / pipelined LPUSH", 0.6, False, _own("enqueue: bulk /s", "enqueue: LPUSH pipelined /s")),
    Target(
        "single submit p50 / bare apply_async", 1.3, True,
        _own("enqueue: single p50 ms", "enqueue: bare apply_async p50 ms"),
    ),
    Target("idle to done p50 / fastest peer", 1.5, True, _to_best_peer("idle to done p50 ms", min)),
    Target("bulk, CPU / leanest peer", 1.0, True, _to_best_peer("bulk: CPU s per 1000", min)),
    Target("single, CPU / leanest peer", 1.0, True, _to_best_peer("single: CPU s per 1000", min)),
    Target(
        "urgent behind the backlog p50 / idle", 2.0, True,
        _own("urgent, behind the backlog p50 ms", "urgent, idle p50 ms"),
    ),
)  # fmt: skip
