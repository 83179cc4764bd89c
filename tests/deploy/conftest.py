"""Fixtures of the deployment's tests."""

import subprocess
from pathlib import Path

import pytest
from deployed import lab, server
from tools import ROOT

__all__ = ["lab", "server"]


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """The folder of secrets as `deploy/make-secrets.sh` makes it."""
    folder = tmp_path / "secrets"
    made = subprocess.run(
        ["bash", ROOT / "deploy" / "make-secrets.sh", folder, "127.0.0.1:PORT"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    return folder
