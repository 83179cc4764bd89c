"""The ledger's Lua scripts: each is a file, with the shared prelude put before it."""

from __future__ import annotations

from importlib.resources import files


def script_source(package: str, name: str) -> str:
    """Return the source of ``lua/NAME.lua`` of a package, prelude included."""
    prelude = files("labrelay").joinpath("lua/prelude.lua").read_text()
    return prelude + files(package).joinpath(f"lua/{name}.lua").read_text()
