"""One claimed export as the engine sees it: what its row says, and the writes of its lease's holder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import orjson

from labrelay.context import ExportContext
from labrelay.errors import Held, LeaseLost
from labrelay.names import FIELD_DELIVERY, FIELD_INTENT, FIELD_PREVIOUS_RECEIPT, FIELD_RECEIPT
from labrelay.packed import whole_row
from labrelay.priorities import Priority
from labrelay.results import Delivery, DeliveryState, ExportState, Receipt
from labrelay.rows import Row, by_destination, destinations_of, from_ms
from labrelay.strategies import Strategy
from labrelay_worker.leasing import Lease
from labrelay_worker.ledger import Claim, Step, WorkerLedger
from labrelay_worker.writing import Then, Write, Writes

_PENDING = Delivery()


class LedgerJob:
    """One claimed export as the engine sees it (`labrelay_worker.engine.Job`)."""

    def __init__(self, ledger: WorkerLedger, claim: Claim) -> None:
        row = whole_row(claim.row)
        known = {field: value for field, value in row.items() if field[1:2] == ":"}  # of single destinations
        begun = by_destination(known, FIELD_INTENT)
        self._ledger = ledger
        self.export_id = claim.export_id
        self.session, self.instrument = row["session"], row["instrument"]
        self.named = destinations_of(row)
        self.priority = Priority(row.get("priority", Priority.NORMAL))
        self.named_strategy = row["strategy"]
        self.strategy = Strategy.ALL
        self.created = float(row["created"]) / 1000
        self.runs = int(row["runs"])
        self.receipts = _receipts(known, FIELD_RECEIPT)
        intents = {n: orjson.loads(v) for n, v in begun.items() if n not in self.receipts}
        self.open_intents = set(intents)
        revision = int(row["revision"])
        self.earlier_intents = {
            n: i["revision"] for n, i in intents.items() if i.get("revision", revision) < revision
        }
        context = ExportContext.parse(row["context"], source=f"export {claim.export_id}")
        self.context = context._number(revision, _receipts(known, FIELD_PREVIOUS_RECEIPT))
        self.lease = ledger.lease_of(claim)
        self._clock = claim.server_now - claim.asked_at
        self._known = {n: Delivery.read(v) for n, v in by_destination(known, FIELD_DELIVERY).items()}
        self.deliveries: dict[str, Delivery] = {}
        #: State and summary as last given back.
        self.settled: tuple[ExportState, str] = (ExportState.RUNNING, "")
        # Not a method of the job's own: in a circle with it, everything here would wait for the collector.
        self._writes = Writes(_writer(ledger, self.lease))

    def choose(self, strategy: Strategy, names: Sequence[str]) -> None:
        """Fix strategy and destinations for this run; a receipt counts whatever else is written."""
        self.strategy = strategy
        for name in names:
            known = self._known.get(name, _PENDING)
            if name in self.receipts:
                known = known.model_copy(update={"state": DeliveryState.DELIVERED})
            self.deliveries[name] = known

    def now(self) -> float:
        """Return the server's time, epoch seconds; the worker's own clock may be wrong."""
        return self._clock + time.monotonic()

    @property
    def cancel_requested(self) -> bool:
        """Whether somebody wants it to stop."""
        return self.lease.cancel_requested

    def require_lease(self) -> None:
        """Raise `LeaseLost` if the lease may have ended."""
        self.lease.require()

    async def write_intent(self, name: str) -> None:
        """Record that a send is about to begin."""
        attempt = self.deliveries[name].attempts + 1
        now, revision = round(self.now(), 3), self.context.revision
        intent = _json({"attempt": attempt, "at": now, "worker": self._ledger.owner, "revision": revision})
        answer = await self._commit(("intent", name, intent), self._note("sending", name, f"attempt {attempt}"))
        if answer == "cancel":
            # It was asked for during the call before this one, and is heard of only now.
            if name not in self.open_intents:
                await self._commit(("close", name, ""), self._note("not sent", name, "a cancel was asked for"))
            raise Held("a cancel was asked for")
        self.open_intents.add(name)
        self.earlier_intents.pop(name, None)

    async def write_receipt(self, name: str, receipt: Receipt) -> None:
        """Record a confirmed delivery: it is on its way at once, and all that is written later comes after it."""
        receipt = receipt.with_values(at=from_ms(self.now() * 1000), worker=self._ledger.owner)
        before = self.deliveries[name]
        delivery = Delivery(
            state=DeliveryState.DELIVERED, attempts=before.attempts + 1, first_at=before.first_at or self.now()
        )
        detail = receipt.record_url or receipt.record_id or ""
        self._writes.put(
            ("receipt", name, receipt.model_dump_json(exclude_none=True)),
            ("delivery", name, delivery.model_dump_json(exclude_none=True)),
            self._note("adopted" if receipt.adopted else "delivered", name, detail),
        )
        self.receipts[name], self.deliveries[name] = receipt, delivery
        self.open_intents.discard(name)

    async def written(self) -> None:
        """Wait until all that was to be written is; raises `LeaseLost`."""
        await self._writes.done()

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

    async def write_link(self, name: str, receipt: Receipt) -> None:
        """Record that a delivered entry has its link by now."""
        before = self.receipts[name]
        receipt = receipt.model_copy(
            update={"at": before.at, "worker": before.worker, "attempt": before.attempt, "adopted": before.adopted}
        )
        delivery = Delivery(state=DeliveryState.DELIVERED, attempts=before.attempt)
        await self._commit(
            ("receipt", name, receipt.model_dump_json(exclude_none=True)),
            ("delivery", name, delivery.model_dump_json(exclude_none=True)),
            self._note("linked", name, " and ".join(before.unlinked)),
        )
        self.receipts[name], self.deliveries[name] = receipt, delivery

    async def write_failed_link(self, name: str, delivery: Delivery) -> None:
        """Record that a delivered entry's link could not be added."""
        await self._commit(
            ("delivery", name, delivery.model_dump_json(exclude_none=True)),
            self._note("not linked", name, f"{delivery.error_kind}: {delivery.error_message}"),
        )
        self.deliveries[name] = delivery

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
        self.settled = state, summary

    async def _commit(self, *steps: Step) -> str:
        return await self._writes.begin(*steps)

    def _note(self, event: str, name: str | None, detail: str) -> Step:
        entry = {"event": str(event), "worker": self._ledger.owner}
        if name:
            entry["destination"] = name
        if detail:
            entry["detail"] = detail
        return "note", "", _json(entry)


def _writer(ledger: WorkerLedger, lease: Lease) -> Write[Step]:
    def write(steps: Callable[[], Sequence[Step]], then: Then) -> None:
        def answered(answer: str | BaseException) -> None:
            if answer in ("lost", "confirmed"):
                lease.lose()
                then(LeaseLost())
                return
            lease.cancel_requested |= answer == "cancel"
            then(answer)

        ledger.begin_commit(lease.export_id, lease.token, steps, answered)

    return write


def _json(value: Mapping[str, object]) -> str:
    return orjson.dumps(value).decode()


def _receipts(row: Row, kind: str) -> dict[str, Receipt]:
    return {name: Receipt.read(value) for name, value in by_destination(row, kind).items()}
