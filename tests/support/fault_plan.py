"""A fault plan: hurts a world in one way, seeded and bounded, while exports are submitted and delivered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fault_world import CAN_BE_ASKED, World

from labrelay_worker.demo.receiver import Answer

EVERYWHERE = ("archive", *CAN_BE_ASKED)
THREADS, PREFORK = ("threads", 4), ("prefork", 2)
#: Hurts the world; the number scales exports and faults.
Plan = Callable[[World, float], None]
PLANS: dict[str, Plan] = {}


def plan(function: Plan) -> Plan:
    """Register a plan under its name."""
    PLANS[function.__name__] = function
    return function


@contextmanager
def under_load(w: World, count: int, seconds: float, *workers: tuple[str, int]) -> Iterator[None]:
    """Let workers (pool and concurrency of each) deliver to slow receivers what is submitted meanwhile."""
    slow(w, count)
    for pool, concurrency in workers:
        w.start_worker(pool, concurrency)
    with w.submitting(count, seconds, EVERYWHERE):
        yield


def slow(w: World, count: int, delay: float = 0.3) -> None:
    """Let receivers answer late, which widens the window between accepting and confirming."""
    w.misbehave({name: [Answer(delay=w.random.uniform(0, delay)) for _ in range(count * 2)] for name in CAN_BE_ASKED})
