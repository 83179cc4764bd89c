"""A short run of the fault matrix (`make faults` runs the long one)."""

from __future__ import annotations

import pytest
from fault_plans import PLANS, run
from fault_world import CannotHere

pytestmark = [pytest.mark.faults, pytest.mark.integration]

SEED = 7


@pytest.mark.timeout(150)
@pytest.mark.parametrize("plan", PLANS)
def test_no_promise_breaks_while(plan):
    # Given a small world, when it is hurt by the plan and left alone
    try:
        figures = run(plan, SEED, size=0.3)
    except CannotHere as reason:
        pytest.skip(str(reason))
    print(figures.line())

    # Then nothing is lost, nothing arrives twice, nothing confirmed is asked again, and everything settles
    assert figures.submitted > 0
    assert not figures.broken_promises()
