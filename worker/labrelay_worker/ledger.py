"""The worker's half of the ledger: claim, lease, intent, receipt, trail. Every transition is one Lua call."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from redis.asyncio import Redis

from labrelay.errors import LabrelayError
from labrelay.names import Keys
from labrelay.outages import is_demoted, is_outage
from labrelay.results import ExportState, WorkerInfo
from labrelay.rows import Row
from labrelay.scripts import script_source
from labrelay.wakeups import Wake
from labrelay_worker.batching import Late, ScriptGroups
from labrelay_worker.leasing import Lease
from labrelay_worker.writing import Then

_logger = logging.getLogger(__name__)

_SCRIPTS = ("claim", "renew", "commit", "sweep")
#: Many commits travel as one call; the first so many arguments are the same for all.
_JOINED = {"commit": 1}
#: One step of a commit: its kind, its destination, its value.
Step = tuple[str, str, str]
#: See `Places.left`.
UNCOUNTED = -1
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0
#: How long a write waits for Redis to come back; the delivery behind it is done and must not be forgotten.
_PATIENCE = 600.0


@dataclass(frozen=True)
class Places:
    """How many exports a process can take now."""

    #: Of any priority.
    free: int
    #: Urgent ones more.
    reserve: int = 0
    #: How many the wake-up is still good for; 0: it only names exports; `UNCOUNTED`: nobody was woken.
    left: int = 0


@dataclass(frozen=True)
class Taken:
    """What a worker got on a wake-up."""

    claims: Sequence[Claim]
    #: Why the others that it named or met were not claimed, by export id.
    refused: Mapping[str, str]
    #: Nothing is left for it to do: it brought all it is good for, or nothing was ready.
    used_up: bool = True
    #: Wake-ups to publish for what became ready meanwhile.
    to_ring: int = 0


@dataclass(frozen=True)
class Due:
    """What a sweep found."""

    count: int
    to_ring: int
    #: The first few, for people.
    first: Sequence[Wake]


@dataclass(frozen=True)
class Claim:
    """What a successful claim returns."""

    export_id: str
    row: Row
    server_now: float
    asked_at: float


class WorkerLedger:
    """The ledger as one worker process uses it.

    Parameters
    ----------
    client
        A Redis client that decodes responses.
    keys
        Key names.
    owner
        Name of this process, for leases and trails.
    lease_seconds
        How long a silent worker keeps an export.
    poison_limit
        An export whose worker died so many times in a row is parked for a person.
    replicas
        How many of them must hold a write before it counts.
    """

    def __init__(
        self,
        client: Redis,
        keys: Keys,
        *,
        owner: str,
        lease_seconds: float,
        poison_limit: int = 5,
        replicas: int = 0,
    ) -> None:
        self._redis, self._keys = client, keys
        self.owner = owner
        self.lease_seconds = lease_seconds
        self._poison_limit = poison_limit
        sources = {name: script_source("labrelay_worker", name) for name in _SCRIPTS}
        self._scripts = ScriptGroups(client, sources, joined=_JOINED, replicas=replicas)
        self._repeating: set[asyncio.Task[None]] = set()

    async def take(self, named: Sequence[str], places: Places) -> Taken:
        """Claim exports in one step: those that are named, then those that are ready, the urgent ones before all.

        Why not is one of ``missing``, ``finished``, ``leased``, ``later``, ``suspect`` (it was running when several
        workers died; its turn comes) or ``poisoned`` (parked, because it killed its worker too often).
        """
        asked_at, asked, number = 0.0, 0, uuid.uuid4().hex

        def leaving() -> Sequence[str | int]:
            # Of the call that is answered: those that Redis was away for would have eaten up the lease.
            nonlocal asked_at, asked
            asked_at, asked = time.monotonic(), asked + 1
            return [number, int(asked > 1), *named]

        lease_ms, wanted = int(self.lease_seconds * 1000), (places.free, places.reserve, places.left)
        used_up, to_ring, now, *answers = await self._run(
            "claim", self.owner, lease_ms, self._poison_limit, *wanted, late=leaving
        )
        claims = []
        for export_id, answer, *rest in answers:
            if answer == "claimed":
                fields = rest[0]
                row = dict(zip(fields[::2], fields[1::2], strict=True))
                claims.append(Claim(export_id, row, float(now) / 1000, asked_at))
        refused = {export_id: answer for export_id, answer, *_ in answers if answer != "claimed"}
        return Taken(claims, refused, bool(used_up), to_ring)

    async def claim(self, export_id: str) -> Claim | str:
        """Claim one export, or return why not; see `take`."""
        taken = await self.take([export_id], Places(free=0))
        return taken.claims[0] if taken.claims else taken.refused[export_id]

    def lease_of(self, claim: Claim) -> Lease:
        """Return what a claim gives: it lasts from before it was asked for."""
        until, cancel = claim.asked_at + self.lease_seconds, claim.row.get("cancel") == "1"
        return Lease(claim.export_id, claim.row["token"], until, cancel_requested=cancel)

    async def renew(self, leases: Sequence[Lease]) -> None:
        """Prolong leases, and note in each whether it was lost or a cancel was asked for."""
        asked_at = time.monotonic()
        flat = [part for lease in leases for part in (lease.export_id, lease.token)]
        answers = await self._scripts.run("renew", self._keys.prefix, int(self.lease_seconds * 1000), *flat)
        for lease, answer in zip(leases, answers, strict=True):
            if answer == "lost":
                lease.lose()
            else:
                lease.until = asked_at + self.lease_seconds
                lease.cancel_requested |= answer == "cancel"

    async def commit(self, export_id: str, token: str, steps: Sequence[Step]) -> str:
        """Write steps of a claimed export, waiting while Redis is away."""
        return str(await self._run("commit", late=lambda: _flat(export_id, token, steps)))

    def begin_commit(self, export_id: str, token: str, steps: Callable[[], Sequence[Step]], then: Then) -> None:
        """Write steps of a claimed export for somebody who is told instead of waiting.

        Parameters
        ----------
        steps
            Asked for them when the group of commits leaves that these travel in.
        then
            Given the answer, or what it failed with; not before Redis is back, if it is away.
        """

        def late() -> list[str | int]:
            return _flat(export_id, token, steps())

        def answered(answer: Any) -> None:
            if isinstance(answer, Exception) and is_outage(answer):
                self._repeat("commit", late, then)
            else:
                then(answer)

        self._scripts.begin("commit", self._keys.prefix, late=late, then=answered)

    async def refuse(self, claim: Claim, error: LabrelayError) -> None:
        """End a claimed export that no worker can read, so that a person sees it instead of a loop."""
        await self.commit(claim.export_id, claim.row["token"], [("settle", ExportState.DEAD, f"0 {error}")])

    async def sweep(self, *, leader_seconds: float, grace: float, limit: int = 640) -> Due | None:
        """Make ready what is due, if this process leads; None: another one does."""
        answer = await self._scripts.run(
            "sweep", self._keys.prefix, self.owner, int(leader_seconds * 1000), int(grace * 1000), limit
        )
        if answer is None:
            return None
        count, to_ring, *told = answer
        return Due(count, to_ring, [Wake(*told[i : i + 4]) for i in range(0, len(told), 4)])

    async def resign(self) -> None:
        """Let another process lead the sweeps."""
        if await self._redis.get(self._keys.leader) == self.owner:
            await self._redis.delete(self._keys.leader)

    async def announce(self, info: WorkerInfo) -> None:
        """Say what this process serves; producers and `labrelay plan` read it."""
        seconds, microseconds = await self._redis.time()
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.zadd(self._keys.workers, {info.name: seconds * 1000 + microseconds // 1000})
            pipeline.hset(self._keys.worker_info, info.name, info.model_dump_json())
            await pipeline.execute()

    async def withdraw(self, *names: str) -> None:
        """Take processes out of the announcements."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.zrem(self._keys.workers, *names)
            pipeline.hdel(self._keys.worker_info, *names)
            await pipeline.execute()

    async def silent_workers(self, milliseconds: int) -> list[str]:
        """Return the processes that have not announced themselves for so long."""
        seconds, _ = await self._redis.time()
        found = await self._redis.zrangebyscore(self._keys.workers, "-inf", seconds * 1000 - milliseconds)
        return [str(name) for name in found]

    def _repeat(self, script: str, late: Late, then: Then) -> None:
        """Run a script again until Redis answers; what it did before its answer was lost, it does again."""

        async def again() -> None:
            try:
                answer = await self._run(script, late=late)
            except Exception as error:  # noqa: BLE001  whoever wrote is told
                answer = error
            then(answer)

        task = asyncio.create_task(again())
        self._repeating.add(task)
        task.add_done_callback(self._repeating.discard)

    async def _run(self, script: str, *arguments: str | int, late: Late | None = None) -> Any:
        pause, give_up_at = _FIRST_PAUSE, time.monotonic() + _PATIENCE
        while True:
            try:
                return await self._scripts.run(script, self._keys.prefix, *arguments, late=late)
            except Exception as error:
                if not is_outage(error) or time.monotonic() > give_up_at:
                    raise
                if is_demoted(error):
                    await self._redis.connection_pool.disconnect(inuse_connections=False)
                _logger.warning(
                    "the ledger does not answer (%s); this worker waits and writes when it is back",
                    type(error).__name__,
                )
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)


def _flat(export_id: str, token: str, steps: Sequence[Step]) -> list[str | int]:
    return [export_id, token, len(steps), *chain.from_iterable(steps)]
