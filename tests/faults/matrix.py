"""The whole fault matrix: `make faults`, or with seeds: `make faults SEEDS="1 2 3"`.

Prints one line of figures for each plan and seed; exits 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from fault_plans import PLANS, run


def main() -> int:
    """Run the plans and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", nargs="*", type=int, default=[1], help="default: 1")
    parser.add_argument("--only", action="append", choices=list(PLANS), help="run this plan; may be repeated")
    parser.add_argument("--size", type=float, default=1.0, help="scales exports and faults")
    parser.add_argument("--json", action="store_true", help="print JSON Lines")
    parser.add_argument("--markdown", action="store_true", help="print a table for docs/reliability.md")
    options = parser.parse_args()
    broken, started, rows = 0, time.monotonic(), []
    for seed in options.seeds:
        for name in options.only or PLANS:
            figures = run(name, seed, options.size)
            rows.append(figures)
            print(json.dumps(figures.as_dict()) if options.json else figures.line(), flush=True)
            for promise in figures.broken_promises():
                broken += 1
                print(f"  BROKEN: {promise}", flush=True)
    if options.markdown:
        columns = ["plan", "seed", "submitted", "delivered", "lost", "twice", "asked again", "by a frozen worker"]
        columns += ["unknown", "recovery s"]
        print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
        for f in rows:
            print(
                f"| {f.plan} | {f.seed} | {f.submitted} | {f.delivered} | {f.lost} | {f.twice} | {f.asked_again} "
                f"| {f.asked_again_frozen} | {f.unknown} | {f.recovery_seconds:.1f} |"
            )
    print(f"{len(rows)} runs, {broken} broken promises, {time.monotonic() - started:.0f} s")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
