"""Routes, order and the explanation of a plan: pure, shared by `labrelay plan` and the workers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from pydantic import BaseModel, ConfigDict

from labrelay.errors import InvalidInput, LedgerUnavailable
from labrelay.priorities import Priority
from labrelay.results import DestinationInfo, RouteInfo, WorkerInfo
from labrelay.strategies import Strategy, parse_strategy


@dataclass(frozen=True)
class Selection:
    """The strategy and destination names that hold for one export."""

    strategy: Strategy
    names: tuple[str, ...]
    because: str


class PlannedStep(BaseModel):
    """What would happen with one destination."""

    model_config = ConfigDict(frozen=True)

    destination: str
    type: str = ""
    priority: int = 0
    runs: bool
    explanation: str


class Plan(BaseModel):
    """What would happen to a context.

    Parameters
    ----------
    strategy, because
        How many destinations have to have it, and why these.
    priority
        How soon a worker would take it when many wait; the priorities of the steps are their order within it.
    """

    model_config = ConfigDict(frozen=True)

    strategy: Strategy
    priority: Priority = Priority.NORMAL
    because: str
    steps: tuple[PlannedStep, ...]


def select(
    instrument: str,
    strategy: str | None,
    named: Sequence[str],
    known: Sequence[DestinationInfo],
    routes: Sequence[RouteInfo],
    default_strategy: str,
) -> Selection:
    """Decide strategy and destinations: what the submitter named, else the first matching route, else the enabled.

    Routes match the instrument with shell patterns, upper and lower case being different.
    """
    route = next((r for r in routes if fnmatchcase(instrument, r.instrument)), None)
    chosen = strategy or (route.strategy if route else None) or default_strategy
    if named:
        names, because = tuple(named), "named at submit"
    elif route and route.destinations:
        names, because = route.destinations, f"route for instrument {route.instrument!r}"
    else:
        names, because = tuple(info.name for info in known if info.enabled), "every enabled destination"
    return Selection(parse_strategy(chosen), tuple(dict.fromkeys(names)), because)


def by_priority(infos: Iterable[DestinationInfo]) -> list[DestinationInfo]:
    """Return destinations in the order they run: higher priority first, then by name."""
    return sorted(infos, key=lambda info: (-info.priority, info.name))


def make_plan(
    instrument: str,
    strategy: str | None,
    named: tuple[str, ...],
    workers: Sequence[WorkerInfo],
    priority: Priority = Priority.NORMAL,
) -> Plan:
    """Explain order, waits and skips for one instrument's export.

    Raises
    ------
    LedgerUnavailable
        No worker has announced what it serves.
    InvalidInput
        A named destination is served by no worker, or the strategy is misspelled.
    """
    if not workers:
        raise LedgerUnavailable(
            "no worker is running, so nobody knows the destinations: start one with `labrelay up`"
        )
    first = workers[0]
    known = {info.name: info for worker in reversed(workers) for info in worker.destinations}
    for name in named:
        if name not in known:
            raise InvalidInput(
                "destinations", f"no running worker serves {name!r}", f"Use {', '.join(sorted(known))}"
            )
    selection = select(instrument, strategy, named, list(known.values()), first.routes, first.strategy)
    ordered = by_priority(known.values())
    chosen = [info for info in ordered if info.name in selection.names]
    steps = [_explain(info, chosen, selection) for info in ordered]
    steps += [
        PlannedStep(destination=name, runs=False, explanation="no running worker serves it, so its delivery waits")
        for name in selection.names
        if name not in known
    ]
    return Plan(strategy=selection.strategy, priority=priority, because=selection.because, steps=tuple(steps))


def _explain(info: DestinationInfo, chosen: Sequence[DestinationInfo], selection: Selection) -> PlannedStep:
    def step(runs: bool, explanation: str) -> PlannedStep:
        if runs and info.reason:
            explanation += f"; {info.reason}"
        return PlannedStep(
            destination=info.name, type=info.type, priority=info.priority, runs=runs, explanation=explanation
        )

    if info not in chosen:
        return step(False, f"left out: {info.reason or f'not in the selection ({selection.because})'}")
    before = [other.name for other in chosen[: chosen.index(info)]]
    if selection.strategy is Strategy.FIRST_SUCCESS:
        fail = "fail" if len(before) > 1 else "fails"
        return step(True, "runs first" if not before else f"runs only if {' and '.join(before)} {fail}")
    if info.waits_for is None:
        awaited = [other.name for other in chosen if other.priority > info.priority]
    else:
        awaited = [name for name in info.waits_for if name in selection.names and name != info.name]
    if not awaited:
        return step(True, "runs at once")
    until = "had their turn" if info.waits_for is None else "settled, at most link_wait"
    return step(True, f"runs after {' and '.join(awaited)} ({until})")
