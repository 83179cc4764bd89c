"""Workers come and go under load, on hosts of their own: nothing is lost and nothing delivered twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from scaling import scale

pytestmark = pytest.mark.integration


@pytest.mark.timeout(400)
def test_from_one_worker_to_three_and_back_under_load_loses_and_repeats_nothing(
    tmp_path: Path, record_property: pytest.RecordProperty
) -> None:
    # Given Redis, a producer and workers, each on a host of its own, and a destination that takes its time
    # When two workers join under load, and leave again
    result = scale(tmp_path, sessions=3000, seconds=4, call_seconds=0.04, calls=4)

    # Then every export was delivered once, whichever worker had it
    print(result.table())
    record_property("scaling", result.table())
    assert (result.delivered, result.lost, result.twice) == (result.submitted, 0, 0)
    assert all(phase.delivered for phase in result.phases)
