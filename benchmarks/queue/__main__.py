"""labrelay beside its peers: ``make bench``, or ``python -m benchmarks.queue --rounds 3 --contexts 1000``.

Every round runs every queue once, on a fresh Redis with an append-only file and the same receiver; figures are
medians with their range, ratios are taken within a round and then the median of them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

from benchmarks.queue import page
from benchmarks.queue.chart import chart
from benchmarks.queue.phases import (
    Figures,
    Sizes,
    capacity_of_the_receiver,
    end_to_end_alone,
    every_phase,
    urgent_behind_a_backlog,
)
from benchmarks.queue.targets import TARGETS
from benchmarks.queue.variants import ABLATIONS, LIMITS, VARIANTS

Rounds = list[dict[str, Figures]]


def main() -> None:
    """Run the rounds; print tables, whether each claim holds and, on request, write JSON and the chart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contexts", type=int, default=1000, help="of the bulk phase")
    parser.add_argument("--singles", type=int, default=500)
    parser.add_argument("--enqueue", type=int, default=2000)
    parser.add_argument("--samples", type=int, default=40, help="of the latencies")
    parser.add_argument("--backlog", type=int, default=10_000, help="bulk exports that urgent ones pass; 0: none")
    parser.add_argument("--only", action="append", choices=list(VARIANTS), help="may be repeated")
    parser.add_argument("--ablation", action="store_true", help="instead: labrelay with one step taken out at a time")
    parser.add_argument("--json", type=Path, help="write every figure of every round here")
    parser.add_argument("--chart", type=Path, help="write an SVG here")
    parser.add_argument("--page", type=Path, help="write the figures into this page, e.g. docs/performance.md")
    options = parser.parse_args()
    sizes = Sizes(options.contexts, options.singles, options.enqueue, options.samples, options.backlog)
    rounds = _ablation(options.rounds, sizes) if options.ablation else _beside(options, sizes)
    if options.page and options.ablation:
        page.write_ablation(options.page, rounds, f"{sizes.contexts} contexts each")
    elif options.page:
        said = f"{sizes.contexts} contexts in bulk, {sizes.singles} one by one, {sizes.samples} latencies each"
        page.write(options.page, rounds, said)
    if options.json:
        options.json.write_text(json.dumps(rounds, indent=1) + "\n")


def _beside(options: argparse.Namespace, sizes: Sizes) -> Rounds:
    names = options.only or list(VARIANTS)
    for name in names:
        VARIANTS[name].prepare()
    rounds: Rounds = []
    for number in range(options.rounds):
        began = time.monotonic()
        rounds.append({})
        capacity = capacity_of_the_receiver(VARIANTS["raw_streams_lean"])
        print(f"round {number + 1}: the receiver alone answers {capacity:.0f} requests/s", flush=True)
        for name in _there_and_back(names, number):
            figures = every_phase(VARIANTS[name], sizes)
            if name == "labrelay_full" and sizes.backlog and number == 0:
                figures |= urgent_behind_a_backlog(VARIANTS[name], sizes)
            rounds[-1][name] = figures | {"receiver alone, requests/s": capacity}
            print(f"round {number + 1} {name}: bulk {figures['bulk: contexts/s']:.0f}/s, single "
                  f"{figures['single: contexts/s']:.0f}/s, CPU {figures['bulk: CPU s per 1000']:.2f} s per 1000, "
                  f"idle to done {figures['idle to done p50 ms']:.0f} ms", flush=True)  # fmt: skip
        print(f"round {number + 1} took {time.monotonic() - began:.0f} s", flush=True)
    report(rounds, names)
    print()
    for target in TARGETS:
        print(target.judge(rounds))
    if options.chart:
        options.chart.write_text(chart(rounds, names))
    return rounds


def _there_and_back(names: list[str], number: int) -> list[str]:
    """Return who comes when in a round: a machine that slows down slows down the same ones in no two rounds."""
    return names if number % 2 == 0 else names[::-1]


def _ablation(count: int, sizes: Sizes) -> Rounds:
    rounds: Rounds = []
    variants = {"everything": VARIANTS["labrelay_full"], **ABLATIONS}
    for number in range(count):
        rounds.append({})
        for name in _there_and_back(list(variants), number):
            rounds[-1][name] = end_to_end_alone(variants[name], sizes)
            print(f"round {number + 1} {name}: {rounds[-1][name]['bulk: contexts/s']:.0f}/s", flush=True)
    for key in ("bulk: contexts/s", "bulk: CPU s per 1000", "bulk: of it workers", "bulk: of it Redis"):
        print(f"\n{key}")
        for name in variants:
            values = [each[name][key] for each in rounds]
            ratio = statistics.median(each[name][key] / each["everything"][key] for each in rounds)
            print(f"  {_median(name, values)}   {ratio:6.2f} of everything")
    return rounds


def report(rounds: Rounds, names: list[str]) -> None:
    """Print medians with their range, and ratios to the raw consumers of the same round."""
    for key in dict.fromkeys(key for name in names for key in rounds[0][name]):
        print(f"\n{key}")
        for name in names:
            values = [each[name][key] for each in rounds if key in each[name]]
            if values:
                print(f"  {_median(name, values)}" + "".join(_ratio(rounds, name, key, limit) for limit in LIMITS))


def _median(name: str, values: list[float]) -> str:
    return f"{name:22s} {statistics.median(values):10.2f}  ({min(values):.2f}-{max(values):.2f})"


def _ratio(rounds: Rounds, name: str, key: str, limit: str) -> str:
    ratios = [
        each[name][key] / each[limit][key]
        for each in rounds
        if name != limit and key in each[name] and each.get(limit, {}).get(key)
    ]
    return f"   {statistics.median(ratios):6.2f} of {limit}" if ratios else ""


if __name__ == "__main__":
    main()
