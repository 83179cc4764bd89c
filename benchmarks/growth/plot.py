"""A log-log plot as SVG: a few curves, their names at their ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 760, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 190, 20, 60
_COLOURS = ("#0b6e99", "#c2410c", "#15803d", "#7c3aed", "#475569", "#b45309")


@dataclass(frozen=True)
class Curve:
    """A named line."""

    name: str
    points: Sequence[tuple[float, float]]


def log_log(curves: Sequence[Curve], x_title: str, y_title: str) -> str:
    """Return the plot; both axes show whole decades."""
    xs = _decades([x for curve in curves for x, _ in curve.points])
    ys = _decades([y for curve in curves for _, y in curve.points])

    def at(x: float, y: float) -> tuple[float, float]:
        right = (math.log10(x) - xs[0]) / (xs[-1] - xs[0])
        up = (math.log10(y) - ys[0]) / (ys[-1] - ys[0])
        return _LEFT + right * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
            f'font-size="13"><rect width="100%" height="100%" fill="#ffffff"/>'
        )
    ]
    for decade in xs:
        x, low = at(10.0**decade, 10.0 ** ys[0])
        parts.append(_line((x, low), (x, _TOP)) + _text(x, low + 20, _power(decade), "middle"))
    for decade in ys:
        left, y = at(10.0 ** xs[0], 10.0**decade)
        parts.append(_line((left, y), (_WIDTH - _RIGHT, y)) + _text(left - 8, y + 4, _power(decade), "end"))
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(_text(middle, _HEIGHT - 16, x_title, "middle"))
    parts.append(f'<g transform="translate(18 {_HEIGHT / 2}) rotate(-90)">{_text(0, 0, y_title, "middle")}</g>')
    lowest = math.inf
    for curve, colour in zip(sorted(curves, key=lambda c: c.points[-1][1]), _COLOURS, strict=False):
        places = [at(x, y) for x, y in curve.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        lowest = min(lowest - 15, places[-1][1] + 4)  # names do not cover each other
        parts.append(_text(places[-1][0] + 10, lowest, curve.name, "start", colour))
    return "\n".join([*parts, "</svg>\n"])


def _decades(values: Sequence[float]) -> list[int]:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return list(range(low, max(high, low + 1) + 1))


def _power(decade: int) -> str:
    return f"{10**decade:,}".replace(",", " ") if decade >= 0 else f"{10.0**decade:g}"


def _line(start: tuple[float, float], end: tuple[float, float]) -> str:
    return f'<path d="M{start[0]:.1f} {start[1]:.1f}L{end[0]:.1f} {end[1]:.1f}" stroke="#d4d4d8"/>'


def _text(x: float, y: float, text: str, anchor: str, colour: str = "#27272a") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'
