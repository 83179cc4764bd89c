"""The worker's half of the ledger: claim, lease, intent, receipt, trail. Every transition is one Lua call."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from labrelay.context import ExportContext
from labrelay.errors import LabrelayError, LeaseLost
from labrelay.ledger import is_full
from labrelay.names import FIELD_DELIVERY, FIELD_INTENT, FIELD_PREVIOUS_RECEIPT, FIELD_RECEIPT, Keys
from labrelay.results import Delivery, DeliveryState, ExportState, Receipt, WorkerInfo
from labrelay.rows import Row, by_destination, destinations_of, from_ms
from labrelay.scripts import script_source
from labrelay.strategies import Strategy
from labrelay.wakeups import Wake
from labrelay_worker.batching import AWAY, ScriptGroups

_logger = logging.getLogger(__name__)

_SCRIPTS = ("claim", "renew", "commit", "sweep")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0
#: How long a write waits for Redis to come back; the delivery behind it is done and must not be forgotten.
_PATIENCE = 600.0


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
    """

    def __init__(self, client: Redis, keys: Keys, *, owner: str, lease_seconds: float, poison_limit: int = 5) -> None:
        self._redis, self._keys = client, keys
        self.owner = owner
        self.lease_seconds = lease_seconds
        self._poison_limit = poison_limit
        self._scripts = ScriptGroups(client, {name: script_source("labrelay_worker", name) for name in _SCRIPTS})

    async def claim(self, export_id: str) -> Claim | str:
        """Claim an export, or return why not.

        Returns
        -------
        Claim or str
            ``missing``, ``finished``, ``leased``, ``later``, ``suspect`` (it was running when several workers died;
            its turn comes) or ``poisoned`` (parked, because it killed its worker too often).
        """
        asked_at = time.monotonic()
        lease_ms = int(self.lease_seconds * 1000)
        answer = await self._run("claim", export_id, self.owner, lease_ms, self._poison_limit)
        if answer[0] != "claimed":
            return str(answer[0])
        fields = answer[2]
        row = dict(zip(fields[::2], fields[1::2], strict=True))
        return Claim(export_id, row, float(answer[1]) / 1000, asked_at)

    async def renew(self, jobs: Sequence[LedgerJob]) -> None:
        """Prolong the leases of running jobs, and tell each whether it was lost or asked to cancel."""
        asked_at = time.monotonic()
        flat = [part for job in jobs for part in (job.export_id, job.token)]
        answers = await self._scripts.run("renew", self._keys.prefix, int(self.lease_seconds * 1000), *flat)
        for job, answer in zip(jobs, answers, strict=True):
            if answer == "lost":
                job.lose()
            else:
                job.lease_until = asked_at + self.lease_seconds
                job.cancel_requested |= answer == "cancel"

    async def commit(self, export_id: str, token: str, steps: Sequence[tuple[str, str, str]]) -> str:
        """Write steps of a claimed export, waiting while Redis is away."""
        return str(await self._run("commit", export_id, token, *(part for step in steps for part in step)))

    async def refuse(self, claim: Claim, error: LabrelayError) -> None:
        """End a claimed export that no worker can read, so that a person sees it instead of a loop."""
        await self.commit(claim.export_id, claim.row["token"], [("settle", ExportState.DEAD, f"0 {error}")])

    async def sweep(self, *, leader_seconds: float, grace: float, limit: int = 640) -> list[Wake] | None:
        """Take what is due, if this process leads; None: another one does."""
        answer = await self._scripts.run(
            "sweep", self._keys.prefix, self.owner, int(leader_seconds * 1000), int(grace * 1000), limit
        )
        if answer is None:
            return None
        return [Wake(*answer[i : i + 4]) for i in range(0, len(answer), 4)]

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

    async def _run(self, script: str, *arguments: str | int) -> Any:
        pause, give_up_at = _FIRST_PAUSE, time.monotonic() + _PATIENCE
        while True:
            try:
                return await self._scripts.run(script, self._keys.prefix, *arguments)
            except Exception as error:
                if not (isinstance(error, AWAY) or is_full(error)) or time.monotonic() > give_up_at:
                    raise
                _logger.warning(
                    "the ledger does not answer (%s); this worker waits and writes when it is back",
                    type(error).__name__,
                )
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)


