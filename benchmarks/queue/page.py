"""The figures of docs/performance.md, written into the page by the run that measured them."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.queue.phases import Figures
from benchmarks.queue.targets import TARGETS

Rounds = Sequence[dict[str, Figures]]
#: Figure, heading, digits.
_SPEED = (
    ("bulk: contexts/s", "bulk, contexts/s", 0),
    ("single: contexts/s", "single, contexts/s", 0),
    ("enqueue: bulk /s", "bulk enqueue/s", 0),
    ("enqueue: single p50 ms", "single submit p50 ms", 2),
    ("idle to done p50 ms", "idle to done p50 ms", 0),
    ("idle to done p99 ms", "p99 ms", 0),
)
_COST = (
    ("bulk: CPU s per 1000", "CPU s per 1000, bulk", 2),
    ("bulk: of it workers", "of it workers", 2),
    ("bulk: of it Redis", "Redis", 2),
    ("bulk: of it producer", "producer", 2),
    ("single: CPU s per 1000", "CPU s per 1000, single", 2),
    ("bulk: Redis commands per context", "Redis commands", 0),
    ("bulk: Redis bytes per context", "Redis bytes", 0),
    ("rss MiB", "RSS MiB", 0),
    ("boot s", "boot s", 1),
)
_ALONE = (
    "receiver alone, requests/s",
    "enqueue: LPUSH pipelined /s",
    "enqueue: bare apply_async p50 ms",
    "urgent, idle p50 ms",
    "urgent, idle p99 ms",
    "urgent, behind the backlog p50 ms",
    "urgent, behind the backlog p99 ms",
    "backlog left at the end",
)
_STEPS = (
    ("bulk: contexts/s", "contexts/s", 0),
    ("bulk: CPU s per 1000", "CPU s per 1000", 2),
    ("bulk: of it workers", "of it workers", 2),
    ("bulk: of it Redis", "Redis", 2),
)


def write(page: Path, rounds: Rounds, sizes: str) -> None:
    """Put the figures of a run beside other queues into the page."""
    ours = [each["labrelay_full"] for each in rounds if "labrelay_full" in each]
    alone = [(key, [f[key] for f in ours if key in f]) for key in _ALONE]
    parts = [
        _said(rounds, sizes),
        _table("queue", rounds, _SPEED),
        _table("queue", rounds, _COST),
        "| figure | median (range) |\n|---|---|\n" + "\n".join(f"| {k} | {_range(v, 2)} |" for k, v in alone if v),
    ]
    _put(page, "figures", "\n\n".join(parts))
    _put(page, "claims", "\n".join(f"- {target.judge(rounds)}" for target in TARGETS))


def write_ablation(page: Path, rounds: Rounds, sizes: str) -> None:
    """Put the figures of labrelay without one step at a time into the page."""
    _put(page, "ablation", f"{_said(rounds, sizes)}\n\n{_table('without', rounds, _STEPS, beside='everything')}")


def _said(rounds: Rounds, sizes: str) -> str:
    return f"Measured on {datetime.now(UTC):%Y-%m-%d}: median of {len(rounds)} rounds, and their range ({sizes})."


def _table(first: str, rounds: Rounds, columns: Sequence[tuple[str, str, int]], beside: str = "") -> str:
    headings = [first, *(heading for _, heading, _ in columns)]
    lines = [f"| {' | '.join(headings)} |", "|" + "---|" * len(headings)]
    for name in rounds[0]:
        cells = []
        for key, _, digits in columns:
            cell = _range([each[name][key] for each in rounds], digits)
            if beside and name != beside:
                ratio = statistics.median(each[name][key] / each[beside][key] for each in rounds)
                cell += f", {ratio:.2f}x"
            cells.append(cell)
        lines.append(f"| {name.replace('_', ' ')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _range(values: Sequence[float], digits: int) -> str:
    low, high = min(values), max(values)
    return f"{statistics.median(values):.{digits}f}" + (
        f" ({low:.{digits}f}-{high:.{digits}f})" if low < high else ""
    )


def _put(page: Path, mark: str, text: str) -> None:
    whole = re.compile(rf"(<!-- {mark}: written by make bench -->\n).*?(<!-- end of {mark} -->)", re.DOTALL)
    before = page.read_text()
    after, count = whole.subn(lambda found: f"{found[1]}\n{text}\n\n{found[2]}", before)
    if not count:
        raise SystemExit(f"{page} has no place for {mark}")
    page.write_text(after)
