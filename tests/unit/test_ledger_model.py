"""The ledger's state machine against a simple model, under random interleavings of everybody who writes to it.

Producers submit, replace, cancel and replay; workers, alive, frozen or dead, claim and commit; leases end, the
reconciler sweeps, packs and retires, a crash comes between archive and removal. After every step:

- an id is in exactly one state index, that of its row, or it is archived: a tombstone and no row;
- what is unfinished is due, and nothing else is;
- a receipt is lost by nothing but a replacement, not even by packing or the archive, and no step of a trail is;
- a write with an old token changes nothing at all.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fakeredis
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from labrelay.archive import Archive
from labrelay.deadletters import REPLAYABLE, DeadLetters, doubts_of
from labrelay.ledger import Entry, Ledger
from labrelay.names import Keys
from labrelay.packed import whole_export, whole_row
from labrelay.priorities import Priority
from labrelay.results import ExportState, Receipt, utc_now
from labrelay_worker.ledger import Claim, Places, WorkerLedger
from labrelay_worker.packing import Packing
from labrelay_worker.retirement import RETIRED, Retirement

KEYS = Keys("test:")
EXPORTS = ("one", "two", "three")
DESTINATIONS = ("cdcs", "notebook")
POISON_LIMIT = 4
SUSPICIOUS = 2
GIVEN_BACK = (ExportState.QUEUED, ExportState.WAITING)
ENDED = (ExportState.DELIVERED, ExportState.DEAD, ExportState.UNKNOWN)


@dataclass
class Model:
    """What the ledger should know of one export."""

    content: str
    state: ExportState = ExportState.QUEUED
    revision: int = 1
    token: int = 0
    lease: bool = False
    held: bool = False  # by the lease of the revision before
    cancel: bool = False
    crashes: int = 0
    archived: bool = False
    trail_begins: bool = True  # no part of it went to the archive
    receipts: set[str] = field(default_factory=set)
    previous: set[str] = field(default_factory=set)
    intents: dict[str, int] = field(default_factory=dict)  # destination to the revision that was being sent

    def next_owner(self, state: ExportState) -> None:
        """Void every token handed out so far."""
        self.token += 1
        self.state, self.lease, self.cancel, self.crashes = state, False, False, 0


#: A revision that waits for the lease of the one before does so over a cancel.
HELD = (ExportState.QUEUED, ExportState.CANCELLED)


class Crash(Exception):
    """The process died here."""


def receipt(destination: str) -> str:
    return Receipt(destination=destination, record_id="7", at=utc_now()).model_dump_json(exclude_none=True)


class LedgerMachine(RuleBasedStateMachine):
    """Everybody who writes to the ledger, in any order."""

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.archive = Archive(Path(self.folder.name))
        server = fakeredis.FakeServer()
        self.redis = fakeredis.FakeRedis(server=server, decode_responses=True)
        self.client = fakeredis.FakeAsyncRedis(server=server, decode_responses=True)
        self.runner = asyncio.Runner()
        self.ledger = Ledger(self.redis, KEYS, wake_up_grace=3600)
        self.letters = DeadLetters(self.redis, KEYS, self.ledger, wake_up_grace=3600, archive=self.archive)
        self.worker = WorkerLedger(self.client, KEYS, owner="worker", lease_seconds=3600, poison_limit=POISON_LIMIT)
        self.packing = Packing(self.client, KEYS)
        self.retirement = Retirement(self.client, KEYS, self.archive)
        self.models: dict[str, Model] = {}
        self.claims: list[tuple[str, str]] = []
        self.suspects: set[str] = set()
        self.handful = 1

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.runner.run(self.client.aclose())
            self.runner.close()
            self.redis.close()
            self.folder.cleanup()

    # --- producers --------------------------------------------------------------------------------------

    @rule(
        export=st.sampled_from(EXPORTS),
        content=st.sampled_from("ab"),
        replace=st.booleans(),
        priority=st.sampled_from(Priority),
    )
    def submit(self, export: str, content: str, replace: bool, priority: Priority) -> None:
        entry = Entry(export, content, "{}", f"session {export}", "instrument", "", (), priority)
        answer = self.ledger.submit([entry], replace=replace)[0]
        model = self.models.get(export)
        if model is None:
            assert answer.outcome == "accepted"
            self.models[export] = Model(content)
            return
        if model.content == content and not (replace and model.state in REPLAYABLE):
            assert answer.outcome == "duplicate"
        elif not replace:
            assert answer.outcome == "conflict"
        else:
            assert answer.outcome == "replaced"
            model.held = model.lease or (model.state in HELD and model.held)
            model.next_owner(ExportState.QUEUED)
            model.previous |= model.receipts
            model.receipts = set()
            model.trail_begins = model.trail_begins and not model.archived
            model.content, model.archived, model.revision = content, False, model.revision + 1
        assert (answer.state, answer.revision) == (model.state, model.revision)

    @precondition(lambda self: self.present())
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        export, model = self._any(data)
        answer = self.ledger.cancel(export)
        if model.state.is_final:
            assert answer == model.state
        elif model.lease:
            assert answer == "cancelling"
            model.cancel = True
        else:
            assert answer == "cancelled"
            crashes = model.crashes
            model.next_owner(ExportState.CANCELLED)
            model.crashes = crashes

    # --- a person ---------------------------------------------------------------------------------------

    @precondition(lambda self: self.present())
    @rule(data=st.data(), assume=st.sampled_from([None, "delivered", "missing"]))
    def replay(self, data: st.DataObject, assume: Any) -> None:
        export, model = self._any(data)
        letter = self.ledger.status(export)
        done, wake, _ = self.letters.replay(letter, assume=assume)
        if model.state not in REPLAYABLE:
            assert (done.outcome, wake) == (model.state, None)
            return
        assert done.is_done
        assert set(doubts_of(letter)) == set(model.intents)
        model.held = model.state in HELD and model.held
        model.next_owner(ExportState.QUEUED)
        if assume == "delivered":
            for name, revision in model.intents.items():
                (model.receipts if revision == model.revision else model.previous).add(name)
        if assume:
            model.intents = {}

    @precondition(lambda self: self.present())
    @rule(data=st.data())
    def replay_of_what_changed_since_it_was_seen(self, data: st.DataObject) -> None:
        export, model = self._any(data)
        letter = self.ledger.status(export)
        stale = letter.model_copy(update={"updated": letter.created.replace(year=1990)})
        before = self._everything(export)
        done, *_ = self.letters.replay(stale)
        assert done.outcome == ("changed" if model.state in REPLAYABLE else model.state)
        assert self._everything(export) == before

    @precondition(lambda self: self.present())
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        export, model = self._any(data)
        done = next(iter(self.letters.drop([self.ledger.status(export)])))
        assert done.outcome == ("removed" if model.state.is_final else "changed")
        model.archived = done.is_done

    @precondition(lambda self: self.present())
    @rule(data=st.data())
    def drop_of_what_changed_since_it_was_seen(self, data: st.DataObject) -> None:
        export, _ = self._any(data)
        letter = self.ledger.status(export)
        before = self._everything(export)
        stale = letter.model_copy(update={"updated": letter.created.replace(year=1990)})
        assert next(iter(self.letters.drop([stale]))).outcome == "changed"
        assert self._everything(export) == before

    # --- workers ----------------------------------------------------------------------------------------

    @precondition(lambda self: self.models)
    @rule(data=st.data())
    def claim(self, data: st.DataObject) -> None:
        self._claim(data.draw(st.sampled_from(sorted(self.models))))

    @precondition(lambda self: self.present())
    @rule(data=st.data(), times=st.integers(1, POISON_LIMIT + 1))
    def its_workers_die(self, data: st.DataObject, times: int) -> None:
        export, _ = self._any(data)
        for _ in range(times):
            self._end_lease(export)
            self._claim(export)

    def _claim(self, export: str) -> None:
        self._note_claim(export, self.runner.run(self.worker.claim(export)))
        assert export not in self._ready()

    def _note_claim(self, export: str, answer: Claim | str) -> None:
        model = self.models[export]
        if model.archived or model.state.is_final or model.lease or model.held:
            expected = "missing" if model.archived else "finished" if model.state.is_final else None
            assert answer == expected or (expected is None and answer == ("leased" if model.lease else "later"))
            return
        if model.cancel:
            assert answer == "finished"
            model.state, model.cancel = ExportState.CANCELLED, False
            return
        crashes = model.crashes + (model.state is ExportState.RUNNING)
        if model.state is ExportState.RUNNING and crashes >= POISON_LIMIT:
            assert answer == "poisoned"
            model.next_owner(ExportState.DEAD)
            return
        if crashes >= SUSPICIOUS and not self._is_admitted(export, crashes):
            assert answer == "suspect"
            return
        assert isinstance(answer, Claim), answer
        model.crashes, model.state, model.lease, model.token = crashes, ExportState.RUNNING, True, model.token + 1
        assert answer.row["token"] == str(model.token)
        self.claims.append((export, answer.row["token"]))

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), destination=st.sampled_from(DESTINATIONS))
    def intend(self, data: st.DataObject, destination: str) -> None:
        export, token, model = self._any_claim(data)
        intent = json.dumps({"revision": model.revision})
        if destination in model.receipts and self._writes(model, token):
            assert self._commit(export, token, ("intent", destination, intent)) == "confirmed"
        elif self._written(export, token, ("intent", destination, intent)):
            model.intents[destination] = model.revision

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), destination=st.sampled_from(DESTINATIONS))
    def confirm(self, data: st.DataObject, destination: str) -> None:
        export, token, model = self._any_claim(data)
        if self._written(export, token, ("receipt", destination, receipt(destination))):
            model.receipts.add(destination)
            model.intents.pop(destination, None)
            model.crashes = 0

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), destination=st.sampled_from(DESTINATIONS), doubtful=st.booleans())
    def fail(self, data: st.DataObject, destination: str, doubtful: bool) -> None:
        export, token, model = self._any_claim(data)
        steps = [("delivery", destination, "{}"), *([] if doubtful else [("close", destination, "")])]
        if self._written(export, token, *steps) and not doubtful:
            model.intents.pop(destination, None)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), destination=st.sampled_from(DESTINATIONS))
    def find_an_earlier_revision(self, data: st.DataObject, destination: str) -> None:
        export, token, model = self._any_claim(data)
        if self._written(export, token, ("previous", destination, receipt(destination))):
            model.previous.add(destination)
            model.intents.pop(destination, None)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), state=st.sampled_from([*GIVEN_BACK, *ENDED]))
    def settle(self, data: st.DataObject, state: ExportState) -> None:
        export, token, model = self._any_claim(data)
        cancelled = model.cancel and state in GIVEN_BACK
        if self._written(export, token, ("settle", state, "0 as it stands")):
            model.state = ExportState.CANCELLED if cancelled else state
            model.lease, model.cancel, model.crashes = False, False, 0

    # --- time, the reconciler, and crashes --------------------------------------------------------------

    @precondition(lambda self: self.present())
    @rule(data=st.data())
    def a_lease_ends(self, data: st.DataObject) -> None:
        self._end_lease(self._any(data)[0])

    def _end_lease(self, export: str) -> None:
        model = self.models[export]
        if model.lease:
            self.redis.hset(KEYS.export(export), "lease_until", 1)
        if model.held:
            self.redis.hset(KEYS.export(export), "not_before", 0)
        model.lease = model.held = False

    @precondition(lambda self: self.present())
    @rule(data=st.data())
    def sweep(self, data: st.DataObject) -> None:
        export, model = self._any(data)
        if not model.state.is_final:
            self.redis.zadd(KEYS.due, {export: 1})
        due = self.runner.run(self.worker.sweep(leader_seconds=60, grace=3600))
        assert due is not None
        assert [wake.export_id for wake in due.first] == ([] if model.state.is_final else [export])
        assert model.state.is_final or export in self._ready()

    @precondition(lambda self: self.models)
    @rule(free=st.integers(0, 3))
    def a_wake_up_takes_what_is_ready(self, free: int) -> None:
        for priority in Priority:  # those of one millisecond would come in any order
            waiting = sorted(self.redis.zrange(KEYS.ready(priority), 0, -1))
            if waiting:
                self.redis.zadd(KEYS.ready(priority), {export: at for at, export in enumerate(waiting)})
        ready = self._ready()
        taken = self.runner.run(self.worker.take([], Places(free, left=64)))
        answers = {claim.export_id: claim for claim in taken.claims} | taken.refused
        assert set(answers) == set(ready[:free])
        for export in ready[:free]:
            self._note_claim(export, answers[export])

    @rule()
    def pack(self) -> None:
        before = {export: self._seen(export) for export in self.present()}
        self.redis.delete(KEYS.packed_until)  # all happens within a few milliseconds here
        self.runner.run(self.packing.run(-1))
        assert {export: self._seen(export) for export in self.present()} == before
        for export in self.present():
            packed = self.models[export].state is ExportState.DELIVERED
            assert self.redis.exists(KEYS.packed(export)) == packed
            assert self.redis.hexists(KEYS.export(export), "context") is not packed

    @rule()
    def retire(self) -> None:
        removed = self.runner.run(self.retirement.step(-1))
        gone = [model for model in self.models.values() if not model.archived and model.state in RETIRED]
        assert removed == len(gone)
        for model in gone:
            model.archived = True

    @rule()
    def crash_between_archive_and_removal(self) -> None:
        async def crash(**_: Any) -> str:
            raise Crash

        retirement = Retirement(self.client, KEYS, self.archive)
        retirement._remove = crash  # type: ignore[assignment]
        if any(not m.archived and m.state in RETIRED for m in self.models.values()):
            with pytest.raises(Crash):
                self.runner.run(retirement.step(-1))

    # --- what always holds ------------------------------------------------------------------------------

    @invariant()
    def an_id_is_in_the_index_of_its_state_alone(self) -> None:
        for export, model in getattr(self, "models", {}).items():
            found = {state for state in ExportState if self.redis.zscore(KEYS.state(state), export) is not None}
            row = self.redis.hgetall(KEYS.export(export))
            assert found == (set() if model.archived else {model.state})
            assert bool(row) is not model.archived
            assert self.redis.hexists(KEYS.archived, export) is model.archived
            assert model.archived or row["state"] == model.state

    @invariant()
    def what_is_unfinished_is_due_and_nothing_else(self) -> None:
        unfinished = {e for e, m in getattr(self, "models", {}).items() if not m.archived and not m.state.is_final}
        if hasattr(self, "redis"):
            assert set(self.redis.zrange(KEYS.due, 0, -1)) == unfinished

    @invariant()
    def nothing_is_ready_twice(self) -> None:
        if hasattr(self, "redis"):
            assert len(self._ready()) == len(set(self._ready()))

    @invariant()
    def rows_and_tombstones_hold_what_the_model_holds(self) -> None:
        for export, model in getattr(self, "models", {}).items():
            kept = self.redis.hget(KEYS.archived, export)
            row = whole_row(json.loads(kept)) if model.archived else self._whole(export)[0]
            named = {kind: {f[2:] for f in row if f.startswith(kind)} for kind in ("r:", "p:", "i:")}
            assert named["r:"] == model.receipts
            assert named["p:"] | model.receipts == model.previous | model.receipts
            assert named["i:"] == set(model.intents)
            assert (row["digest"], int(row["revision"])) == (model.content, model.revision)
            assert int(row["token"]) == model.token
            assert int(row.get("crashes", 0)) == model.crashes or model.state is ExportState.DEAD

    @invariant()
    def the_archive_has_all_there_was(self) -> None:
        for export, model in getattr(self, "models", {}).items():
            if model.archived:
                where = self.ledger.status(export).archived
                assert where is not None
                record = Archive.find(Path(where.file), export)
                assert record is not None
                assert (record["state"], set(record["receipts"])) == (model.state, model.receipts)
                assert record["trail"][0]["event"] == ("accepted" if model.trail_begins else "replaced")
                assert record["context"] == {}

    # --- helpers ----------------------------------------------------------------------------------------

    def _ready(self) -> list[str]:
        return [export for priority in Priority for export in self.redis.zrange(KEYS.ready(priority), 0, -1)]

    def present(self) -> list[str]:
        return sorted(export for export, model in self.models.items() if not model.archived)

    def _any(self, data: st.DataObject) -> tuple[str, Model]:
        export = data.draw(st.sampled_from(self.present()))
        return export, self.models[export]

    def _any_claim(self, data: st.DataObject) -> tuple[str, str, Model]:
        # The latest claims first: those of workers that lost theirs are tried too, but not most of the time.
        export, token = data.draw(st.sampled_from(self.claims[::-1]))
        return export, token, self.models[export]

    def _is_admitted(self, export: str, crashes: int) -> bool:
        models = {name: self.models[name] for name in self.suspects}
        alive = {n: m for n, m in models.items() if not m.archived and m.state is ExportState.RUNNING}
        running = {n: m.crashes for n, m in alive.items() if m.lease and m.crashes >= SUSPICIOUS}
        any_died = any(not model.lease for model in alive.values())
        self.handful = 1 if any_died else self.handful + len(models) - len(running)
        alone = any(deaths > SUSPICIOUS for deaths in (crashes, *running.values()))
        is_admitted = len(running) < (1 if alone else self.handful)
        self.suspects = {*running, export} if is_admitted else set(running)
        return is_admitted

    def _writes(self, model: Model, token: str) -> bool:
        return not model.archived and model.state is ExportState.RUNNING and str(model.token) == token

    def _commit(self, export: str, token: str, *steps: tuple[str, str, str]) -> str:
        return self.runner.run(self.worker.commit(export, token, steps))

    def _written(self, export: str, token: str, *steps: tuple[str, str, str]) -> bool:
        model, before = self.models[export], self._everything(export)
        answer = self._commit(export, token, *steps)
        if not self._writes(model, token):
            assert answer == "lost"
            assert self._everything(export) == before
            return False
        assert answer == ("cancel" if model.cancel else "ok")
        return True

    def _whole(self, export: str) -> tuple[Mapping[str, str], list[str]]:
        row = self.redis.hgetall(KEYS.export(export))
        lines = self.redis.lrange(KEYS.trail(export), 0, -1)
        flat = [part for pair in row.items() for part in pair]
        return whole_export((flat, lines, self.redis.get(KEYS.packed(export)) or ""))

    def _seen(self, export: str) -> list[Any]:
        return [self.ledger.status(export), self.ledger.trail(export)]

    def _everything(self, export: str) -> list[Any]:
        indexes = [KEYS.due, *(KEYS.state(state) for state in ExportState)]
        return [
            self.redis.hgetall(KEYS.export(export)),
            self.redis.lrange(KEYS.trail(export), 0, -1),
            self.redis.get(KEYS.packed(export)),
            self.redis.hget(KEYS.archived, export),
            *(self.redis.zscore(index, export) for index in indexes),
        ]


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
