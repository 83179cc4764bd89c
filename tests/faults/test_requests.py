"""A few cases of the matrix of requests (`make faults-requests` plays them all)."""

from __future__ import annotations

import random

import pytest
from repositories import REPOSITORIES
from request_cases import MISFORTUNES, cases

pytestmark = [pytest.mark.faults, pytest.mark.integration]

SEED = 7


@pytest.mark.timeout(150)
@pytest.mark.parametrize("name", REPOSITORIES)
def test_one_whole_object_is_left_whatever_befalls_a_request(name, tmp_path):
    # Given a repository and workers that deliver to it
    chosen = random.Random(f"{SEED} {name}")
    with cases(tmp_path, [REPOSITORIES[name]()]) as world:
        last = len(world.requests(name))
        # The requests that make an object are where a second one could come from.
        makes = [n for n, request in enumerate(world.requests(name), 1) if not request.startswith("GET /rest")]
        for misfortune in ["killed during", "answer lost", chosen.choice([*MISFORTUNES])]:
            # When a request of a delivery is hurt and everything is left alone
            case = world.play(name, chosen.choice(makes or [last]), misfortune)
            print(case.line())

            # Then there is one whole object of the session, and nothing was asked after it was confirmed
            assert not case.broken_promises()
