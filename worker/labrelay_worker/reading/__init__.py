"""Instrument files as arrays with axes, units and pixel sizes."""