class LedgerJob:
    """One claimed export as the engine sees it (`labrelay_worker.engine.Job`)."""

    def __init__(self, ledger: WorkerLedger, claim: Claim) -> None:
        row = claim.row
        self._ledger = ledger
        self.export_id, self.token = claim.export_id, row["token"]
        self.session, self.instrument = row["session"], row["instrument"]
        self.named = destinations_of(row)
        self.named_strategy = row["strategy"]
        self.strategy = Strategy.ALL
        self.created = from_ms(row["created"]).timestamp()
        self.runs = int(row["runs"])
        self.receipts = _receipts(row, FIELD_RECEIPT)
        intents = {n: json.loads(v) for n, v in by_destination(row, FIELD_INTENT).items() if n not in self.receipts}
        self.open_intents = set(intents)
        revision = int(row["revision"])
        self.earlier_intents = {
            n: i["revision"] for n, i in intents.items() if i.get("revision", revision) < revision
        }
        self.context = ExportContext.parse(row["context"], source=f"export {claim.export_id}").of_revision(
            revision, _receipts(row, FIELD_PREVIOUS_RECEIPT)
        )
        self.cancel_requested = row.get("cancel") == "1"
        self.lease_until = claim.asked_at + ledger.lease_seconds
        self._clock = claim.server_now - claim.asked_at
        self._known = {n: Delivery.model_validate_json(v) for n, v in by_destination(row, FIELD_DELIVERY).items()}
        self.deliveries: dict[str, Delivery] = {}

    def choose(self, strategy: Strategy, names: Sequence[str]) -> None:
        """Fix strategy and destinations for this run; a receipt counts whatever else is written."""
        self.strategy = strategy
        for name in names:
            known = self._known.get(name, Delivery())
            if name in self.receipts:
                known = known.model_copy(update={"state": DeliveryState.DELIVERED})
            self.deliveries[name] = known

    def now(self) -> float:
        """Return the server's time, epoch seconds; the worker's own clock may be wrong."""
        return self._clock + time.monotonic()

    def lose(self) -> None:
        """Take note that another worker owns the export."""
        self.lease_until = float("-inf")

    def require_lease(self) -> None:
        """Raise `LeaseLost` if the lease may have ended."""
        if time.monotonic() >= self.lease_until:
            raise LeaseLost

    async def write_intent(self, name: str) -> None:
        """Record that a send is about to begin."""
        attempt = self.deliveries[name].attempts + 1
        now, revision = round(self.now(), 3), self.context.revision
        intent = json.dumps({"attempt": attempt, "at": now, "worker": self._ledger.owner, "revision": revision})
        await self._commit(("intent", name, intent), self._note("sending", name, f"attempt {attempt}"))
        self.open_intents.add(name)
        self.earlier_intents.pop(name, None)

    async def write_receipt(self, name: str, receipt: Receipt) -> None:
        """Record a confirmed delivery."""
        receipt = receipt.model_copy(update={"at": from_ms(self.now() * 1000), "worker": self._ledger.owner})
        before = self.deliveries[name]
        delivery = Delivery(
            state=DeliveryState.DELIVERED, attempts=before.attempts + 1, first_at=before.first_at or self.now()
        )
        detail = receipt.record_url or receipt.record_id or ""
        await self._commit(
            ("receipt", name, receipt.model_dump_json(exclude_none=True)),
            ("delivery", name, delivery.model_dump_json(exclude_none=True)),
            self._note("adopted" if receipt.adopted else "delivered", name, detail),
        )
        self.receipts[name], self.deliveries[name] = receipt, delivery
        self.open_intents.discard(name)

    async def write_previous(self, name: str, receipt: Receipt) -> None:
        """Record that the earlier revision had arrived: what this one updates, not its own receipt."""
        detail = f"revision {self.earlier_intents[name]}, found before revision {self.context.revision} is sent"
        await self._commit(
            ("previous", name, receipt.model_dump_json(exclude_none=True)), self._note("adopted", name, detail)
        )
        self.open_intents.discard(name)
        del self.earlier_intents[name]

    async def write_failure(self, name: str, delivery: Delivery, *, doubtful: bool) -> None:
        """Record a failed attempt; a doubtful one keeps its intent open, so that it is asked about."""
        steps = [
            ("delivery", name, delivery.model_dump_json(exclude_none=True)),
            self._note(delivery.state, name, f"{delivery.error_kind}: {delivery.error_message}"),
        ]
        if not doubtful:
            steps.append(("close", name, ""))
        await self._commit(*steps)
        self.deliveries[name] = delivery
        if not doubtful:
            self.open_intents.discard(name)

    async def write_skips(self, names: list[str], reason: str) -> None:
        """Record destinations that are not needed."""
        skipped = Delivery(state=DeliveryState.SKIPPED, reason=reason)
        text = skipped.model_dump_json(exclude_none=True)
        await self._commit(*(("delivery", name, text) for name in names))
        self.deliveries.update(dict.fromkeys(names, skipped))

    async def settle(
        self, state: ExportState, summary: str, *, not_before: float = 0.0, held_by: Sequence[str] = ()
    ) -> None:
        """Give the export back with its state; it is woken earlier when a destination in `held_by` takes again."""
        at = int(not_before * 1000) if not state.is_final else 0
        holds = [("hold", name, "") for name in held_by]
        await self._commit(*holds, self._note(state, None, summary), ("settle", state, f"{max(at, 0)} {summary}"))

    async def _commit(self, *steps: tuple[str, str, str]) -> None:
        answer = await self._ledger.commit(self.export_id, self.token, steps)
        if answer in ("lost", "confirmed"):
            self.lose()
            raise LeaseLost
        self.cancel_requested |= answer == "cancel"

    def _note(self, event: str, name: str | None, detail: str) -> tuple[str, str, str]:
        entry = {"event": str(event), "worker": self._ledger.owner, "destination": name, "detail": detail}
        return "note", "", json.dumps({k: v for k, v in entry.items() if v}, ensure_ascii=False)


def _receipts(row: Row, kind: str) -> dict[str, Receipt]:
    return {name: Receipt.model_validate_json(value) for name, value in by_destination(row, kind).items()}
