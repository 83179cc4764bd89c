"""The ledger under every interleaving: exactly what is unfinished is due, and old tokens write nothing."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field

import fakeredis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from labrelay.ledger import Entry, Ledger
from labrelay.names import Keys
from labrelay.results import ExportState
from labrelay_worker.ledger import Claim, WorkerLedger

KEYS = Keys("test:")
EXPORTS = ("one", "two")
DESTINATIONS = ("cdcs", "notebook")
GIVEN_BACK = (ExportState.QUEUED, ExportState.WAITING)
FINAL = (ExportState.DELIVERED, ExportState.DEAD, ExportState.UNKNOWN)


@dataclass
class Modelled:
    """What one export must look like."""

    content: str
    state: ExportState = ExportState.QUEUED
    revision: int = 1
    token: int = 0
    lease: bool = False
    held_back: bool = False
    cancel: bool = False
    receipts: set[str] = field(default_factory=set)
    previous: set[str] = field(default_factory=set)
    intents: set[str] = field(default_factory=set)

    @property
    def claimable(self) -> bool:
        return not self.state.is_final and not self.lease and not self.held_back


class LedgerMachine(RuleBasedStateMachine):
    """Producers, workers alive and frozen, a reconciler and passing time, in any order."""

    @initialize()
    def start(self) -> None:
        self.server = fakeredis.FakeServer()
        self.redis = fakeredis.FakeRedis(server=self.server, decode_responses=True)
        self.ledger = Ledger(self.redis, KEYS, wake_up_grace=3600)
        self.runner = asyncio.Runner()
        self.client = fakeredis.FakeAsyncRedis(server=self.server, decode_responses=True)
        self.worker = WorkerLedger(self.client, KEYS, owner="worker", lease_seconds=3600)
        self.exports: dict[str, Modelled] = {}
        self.claims: list[tuple[str, str]] = []  # also those of workers that lost them

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.runner.run(self.client.aclose())
            self.runner.close()
            self.redis.close()

    # --- what may happen ------------------------------------------------------------------------------

    @rule(export=st.sampled_from(EXPORTS), content=st.sampled_from("ab"), replace=st.booleans())
    def submit(self, export: str, content: str, replace: bool) -> None:
        answer = self.ledger.submit(
            [Entry(export, content, "{}", f"session {export}", "i", "", ())], replace=replace
        )[0]
        model = self.exports.get(export)
        if model is None:
            assert answer.outcome == "accepted"
            self.exports[export] = Modelled(content)
            return
        ended = model.state.is_final and model.state is not ExportState.DELIVERED
        if model.content == content and not (replace and ended):
            assert answer.outcome == "duplicate"
        elif not replace:
            assert answer.outcome == "conflict"
        else:
            assert answer.outcome == "replaced"
            model.held_back = model.lease or (model.state is ExportState.QUEUED and model.held_back)
            model.previous |= model.receipts
            model.content, model.state, model.lease = content, ExportState.QUEUED, False
            model.revision, model.token, model.cancel = model.revision + 1, model.token + 1, False
            model.receipts = set()
        assert answer.revision == model.revision
        assert answer.state == model.state

    @precondition(lambda self: self.exports)
    @rule(data=st.data())
    def claim(self, data: st.DataObject) -> None:
        export, model = self._any(data)
        answer = self.runner.run(self.worker.claim(export))
        if not model.claimable:
            expected = "finished" if model.state.is_final else "leased" if model.lease else "later"
            assert answer == expected
        elif model.cancel:
            assert answer == "finished"
            model.state, model.cancel = ExportState.CANCELLED, False
        else:
            assert isinstance(answer, Claim)
            model.state, model.lease, model.token = ExportState.RUNNING, True, model.token + 1
            assert answer.row["token"] == str(model.token)
            self.claims.append((export, answer.row["token"]))

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), destination=st.sampled_from(DESTINATIONS))
    def intent(self, data: st.DataObject, destination: str) -> None:
        export, token, model = self._any_claim(data)
        answer = self._commit(export, token, ("intent", destination, "{}"))
        if self._may_write(model, token) and destination in model.receipts:
            assert answer == "confirmed"
        elif self._expect(answer, model, token):
            model.intents.add(destination)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), destination=st.sampled_from(DESTINATIONS))
    def receipt(self, data: st.DataObject, destination: str) -> None:
        export, token, model = self._any_claim(data)
        answer = self._commit(export, token, ("receipt", destination, json.dumps(model.revision)))
        if self._expect(answer, model, token):
            model.receipts.add(destination)
            model.intents.discard(destination)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), state=st.sampled_from(GIVEN_BACK + FINAL), later=st.booleans())
    def settle(self, data: st.DataObject, state: ExportState, later: bool) -> None:
        export, token, model = self._any_claim(data)
        held_back = later and state is ExportState.WAITING
        answer = self._commit(export, token, ("settle", state, f"{2**45 if held_back else 0} summary"))
        if self._expect(answer, model, token):
            cancelled = model.cancel and state in GIVEN_BACK
            model.state = ExportState.CANCELLED if cancelled else state
            model.lease, model.cancel = False, False
            model.held_back = held_back and not cancelled

    @precondition(lambda self: self.exports)
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
            model.state, model.cancel, model.token = ExportState.CANCELLED, False, model.token + 1

    @precondition(lambda self: self.exports)
    @rule(data=st.data())
    def worker_falls_silent_until_its_lease_ends(self, data: st.DataObject) -> None:
        export, model = self._any(data)
        if model.lease:
            self.redis.hset(KEYS.export(export), "lease_until", 1)
            model.lease = False

    @precondition(lambda self: self.exports)
    @rule(data=st.data())
    def back_off_ends(self, data: st.DataObject) -> None:
        export, model = self._any(data)
        self.redis.hset(KEYS.export(export), "not_before", 0)
        model.held_back = False

    @precondition(lambda self: self.exports)
    @rule(data=st.data(), due=st.sets(st.sampled_from(EXPORTS)))
    def sweep(self, data: st.DataObject, due: set[str]) -> None:
        for export in due & self.exports.keys():
            self.redis.zadd(KEYS.due, {export: 1}, xx=True)
        wakes = self.runner.run(self.worker.sweep(leader_seconds=60, grace=3600))
        overdue = {e for e in due & self.exports.keys() if not self.exports[e].state.is_final}
        # An export given back is due at once, so it may be among them too.
        assert overdue <= {wake.export_id for wake in wakes} <= self._unfinished()
        assert self.runner.run(self.worker.sweep(leader_seconds=60, grace=3600)) == []

    # --- what must always hold ------------------------------------------------------------------------

    @invariant()
    def what_is_unfinished_is_due_and_nothing_else(self) -> None:
        if hasattr(self, "exports"):
            assert set(self.redis.zrange(KEYS.due, 0, -1)) == self._unfinished()

    @invariant()
    def every_export_is_in_the_index_of_its_state_alone(self) -> None:
        for state in ExportState if hasattr(self, "exports") else ():
            expected = {export for export, model in self.exports.items() if model.state is state}
            assert set(self.redis.zrange(KEYS.state(state), 0, -1)) == expected

    @invariant()
    def rows_are_as_modelled(self) -> None:
        for export, model in getattr(self, "exports", {}).items():
            row = self.redis.hgetall(KEYS.export(export))
            assert (row["state"], int(row["revision"]), int(row["token"])) == (
                model.state, model.revision, model.token,
            )  # fmt: skip
            for kind, names in (("r:", model.receipts), ("i:", model.intents), ("p:", model.previous)):
                assert {name[2:] for name in row if name.startswith(kind)} == names
            assert ("lease_until" in row) == (model.state is ExportState.RUNNING)
            assert (row.get("cancel") == "1") == model.cancel

    # --- in short -------------------------------------------------------------------------------------

    def _any(self, data: st.DataObject) -> tuple[str, Modelled]:
        export = data.draw(st.sampled_from(sorted(self.exports)))
        return export, self.exports[export]

    def _any_claim(self, data: st.DataObject) -> tuple[str, str, Modelled]:
        export, token = data.draw(st.sampled_from(self.claims))
        return export, token, self.exports[export]

    def _commit(self, export: str, token: str, *steps: tuple[str, str, str]) -> str:
        return self.runner.run(self.worker.commit(export, token, steps))

    def _expect(self, answer: str, model: Modelled, token: str) -> bool:
        """Check the answer to a commit; return whether it was written."""
        if not self._may_write(model, token):
            assert answer == "lost"
            return False
        assert answer == ("cancel" if model.cancel else "ok")
        return True

    @staticmethod
    def _may_write(model: Modelled, token: str) -> bool:
        return model.state is ExportState.RUNNING and token == str(model.token)

    def _unfinished(self) -> set[str]:
        return {export for export, model in self.exports.items() if not model.state.is_final}


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
