"""The chart of docs/performance.md: contexts per second by queue, with the range of the rounds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from html import escape

_WIDTH, _LEFT, _ROW, _BAR = 720, 170, 44, 16
_COLOURS = {"bulk": "#1f6f8b", "single": "#99c1de"}


def chart(rounds: Sequence[Mapping[str, Mapping[str, float]]], names: Sequence[str]) -> str:
    """Return an SVG with two bars for each queue: enqueued in bulk, and one by one."""
    measured = {
        (name, mode): [each[name][f"{mode}: contexts/s"] for each in rounds] for name in names for mode in _COLOURS
    }
    most = max(value for values in measured.values() for value in values)
    scale = (_WIDTH - _LEFT - 70) / most
    height = 40 + _ROW * len(names)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}">',
        "<style>text { font: 13px sans-serif }</style>",
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
    ]
    for number, (mode, colour) in enumerate(_COLOURS.items()):
        x = _LEFT + 150 * number
        parts.append(f'<rect x="{x}" y="8" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{x + 18}" y="19">{mode}, contexts/s</text>')
    for row, name in enumerate(names):
        y = 32 + row * _ROW
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 21}" text-anchor="end">{escape(name)}</text>')
        for number, (mode, colour) in enumerate(_COLOURS.items()):
            values = measured[name, mode]
            top, long = y + number * (_BAR + 2), scale * statistics.median(values)
            low, high = _LEFT + scale * min(values), _LEFT + scale * max(values)
            parts.append(f'<rect x="{_LEFT}" y="{top}" width="{long:.1f}" height="{_BAR}" fill="{colour}"/>')
            parts.append(f'<path d="M{low:.1f} {top + 8} H{high:.1f}" stroke="#222" stroke-width="1.5"/>')
            parts.append(f'<text x="{high + 6:.1f}" y="{top + 13}">{statistics.median(values):.0f}</text>')
    return "\n".join([*parts, "</svg>", ""])
