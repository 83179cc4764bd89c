"""Fixtures that several unit tests share."""

from cdcs_parts import cdcs

__all__ = ["cdcs"]
