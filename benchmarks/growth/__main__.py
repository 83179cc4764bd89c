"""How costs grow with the ledger and with workers: ``make bench-growth``; ``--help`` lists the sizes.

Servers with ledgers of every size stand side by side, and every round makes every call at every size: ratios are
taken within a round, figures are medians. Redis writes no file here: an append-only file costs the same at every
size, and its rewrites cost what the ledger's size makes them cost (`docs/scaling.md`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.growth import cores, fill
from benchmarks.growth.calls import CYCLES, Costs
from benchmarks.growth.exports import FIRST_NUMBER, MIX, Site, entry
from benchmarks.growth.plot import Curve, log_log
from benchmarks.growth.servers import memory, redis_server, rewrite

Figures = dict[str, Any]


class Theatre:
    """Where sites are made; each has a server of its own."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._runner = stack.enter_context(asyncio.Runner())
        self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="growth-")))

    def site(self) -> Site:
        """Return a site with an empty ledger."""
        site = Site(self._stack.enter_context(redis_server()), self._runner, self._folder)
        self._stack.callback(site.close)
        return site


def bytes_per_export(theatre: Theatre, count: int) -> Figures:
    """Return what Redis holds per export at each stage, indexes included, and over the context's JSON."""
    context = len(entry(FIRST_NUMBER).context.encode())
    found: Figures = {"context": context}
    for stage in (*MIX, "archived"):
        site = theatre.site()
        site.bring_to(stage, [FIRST_NUMBER - 1])  # scripts and the first keys of everything are outside the figures
        before = memory(site.redis)
        site.bring_to(stage, range(FIRST_NUMBER, FIRST_NUMBER + count))
        used = (memory(site.redis) - before) / count
        found[stage] = {"bytes": used, "of context": used / context}
        print(f"  {stage:10s} {used:6.0f} bytes in Redis, {used / context:.2f} of the context's JSON", flush=True)
    return found


def costs_by_size(theatre: Theatre, sizes: Sequence[int], rounds: int) -> Figures:
    """Return the cost of every call at every size."""
    templates = fill.make_templates(theatre.site())
    alike = fill.check(theatre.site(), theatre.site(), templates)
    print("  copies / real exports in memory: " + ", ".join(f"{k} {v:.2f}" for k, v in alike.items()), flush=True)
    costs: list[Costs] = []
    filled: list[Figures] = []
    for size in sizes:
        site, began = theatre.site(), time.monotonic()
        before = memory(site.redis)
        costs.append(Costs(site, fill.fill_mix(site, templates, size)))
        filled.append({"seconds": time.monotonic() - began, "bytes per export": (memory(site.redis) - before) / size})
        print(
            f"  {size} exports in {filled[-1]['seconds']:.0f} s, {filled[-1]['bytes per export']:.0f} bytes each",
            flush=True,
        )
    for number in range(rounds + 1):
        # Each round begins at another size, so that none always follows the same neighbour.
        for index in range(len(costs)):
            costs[(index + number) % len(costs)].measure()
    calls = {name: _by_size(name, sizes, costs) for name in costs[0].found}
    rewrites = [rewrite(cost.site.redis) for cost in costs]
    return {
        "fill": dict(zip(map(str, sizes), filled, strict=True)),
        "copies of real": alike,
        "calls": calls,
        "rewrite": dict(zip(map(str, sizes), rewrites, strict=True)),
    }


def _by_size(name: str, sizes: Sequence[int], costs: Sequence[Costs]) -> Figures:
    found: Figures = {}
    first = costs[0].found[name][1:]  # the first round warms up
    for size, cost in zip(sizes, costs, strict=True):
        own = cost.found[name][1:]
        ratios = [each.caller / base.caller for each, base in zip(own, first, strict=True)]
        found[str(size)] = {
            "caller us": statistics.median(each.caller for each in own),
            "redis us": statistics.median(each.redis for each in own),
            "ratio": statistics.median(ratios),
            "ratio range": [min(ratios), max(ratios)],
        }
    return found


def show(calls: Figures, sizes: Sequence[int]) -> None:
    """Print a table of the calls."""
    print(f"\n{'call':24s}" + "".join(f"{size:>12d}" for size in sizes) + "   ratio (range)    Redis us")
    for name, by_size in calls.items():
        figures = [by_size[str(size)] for size in sizes]
        low, high = figures[-1]["ratio range"]
        redis_us = " ".join(f"{each['redis us']:.0f}" for each in figures)
        print(
            f"{name:24s}" + "".join(f"{each['caller us']:12.0f}" for each in figures)
            + f"   {figures[-1]['ratio']:.2f} ({low:.2f}-{high:.2f})   {redis_us}"
        )  # fmt: skip
    print(
        f"microseconds for the caller; the ratio is the largest size over the smallest; a minute is {CYCLES} cycles"
    )


def main() -> None:
    """Run it all; print tables, and write JSON and the plot on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--exports", type=int, default=1000, help="for the bytes of each stage")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4], help="processes; none: leave them out")
    parser.add_argument("--contexts", type=int, default=2000, help="for the throughput of each number of workers")
    parser.add_argument("--worker-rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write every figure here")
    parser.add_argument("--plot", type=Path, help="write the log-log plot here, as SVG")
    options = parser.parse_args()
    results: Figures = {}
    with ExitStack() as stack:
        print("bytes in Redis", flush=True)
        results["memory"] = bytes_per_export(Theatre(stack), options.exports)
    with ExitStack() as stack:
        print("cost by size", flush=True)
        results |= costs_by_size(Theatre(stack), options.sizes, options.rounds)
    show(results["calls"], options.sizes)
    for size, took in results["rewrite"].items():
        print(
            f"append-only file of {size}: {took['file MiB']:.0f} MiB for {took['memory MiB']:.0f} MiB of memory, "
            f"written anew in {took['seconds']:.1f} s, Redis standing still for {took['fork ms']:.0f} ms", flush=True,
        )  # fmt: skip
    if options.workers:
        results["workers"] = cores.throughput(options.workers, options.contexts, options.worker_rounds)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    if options.plot:
        shown = ("list the last 50", "submit", "claim", "status", "sweep, nothing due")
        options.plot.write_text(
            log_log(
                [
                    Curve(name, [(s, results["calls"][name][str(s)]["caller us"]) for s in options.sizes])
                    for name in shown
                ],
                "exports in the ledger",
                "microseconds for the caller",
            )
        )


if __name__ == "__main__":
    main()
