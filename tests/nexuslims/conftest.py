"""What the tests with the real NexusLIMS package need: its environment, its servers, its folders and database."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import Lab, lab
from nexus_servers import Servers, start
from nexus_site import Site

__all__ = ["lab"]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def nexuslims_python() -> Path:
    """The interpreter of the environment with NexusLIMS; made when it is not there, so that nothing is skipped."""
    with (ROOT / ".venv-nexuslims.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes, one environment
        subprocess.run(
            ["make", "--silent", ".venv-nexuslims/.ready", f"PYTHON={getattr(sys, '_base_executable', 'python3')}"],
            cwd=ROOT, check=True, timeout=900,
        )  # fmt: skip
    return ROOT / ".venv-nexuslims" / "bin" / "python"


@pytest.fixture
def servers() -> Iterator[Servers]:
    with start() as running:
        yield running


@pytest.fixture
def site(lab: Lab, servers: Servers, nexuslims_python: Path) -> Site:
    """One facility that runs NexusLIMS, and a lab beside it."""
    return Site.build(lab, servers, nexuslims_python)
