"""Every fault plan, and how one is run."""

from __future__ import annotations

import fault_plans_processes
import fault_plans_surroundings
from fault_figures import Figures
from fault_plan import PLANS
from fault_settling import settle
from fault_world import world

__all__ = ["PLANS", "fault_plans_processes", "fault_plans_surroundings", "run"]


def run(name: str, seed: int, size: float = 1.0) -> Figures:
    """Run one plan and return its figures; `size` scales exports and faults."""
    with world(name, seed) as made:
        PLANS[name](made, size)
        return settle(made)
