"""One bad plugin takes no other down, and people see why it is not there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

BAD = Path(__file__).parents[1] / "plugins_bad"


def test_bad_plugins_are_listed_with_reasons_and_the_others_work(lab):
    # Given a plugin folder with a broken plugin, one with a missing dependency, one that claims a taken name,
    # and a good one
    environment = lab.environment | {"LABRELAY_PLUGIN_PATH": str(BAD)}

    # When the destinations are listed
    answer = subprocess.run(
        [sys.executable, "-m", "labrelay", "destinations", "--json"],
        env=environment, cwd=lab.folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    listing = json.loads(answer.stdout)
    reasons = {plugin["name"]: plugin["reason"] for plugin in listing["unavailable"]}

    # Then the first two are there with their reasons, the third is refused by name, and the good one works
    assert "cannot be imported" in reasons["broken"]
    assert "a_package_nobody_has" in reasons["needs_missing"]
    assert "'webhook' is already taken" in reasons["webhook"]
    assert len(listing["unavailable"]) == 3
    assert {info["name"]: info["enabled"] for info in listing["destinations"]}["works"] is True


def test_a_worker_with_bad_plugins_delivers_to_the_others(lab):
    # Given a worker with the bad plugins beside a recorder
    lab.recorder("one")
    lab.start_worker(LABRELAY_PLUGIN_PATH=f"{BAD}:{BAD.parent / 'plugins'}")

    # When a session is sent to the recorder
    with lab.client() as client:
        export_id = client.submit(lab.session(), destinations=["one"]).export_id

    # Then it arrives
    assert lab.finished(export_id).summary == "1 of 1 delivered"
