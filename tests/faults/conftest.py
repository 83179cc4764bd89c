"""Fixtures of tests with real parts."""

from lab import lab

__all__ = ["lab"]
