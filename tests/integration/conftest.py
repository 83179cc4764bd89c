"""Fixtures of tests with real parts."""

import pytest
from browser import browser
from lab import lab, wait_until
from watching import flower

__all__ = ["browser", "flower", "lab"]


@pytest.fixture
def wait_for():
    """Return the function that awaits a condition."""
    return wait_until
