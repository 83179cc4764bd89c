"""The ledger's Lua scripts: each is a file, with the shared prelude and the names it needs put before it."""

from __future__ import annotations

from importlib.resources import files

from labrelay.names import EXPORTS_PER_WAKE_UP, QUEUE_EXPORTS
from labrelay.priorities import Priority


def script_source(package: str, name: str) -> str:
    """Return the source of ``lua/NAME.lua`` of a package, prelude included."""
    names = f"local exports_per_wake_up, wake_up_queue = {EXPORTS_PER_WAKE_UP}, '{QUEUE_EXPORTS}'\n"
    names += f"local priorities = {{{', '.join(repr(str(priority)) for priority in Priority)}}}\n"
    prelude = files("labrelay").joinpath("lua/prelude.lua").read_text()
    return names + prelude + files(package).joinpath(f"lua/{name}.lua").read_text()
