"""Programs that tests need from outside: a missing one is skipped with its cure here, and a failure in CI."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
_OURS = [ROOT / ".venv-deploy" / "bin", ROOT / "build" / "deploy-tools" / "usr" / "bin"]


def tool(name: str) -> str:
    """Return the path of a program, from the checkers' environment or the system."""
    places = os.pathsep.join([*map(str, _OURS), os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    found = shutil.which(name, path=places)
    if found is None:
        missing(f"{name} is not installed: `make test-deploy` installs it")
    return str(found)


def missing(reason: str) -> None:
    """Skip a test here; fail it where nothing may be left out."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def run(
    name: str, *arguments: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and return what it said."""
    return subprocess.run(
        [tool(name), *map(str, arguments)], cwd=cwd, env=dict(os.environ) | dict(env or {}),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
