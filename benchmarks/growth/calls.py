"""The calls that are measured at each size: time for the caller, and for Redis."""

from __future__ import annotations

import itertools
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from benchmarks.growth.exports import FIRST_NUMBER, Site, entry
from benchmarks.growth.servers import cpu_seconds

from labrelay.ledger import Entry
from labrelay.results import ExportState

_CALLS = 40
#: Cycles of the reconciler in a minute, with its usual settings.
CYCLES = 60
_DUE = 10
#: The fill ends far below.
_NEW = itertools.count(FIRST_NUMBER + 50_000_000)


@dataclass(frozen=True)
class Cost:
    """What one call costs, in microseconds."""

    caller: float
    redis: float


@dataclass
class Costs:
    """Costs of one site by name of the call, one for each round."""

    site: Site
    delivered: range
    found: dict[str, list[Cost]] = field(default_factory=dict)

    def measure(self) -> None:
        """Make every call some times."""
        new = [entry(next(_NEW)) for _ in range(_CALLS)]
        some = [f"bench-{number}" for number in random.sample(self.delivered, _CALLS)]
        ids = [entry(int(session.removeprefix("bench-"))).export_id for session in some]
        ledger, site = self.site.ledger, self.site
        self._each("submit", lambda n: site.submit([new[n]]))
        self._each("claim", lambda n: site.run(site.worker.claim(new[n].export_id)))
        self._forget(new)
        self._each("status", lambda n: ledger.status(ids[n]))
        self._each("trail", lambda n: ledger.trail(ids[n]))
        self._each("find a session", lambda n: ledger.ids_of_session(some[n]))
        self._each("count states", lambda _: ledger.counts())
        self._each("list the last 50", lambda _: ledger.recent(), 4)
        self._each("list 50 delivered", lambda _: ledger.recent(ExportState.DELIVERED), 4)
        self._each("list the last 20 dead", lambda _: list(itertools.islice(site.letters.find(), 20)), 4)
        self._each("sweep, nothing due", lambda _: site.run(self._sweep()))
        with self._some_due():
            self._each(f"sweep, {_DUE} due", lambda _: site.run(self._sweep()), 1)
        self._each("reconciler, one minute", lambda _: [site.run(self._reconcile()) for _ in range(CYCLES)], 1)

    def _each(self, name: str, call: Callable[[int], Any], calls: int = _CALLS) -> None:
        times = []
        used = cpu_seconds(self.site.redis)
        for number in range(calls):
            began = time.perf_counter()
            call(number)
            times.append(time.perf_counter() - began)
        used = cpu_seconds(self.site.redis) - used
        self.found.setdefault(name, []).append(Cost(1e6 * statistics.median(times), 1e6 * used / calls))

    async def _sweep(self) -> None:
        await self.site.worker.sweep(leader_seconds=60, grace=86_400)

    async def _reconcile(self) -> None:
        """Do what a reconciler does when nothing is to be done."""
        await self._sweep()
        await self.site.packing.run(60)
        await self.site.retirement.step(90)

    def _forget(self, entries: list[Entry]) -> None:
        """Take out what was submitted, so that a ledger keeps its size."""
        keys = self.site.keys
        ids = [each.export_id for each in entries]
        with self.site.redis.pipeline(transaction=False) as pipeline:
            pipeline.delete(*(key(i) for key in (keys.export, keys.trail) for i in ids))
            pipeline.hdel(keys.sessions, *(each.session for each in entries))
            for index in (keys.due, *map(keys.state, ExportState)):
                pipeline.zrem(index, *ids)
            pipeline.execute()

    @contextmanager
    def _some_due(self) -> Iterator[None]:
        keys, client = self.site.keys, self.site.redis
        ids: Any = client.zrange(keys.state(ExportState.WAITING), 0, _DUE - 1, withscores=False)
        before: Any = {export_id: client.zscore(keys.due, export_id) for export_id in ids}
        client.zadd(keys.due, dict.fromkeys(ids, 1))
        yield
        client.zadd(keys.due, before)
