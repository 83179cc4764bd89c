"""The whole fault matrix: `make faults`, or with seeds: `make faults SEEDS="1 2 3"`.

Prints one line of figures for each plan and seed; exits 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from fault_figures import Figures
from fault_plans import PLANS, run
from fault_world import CannotHere

#: By column, the field of `Figures` that stands there.
COLUMNS = {
    "plan": "plan", "seed": "seed", "submitted": "submitted", "delivered": "delivered", "lost": "lost",
    "twice": "twice", "asked again": "asked_again", "by a frozen worker": "asked_again_frozen",
    "arrived late": "arrived_late", "refused": "refused",
    "unknown": "unknown", "made again": "retried", "recovery s": "recovery_seconds",
}  # fmt: skip


def main() -> int:
    """Run the plans and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", nargs="*", type=int, default=[1], help="default: 1")
    parser.add_argument("--only", action="append", choices=list(PLANS), help="run this plan; may be repeated")
    parser.add_argument("--size", type=float, default=1.0, help="scales exports and faults")
    parser.add_argument("--jobs", type=int, default=3, help="plans at once, each in a world of its own; default: 3")
    parser.add_argument("--json", action="store_true", help="print JSON Lines")
    options = parser.parse_args()
    started, rows, broken = time.monotonic(), list[Figures](), 0
    wanted = [(name, seed) for seed in options.seeds for name in options.only or PLANS]
    # Processes of their own, for a plan may be the one that ends badly; most of the time a plan waits.
    with ProcessPoolExecutor(options.jobs, get_context("spawn")) as pool:
        playing = {pool.submit(run, name, seed, options.size): (name, seed) for name, seed in wanted}
        for played in as_completed(playing):
            name, seed = playing[played]
            try:
                figures = played.result()
            except CannotHere as reason:
                print(f"{name} seed={seed}: not played: {reason}", flush=True)
                continue
            except Exception as error:  # the other plans have figures to show
                broken += 1
                print(f"{name} seed={seed}: BROKEN: {type(error).__name__}: {error}", flush=True)
                continue
            rows.append(figures)
            print(json.dumps(figures.as_dict()) if options.json else figures.line(), flush=True)
            for promise in figures.broken_promises():
                broken += 1
                print(f"  BROKEN: {promise}", flush=True)
    if len(rows) > 1 and not options.json:
        print(f"\n{table(sorted(rows, key=lambda row: wanted.index((row.plan, row.seed))))}")
    print(f"{len(rows)} runs, {broken} broken promises, {time.monotonic() - started:.0f} s")
    return 1 if broken else 0


def table(rows: Sequence[Figures]) -> str:
    """Return the table of docs/reliability.md."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    for row in rows:
        cells = [getattr(row, field) for field in COLUMNS.values()]
        lines.append(f"| {' | '.join(f'{cell:.1f}' if isinstance(cell, float) else str(cell) for cell in cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
