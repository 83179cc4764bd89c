"""What one queue is put through, and the figures that come of it."""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass

from benchmarks.queue.stage import Stage, stage
from benchmarks.queue.variants import Variant
from benchmarks.queue.workload import document

from labrelay_worker.http_connections import Connections
from labrelay_worker.tls import TlsOptions

Figures = dict[str, float]
WARM_UP = 50
DELIVERIES = 3


@dataclass(frozen=True)
class Sizes:
    """How many contexts each phase takes."""

    contexts: int
    singles: int
    enqueue: int
    samples: int
    backlog: int


def end_to_end_alone(variant: Variant, sizes: Sizes) -> Figures:
    """Measure the bulk phase and nothing else."""
    with stage(variant) as s, s.workers():
        total = _warm_up(s, {})
        return _end_to_end(s, "bulk", sizes.contexts, first=1_000_000, before=total)


def every_phase(variant: Variant, sizes: Sizes) -> Figures:
    """Put one queue through everything."""
    with stage(variant) as s:
        figures: Figures = {}
        with s.workers():
            total = _warm_up(s, figures)
            figures |= _end_to_end(s, "bulk", sizes.contexts, first=1_000_000, before=total)
            total += DELIVERIES * (sizes.contexts + 1)
            figures |= _end_to_end(s, "single", sizes.singles, first=2_000_000, before=total)
            figures |= _latency(s, "idle to done", "latency", 3_000_000, sizes.samples)
            figures["repeated"] = s.counted()["repeated"]
        figures |= _enqueue(s, sizes.enqueue)
    return figures


def urgent_behind_a_backlog(variant: Variant, sizes: Sizes) -> Figures:
    """Measure urgent exports one at a time: on the idle system, then while a bulk backlog is worked off."""
    with stage(variant) as s, s.workers():
        total = _warm_up(s, {})
        figures = _latency(s, "urgent, idle", "urgent", 6_000_000, sizes.samples)
        total += DELIVERIES * (sizes.samples + 1)
        s.produce("bulk", first=7_000_000, count=sizes.backlog)
        figures |= _latency(s, "urgent, behind the backlog", "urgent", 8_000_000, sizes.samples)
        total += DELIVERIES * (sizes.samples + 1)
        left = sizes.backlog + 1 - (s.counted()["answered"] - total) / DELIVERIES
        figures["backlog left at the end"] = left
        return figures


def capacity_of_the_receiver(variant: Variant, seconds: float = 2.0, at_once: int = 400) -> float:
    """Return the requests per second that the receiver alone can answer."""

    async def ask(url: str) -> int:
        http = Connections(TlsOptions().ssl_context, 30, {"Content-Type": "application/json"})
        body, answered = str(document(1)).encode(), 0
        ends = time.monotonic() + seconds

        async def again() -> None:
            nonlocal answered
            while time.monotonic() < ends:
                await http.request("POST", url, {}, body)
                answered += 1

        await asyncio.gather(*(again() for _ in range(at_once)))
        await http.close()
        return answered

    with stage(variant) as s:
        return asyncio.run(ask(f"{s.receiver}/alpha")) / seconds


def _warm_up(s: Stage, figures: Figures) -> int:
    """Return how many deliveries that took."""
    began = time.monotonic()
    s.produce("single", first=10_000_000, count=1)
    figures["boot s"] = s.until_answered(2 * DELIVERIES) - began
    s.produce("bulk", first=20_000_000, count=WARM_UP)
    total = 2 * DELIVERIES + DELIVERIES * (WARM_UP + 1)
    s.until_answered(total)
    figures["rss MiB"] = s.rss()
    return total


def _end_to_end(s: Stage, mode: str, count: int, *, first: int, before: int) -> Figures:
    used = s.usage()
    produced = s.produce(mode, first=first, count=count)
    ended = s.until_answered(before + DELIVERIES * (count + 1))
    spent = s.usage().since(used)
    per = 1000 / count
    return {
        f"{mode}: contexts/s": count / (ended - produced["began"]),
        f"{mode}: CPU s per 1000": (spent.workers + spent.redis + produced["cpu"]) * per,
        f"{mode}: of it workers": spent.workers * per,
        f"{mode}: of it Redis": spent.redis * per,
        f"{mode}: of it producer": produced["cpu"] * per,
        f"{mode}: receiver CPU s per 1000": spent.receiver * per,
        f"{mode}: Redis commands per context": spent.commands / count,
        f"{mode}: Redis bytes per context": spent.bytes / count,
    }


def _latency(s: Stage, name: str, mode: str, first: int, samples: int) -> Figures:
    times = sorted(s.produce(mode, first=first, count=samples)["each"])
    p99 = times[min(len(times) - 1, int(0.99 * len(times)))]
    return {f"{name} p50 ms": 1000 * statistics.median(times), f"{name} p99 ms": 1000 * p99}


def _enqueue(s: Stage, count: int) -> Figures:
    """Measure enqueueing without workers, beside a pipelined LPUSH of the same JSON just before."""
    found: Figures = {}
    pushed = s.push_plainly(count)
    found["enqueue: LPUSH pipelined /s"] = pushed
    for mode, number in (("bulk", count), ("single", max(1, count // 4))):
        produced = s.produce(mode, first=4_000_000 if mode == "bulk" else 5_000_000, count=number)
        found[f"enqueue: {mode} /s"] = number / (produced["ended"] - produced["began"])
        if mode == "single":
            found["enqueue: single p50 ms"] = 1000 * statistics.median(produced["each"])
    found["enqueue: bulk / LPUSH"] = found["enqueue: bulk /s"] / pushed
    if s.variant.name == "labrelay_full":
        bare = s.produce("single", first=9_000_000, count=max(1, count // 4), peer="celery_plain")
        found["enqueue: bare apply_async p50 ms"] = 1000 * statistics.median(bare["each"])
    return found
