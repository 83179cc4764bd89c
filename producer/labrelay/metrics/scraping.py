"""One look at the ledger and at this machine's outbox, as samples: indexes and dead letters, never all exports."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, cast

from labrelay.deadletters import DEAD_LETTERS, DeadLetters, troubles_of
from labrelay.errors import LedgerUnavailable, OutboxUnavailable
from labrelay.ledger import WORKER_GONE_MS, connect
from labrelay.link import Link
from labrelay.metrics import families as f
from labrelay.names import QUEUE_EXPORTS, Keys
from labrelay.outbox import Outbox
from labrelay.priorities import Priority
from labrelay.results import UNFINISHED, ExportState, ExportStatus, WorkerInfo
from labrelay.settings import ProducerSettings

BREAKER_STATES = ("closed", "open", "probing", "trial")
_OVERDUE_MS = 10_000
_LOOKED_AT = 1000


@dataclass(frozen=True)
class Sample:
    """One value of a family; `labels` are in the order of the family's."""

    family: f.Family
    value: float
    labels: tuple[str, ...] = ()


class Scraper:
    """Reads the ledger again and again, for `labrelay metrics`.

    Parameters
    ----------
    settings
        Where ledger and outbox are.
    """

    def __init__(self, settings: ProducerSettings) -> None:
        self._settings, self._keys = settings, settings.keys
        self._letters = _Letters()

    def scrape(self) -> list[Sample]:
        """Return what there is to see now; with Redis away the outbox alone, and ``labrelay_ledger_up`` 0."""
        samples = [Sample(f.BUILD, 1, (version("labrelay"),))]
        try:
            samples += [*self._ledger_samples(), Sample(f.LEDGER_UP, 1)]
        except LedgerUnavailable:
            samples.append(Sample(f.LEDGER_UP, 0))
        return samples + list(_outbox_samples(self._settings))

    def targets(self) -> list[str]:
        """Return where the running workers' own metrics are scraped; none while Redis is away."""
        try:
            with (
                closing(Link(self._settings)) as link,
                closing(connect(self._settings)) as client,
                link.ledger.reachable(),
            ):
                since = now_ms(client) - WORKER_GONE_MS
                found = cast("list[str]", client.zrangebyscore(self._keys.metrics, since, "+inf"))
        except LedgerUnavailable:
            return []
        return sorted(found)

    def _ledger_samples(self) -> list[Sample]:
        link = Link(self._settings)
        with closing(link), closing(connect(self._settings)) as client, link.ledger.reachable():
            workers = link.ledger.workers()
            return [
                *_indexes(client, self._keys),
                *_destinations(client, self._keys, workers),
                *_workers(workers),
                *self._letters.samples(client, self._keys, link.dead_letters),
            ]


