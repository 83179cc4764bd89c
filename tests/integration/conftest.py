"""Fixtures of tests with real parts."""

import pytest
from lab import lab, wait_until

__all__ = ["lab"]


@pytest.fixture
def wait_for():
    """Return the function that awaits a condition."""
    return wait_until
