"""A fault plan: hurts a world in one way, seeded and bounded, while exports are submitted and delivered."""

from __future__ import annotations

from collections.abc import Callable

from fault_world import CAN_BE_ASKED, World

from labrelay_worker.demo.receiver import Answer

EVERYWHERE = ("archive", *CAN_BE_ASKED)
#: Hurts the world; the number scales exports and faults.
Plan = Callable[[World, float], None]
PLANS: dict[str, Plan] = {}


def plan(function: Plan) -> Plan:
    """Register a plan under its name."""
    PLANS[function.__name__] = function
    return function


def slow(w: World, count: int, delay: float = 0.3) -> None:
    """Let receivers answer late, which widens the window between accepting and confirming."""
    w.misbehave({name: [Answer(delay=w.random.uniform(0, delay)) for _ in range(count * 2)] for name in CAN_BE_ASKED})
