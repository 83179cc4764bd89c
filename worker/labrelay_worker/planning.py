"""Which destinations of one export start now, and what holds the others: pure, from data to data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from labrelay.results import Delivery, DeliveryState, DestinationInfo
from labrelay.strategies import Strategy, next_destinations
from labrelay_worker.linking import links_to_add

_TO_DO = (DeliveryState.PENDING, DeliveryState.RETRYING)


class Hold(NamedTuple):
    """Why a destination does not start now, and until when at the longest (server time, epoch seconds)."""

    until: float
    reason: str
    #: The destination as a whole takes nothing: whoever ends that makes every delivery it held due at once.
    whole_destination: bool = False
    #: Destinations of the same export that it waits for.
    awaits: tuple[str, ...] = ()


@dataclass(frozen=True)
class NextSteps:
    """What to do with one export at this moment."""

    start: tuple[str, ...]
    held: Mapping[str, Hold]
    #: Delivered ones whose entry gets a link now, and those for which that must wait.
    link: tuple[str, ...] = ()
    held_links: Mapping[str, Hold] = field(default_factory=dict)

    @property
    def look_again_at(self) -> float | None:
        """Server time at which something held may start, or None."""
        return min((hold.until for hold in (*self.held.values(), *self.held_links.values())), default=None)

    @property
    def why_held(self) -> str:
        """What holds each, in words."""
        return "; ".join(
            [f"{name}: {hold.reason}" for name, hold in self.held.items()]
            + [f"{name}: its link waits ({hold.reason})" for name, hold in self.held_links.items()]
        )

    @property
    def held_by(self) -> tuple[str, ...]:
        """Destinations that take nothing at all now."""
        every = [*self.held.items(), *self.held_links.items()]
        return tuple(name for name, hold in every if hold.whole_destination)


_NOBODY: frozenset[str] = frozenset()
_NOTHING = NextSteps((), MappingProxyType({}))


def next_steps(
    strategy: Strategy,
    ordered: Sequence[DestinationInfo],
    deliveries: Mapping[str, Delivery],
    *,
    now: float,
    created: float,
    link_wait: float,
    closed: Callable[[str], Hold | None] = lambda _: None,
    missing_links: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
) -> NextSteps:
    """Decide what starts now.

    Parameters
    ----------
    strategy
        The export's strategy.
    ordered
        Its destinations, highest priority first.
    deliveries
        How each of them stands.
    now, created
        Server time now and when this revision was accepted, epoch seconds.
    link_wait
        Seconds a destination waits for one it links to.
    closed
        Tells of a destination why it takes nothing at all now, whatever the export: broken, misconfigured or paused.
    missing_links
        By delivered destination, those that its entry should link to and does not.
    """
    states = {info.name: deliveries[info.name].state for info in ordered}
    to_do = [info for info in ordered if states[info.name] in _TO_DO]
    if not to_do and not missing_links:
        return _NOTHING  # what is sent is awaited: asked after every delivery, so it is told at once
    held: dict[str, Hold] = {}
    waiting: dict[str, list[str]] = {}
    for info in to_do:
        if (hold := _hold(info.name, deliveries[info.name], now, closed)) is not None:
            held[info.name] = hold
        elif strategy is not Strategy.FIRST_SUCCESS and (awaited := _awaited(info, ordered, deliveries, closed)):
            waiting[info.name] = awaited
    if waiting:
        unheld = {name: state for name, state in states.items() if name not in held}
        held |= _waits(waiting, deliveries, unheld, now, created + link_wait)
    ready = [info.name for info in to_do if info.name not in held]
    aside = onlookers(ordered)
    start = next_destinations(strategy, [name for name in states if name not in aside], states, ready)
    if aside:
        start += [name for name in ready if name in aside]
    if not missing_links:
        return NextSteps(tuple(start), held)
    holds = {n: _hold(n, deliveries[n], now, closed) for n in links_to_add(deliveries, missing_links)}
    link = tuple(name for name, hold in holds.items() if hold is None)
    return NextSteps(tuple(start), held, link, {name: hold for name, hold in holds.items() if hold is not None})


def onlookers(ordered: Iterable[DestinationInfo]) -> frozenset[str]:
    """Return the destinations that run beside the strategy: viewers, unless the export has nothing else."""
    infos = list(ordered)
    lossy = [info.name for info in infos if info.lossy]
    return frozenset(lossy) if lossy and len(lossy) < len(infos) else _NOBODY


def _waits(
    waiting: Mapping[str, list[str]],
    deliveries: Mapping[str, Delivery],
    states: Mapping[str, DeliveryState],
    now: float,
    given_up_at: float,
) -> dict[str, Hold]:
    """Return what holds those that wait for others, which is at most until `given_up_at`."""
    if now >= given_up_at:
        waiting = _worth_waiting(waiting, states)
    holds: dict[str, Hold] = {}
    for name, awaited in waiting.items():
        retries = [at for n in awaited if (at := deliveries[n].retry_at) is not None and at > now]
        until = min([max(given_up_at, now), *retries])
        holds[name] = Hold(until, f"waits for {' and '.join(awaited)}", awaits=tuple(awaited))
    return holds


def _hold(name: str, delivery: Delivery, now: float, closed: Callable[[str], Hold | None]) -> Hold | None:
    if (hold := closed(name)) is not None:
        return hold
    if delivery.retry_at is not None and delivery.retry_at > now:
        return Hold(delivery.retry_at, delivery.error_kind or "back-off")
    return None


def _awaited(
    info: DestinationInfo,
    ordered: Sequence[DestinationInfo],
    deliveries: Mapping[str, Delivery],
    closed: Callable[[str], Hold | None],
) -> list[str]:
    """Return the destinations whose results this one waits for."""
    if info.waits_for is not None:
        return [
            n for n in info.waits_for if n in deliveries and n != info.name and not deliveries[n].state.is_settled
        ]
    # Only the seed's five members: such a class may read the results of all that have a higher priority,
    # so each of those gets its turn first; one that failed for now or takes nothing does not hold it up.
    before = [o.name for o in ordered if o.priority > info.priority and not o.lossy and closed(o.name) is None]
    return [n for n in before if deliveries[n].state in (DeliveryState.PENDING, DeliveryState.SENDING)]


def _worth_waiting(waiting: Mapping[str, list[str]], states: Mapping[str, DeliveryState]) -> dict[str, list[str]]:
    """Return what still waits once ``link_wait`` is over: for one that is being sent or gets its turn in this run.

    Without this, an export that lay in the queue for longer than ``link_wait`` would lose its links although
    every destination works. A back-off is not waited for, and a circle of waits begins with its first.
    """
    moving = {n for n, state in states.items() if n not in waiting and not state.is_settled}
    kept: dict[str, list[str]] = {}
    rest = dict(waiting)
    while rest:
        more = {n: awaited for n, awaited in rest.items() if moving & set(awaited)}
        kept |= more
        moving |= more.keys() or {next(iter(rest))}
        rest = {n: awaited for n, awaited in rest.items() if n not in moving}
    return kept