def now_ms(client: Any) -> int:
    """Return the Redis server's time in milliseconds."""
    seconds, microseconds = client.time()
    return int(seconds * 1000 + microseconds // 1000)


def _indexes(client: Any, keys: Keys) -> Iterator[Sample]:
    now = now_ms(client)
    with client.pipeline(transaction=False) as pipeline:
        for state in ExportState:
            pipeline.zcard(keys.state(state))
        pipeline.zcount(keys.due, "-inf", now)
        pipeline.zcount(keys.due, "-inf", now - _OVERDUE_MS)
        pipeline.zcard(keys.unacknowledged)
        pipeline.llen(keys.wake_ups)
        for priority in Priority:
            pipeline.zcard(keys.ready(priority))
        for state in _UNFINISHED:
            pipeline.zrange(keys.state(state), 0, _LOOKED_AT - 1)
        answers = iter(pipeline.execute())
        for state in ExportState:
            yield Sample(f.EXPORTS, next(answers), (str(state),))
        for family in (f.DUE, f.OVERDUE, f.UNACKED):
            yield Sample(family, next(answers))
        yield Sample(f.QUEUE, next(answers), (QUEUE_EXPORTS,))
        for priority in Priority:
            yield Sample(f.READY, next(answers), (str(priority),))
        ids = list(answers)
        for export_id in (export_id for found in ids for export_id in found):
            pipeline.hget(keys.export(export_id), "created")
        created = iter(pipeline.execute())
    for state, found in zip(_UNFINISHED, ids, strict=True):
        times = [float(at) for at in (next(created) for _ in found) if at]
        yield Sample(f.OLDEST, max(0.0, (now - min(times)) / 1000) if times else 0.0, (str(state),))


_UNFINISHED = tuple(state for state in ExportState if state in UNFINISHED)


def _destinations(client: Any, keys: Keys, workers: Sequence[WorkerInfo]) -> Iterator[Sample]:
    served = Counter(info.name for worker in workers for info in worker.destinations if info.enabled)
    with client.pipeline(transaction=False) as pipeline:
        pipeline.hgetall(keys.breakers)
        pipeline.hgetall(keys.pauses)
        breakers, pauses = pipeline.execute()
        names = sorted({*served, *breakers, *pauses})
        for name in names:
            pipeline.zcard(keys.held(name))
        held = pipeline.execute()
    for name, waiting in zip(names, held, strict=True):
        state = _breaker_state(breakers.get(name))
        for each in BREAKER_STATES:
            yield Sample(f.BREAKER, each == state, (name, each))
        yield Sample(f.PAUSED, name in pauses, (name,))
        yield Sample(f.HELD, waiting, (name,))
        yield Sample(f.SERVED_BY, served[name], (name,))


def _breaker_state(raw: str | None) -> str:
    try:
        state = str(json.loads(raw or "{}").get("state", "closed"))
    except (ValueError, AttributeError):
        return "closed"  # as the workers take it
    return state if state in BREAKER_STATES else "closed"


def _workers(workers: Sequence[WorkerInfo]) -> Iterator[Sample]:
    # Without a worker there is a zero to alert on, not a gap.
    versions = Counter(worker.version for worker in workers) or {version("labrelay"): 0}
    for each, number in versions.items():
        yield Sample(f.WORKERS, number, (each,))


class _Letters:
    """Dead letters, read again only when their indexes changed: there may be thousands, and few change."""

    def __init__(self) -> None:
        self._seen: object = None
        self._samples: list[Sample] = []

    def samples(self, client: Any, keys: Keys, letters: DeadLetters) -> list[Sample]:
        with client.pipeline(transaction=False) as pipeline:
            for state in DEAD_LETTERS:
                pipeline.zcard(keys.state(state))
                pipeline.zrange(keys.state(state), -1, -1, withscores=True)
            seen = pipeline.execute()
        if seen != self._seen:
            self._samples, self._seen = list(count_letters(letters.find())), seen
        return self._samples


def count_letters(letters: Iterator[ExportStatus]) -> Iterator[Sample]:
    """Yield how many dead letters there are of each reason, each letter once, and of which deliveries."""
    reasons, deliveries = Counter[tuple[str, ...]](), Counter[tuple[str, ...]]()
    for letter in letters:
        troubles = troubles_of(letter)
        kinds = {trouble.error_kind or "in_doubt" for trouble in troubles}
        reason = letter.cause or (kinds.pop() if len(kinds) == 1 else "several" if kinds else "other")
        reasons[str(letter.state), reason] += 1
        deliveries.update((trouble.destination, trouble.error_kind or "in_doubt") for trouble in troubles)
    for family, counted in ((f.DEAD_LETTERS, reasons), (f.DEAD_DELIVERIES, deliveries)):
        for labels, number in counted.items():
            yield Sample(family, number, labels)


def _outbox_samples(settings: ProducerSettings) -> Iterator[Sample]:
    outbox = Outbox.of(settings)
    yield Sample(f.OUTBOX_LIMIT, settings.outbox_max_entries)
    yield Sample(f.OUTBOX_DAMAGED, len(outbox.files_set_aside()))
    try:
        counts = [(state, outbox.count(state)) for state in ("waiting", "conflict")]
    except OutboxUnavailable:
        return  # damaged or locked: a gap is truer than a zero
    for state, number in counts:
        yield Sample(f.OUTBOX, number, (state,))
