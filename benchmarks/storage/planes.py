"""The data of the storage benchmark, and how a call is timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Cost:
    """What one call took, in seconds: of all threads' CPU time, and of the clock."""

    cpu: float
    clock: float


def camera(planes: int, side: int, seed: int = 1) -> np.ndarray[Any, Any]:
    """Return what a camera sees of blurred spots: Poisson noise over them, uint16, (planes, side, side)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    expected = np.full((side, side), 100.0)
    for _ in range(60):
        cy, cx, width, height = (
            rng.uniform(0, side),
            rng.uniform(0, side),
            rng.uniform(10, 60),
            rng.uniform(200, 3000),
        )
        expected += height * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * width**2))
    return np.stack([rng.poisson(expected) for _ in range(planes)]).astype("uint16")


class Repeated:
    """Many planes made of a few, so that a long stack needs no memory."""

    def __init__(self, planes: np.ndarray[Any, Any], count: int) -> None:
        self._planes = planes
        self.shape = (count, *planes.shape[1:])
        self.dtype = planes.dtype

    def __getitem__(self, where: tuple[slice, ...]) -> np.ndarray[Any, Any]:
        numbers = [number % len(self._planes) for number in range(*where[0].indices(self.shape[0]))]
        return self._planes[numbers][:, *where[1:]]


def timed(call: Callable[[], Any]) -> Cost:
    """Return what a call took."""
    clock, cpu = time.perf_counter(), time.process_time()
    call()
    return Cost(time.process_time() - cpu, time.perf_counter() - clock)


def median(costs: list[Cost]) -> Cost:
    """Return the medians."""
    return Cost(statistics.median(cost.cpu for cost in costs), statistics.median(cost.clock for cost in costs))
