"""Every request of every destination, hurt in every way: `make faults-requests`.

For each request of a delivery, real workers are killed before, during and after it, its answer is lost, and the
server answers 429, 500 or 503 or hangs. Prints a line for each case and a table at the end; exits 1 if a promise was
broken.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import pytest
from repositories import REPOSITORIES
from request_cases import MISFORTUNES, Case, cases


def main() -> int:
    """Play the cases and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=list(REPOSITORIES), help="this destination; repeatable")
    parser.add_argument("--misfortune", action="append", choices=list(MISFORTUNES), help="this one; repeatable")
    parser.add_argument("--request", action="append", type=int, help="the request of this number; repeatable")
    parser.add_argument(
        "--jobs", type=int, default=4, help="worlds at once, each with half of a destination's requests"
    )
    options = parser.parse_args()
    names, began = options.only or list(REPOSITORIES), time.monotonic()
    misfortunes = options.misfortune or list(MISFORTUNES)
    # Processes, for a world has its settings in the environment; spawned ones, for this one may have threads.
    with ProcessPoolExecutor(options.jobs, get_context("spawn")) as pool:
        halves = [(name, half) for name in names for half in range(2)]
        worlds = [pool.submit(play, name, half, misfortunes, options.request) for name, half in halves]
        played = [case for world in worlds for case in world.result()]
    broken = sum(len(case.broken_promises()) for case in played)
    print(f"\n{table(names, played)}")
    print(f"{len(played)} cases, {broken} broken promises, {time.monotonic() - began:.0f} s")
    return 1 if broken else 0


def play(name: str, half: int, misfortunes: Sequence[str], only: Sequence[int] | None) -> list[Case]:
    """Play every misfortune at every second request of one destination, from the first or from the second on."""
    played: list[Case] = []
    try:
        _play(name, half, misfortunes, only, played)
    except pytest.fail.Exception as error:  # which no process can hand to another
        played.append(Case(name, 0, "", "nothing", summary=f"its world ended: {error}"))
        print(f"{name}: BROKEN: {played[-1].summary}", flush=True)
    return played


def _play(name: str, half: int, misfortunes: Sequence[str], only: Sequence[int] | None, played: list[Case]) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="labrelay-", ignore_cleanup_errors=True) as folder,
        cases(Path(folder), [REPOSITORIES[name]()]) as world,
    ):
        if not half:
            print(f"{name}: {', '.join(world.requests(name))}", flush=True)
        for position in range(1 + half, len(world.requests(name)) + 1, 2):
            for misfortune in misfortunes if only is None or position in only else ():
                case = world.play(name, position, misfortune)
                played.append(case)
                broken = "".join(f"\n  BROKEN: {promise}" for promise in case.broken_promises())
                print(f"{case.line()}{broken}", flush=True)


def table(names: list[str], played: list[Case]) -> str:
    """Return the table of docs/reliability.md."""
    columns = ["destination", "requests", "cases", "workers killed", "delivered", "one whole object", "twice"]
    columns += ["asked again", "parked for a person"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name in names:
        own = [case for case in played if case.destination == name]
        counts = [
            max((case.position for case in own), default=0),
            len(own),
            sum(case.is_killed for case in own),
            sum(case.state == "delivered" for case in own),
            sum(case.is_whole for case in own),
            sum(len(case.kept) > 1 for case in own),
            sum(case.asked_again for case in own),
            sum(case.parked for case in own),
        ]
        lines.append(f"| {name} | {' | '.join(map(str, counts))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
