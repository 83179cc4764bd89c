"""Throughput against worker processes, on the stage of the other benchmark."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.queue.stage import stage
from benchmarks.queue.variants import VARIANTS

_WARM_UP = 50


def throughput(workers: Sequence[int], contexts: int, rounds: int) -> dict[str, Any]:
    """Return contexts per second and CPU by number of worker processes; receiver and Redis take part of the cores."""
    found: dict[int, list[dict[str, float]]] = {count: [] for count in workers}
    for _ in range(rounds):
        for count in workers:
            found[count].append(_run(count, contexts))
    print(f"\nworker processes on {os.cpu_count()} cores, which Redis, producer and receiver share", flush=True)
    results: dict[str, Any] = {"cores": os.cpu_count()}
    for count, figures in found.items():
        ratios = [
            own["contexts/s"] / first["contexts/s"] for own, first in zip(figures, found[workers[0]], strict=True)
        ]
        middle = {key: statistics.median(each[key] for each in figures) for key in figures[0]}
        results[str(count)] = {**middle, "of the first": statistics.median(ratios)}
        print(
            f"  {count}: {middle['contexts/s']:6.0f} contexts/s ({results[str(count)]['of the first']:.2f} of "
            f"{workers[0]}), CPU s per 1000: workers {middle['workers']:.2f}, Redis {middle['redis']:.2f}, "
            f"{middle['bytes']:.0f} bytes and {middle['commands']:.0f} commands of Redis per context", flush=True,
        )  # fmt: skip
    return results


def _run(count: int, contexts: int) -> dict[str, float]:
    with stage(VARIANTS["labrelay_full"]) as s, s.workers(count):
        s.produce("bulk", first=20_000_000, count=_WARM_UP)
        before = s.until_answered(3 * (_WARM_UP + 1)) and 3 * (_WARM_UP + 1)
        used = s.usage()
        produced = s.produce("bulk", first=30_000_000, count=contexts)
        ended = s.until_answered(before + 3 * (contexts + 1))
        spent = s.usage().since(used)
        return {
            "contexts/s": contexts / (ended - produced["began"]),
            "workers": 1000 * spent.workers / contexts,
            "redis": 1000 * spent.redis / contexts,
            "bytes": spent.bytes / contexts,
            "commands": spent.commands / contexts,
        }
