"""Packing on a fake server: what was delivered takes little memory, and nobody who reads it notices."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import fakeredis
import pytest

from labrelay.archive import Archive
from labrelay.errors import InvalidInput
from labrelay.ledger import Entry, Ledger
from labrelay.names import FIELD_EARLIER, FIELD_PACKED, Keys
from labrelay.packed import pack, pack_receipts, whole_row, whole_trail
from labrelay.results import ExportState, Receipt, utc_now
from labrelay_worker.claimed import LedgerJob
from labrelay_worker.ledger import Claim, WorkerLedger
from labrelay_worker.packing import STEP, Packing
from labrelay_worker.retirement import Retirement

KEYS = Keys("test:")
NOW = -1.0  # seconds: whatever was delivered until this very moment


class Shelf:
    """A ledger with its worker, its packing and exports that end as they are told to."""

    def __init__(self, runner: asyncio.Runner) -> None:
        server = fakeredis.FakeServer()
        self.redis = fakeredis.FakeRedis(server=server, decode_responses=True)
        self.client = fakeredis.FakeAsyncRedis(server=server, decode_responses=True)
        self.runner = runner
        self.ledger = Ledger(self.redis, KEYS, wake_up_grace=30)
        self.worker = WorkerLedger(self.client, KEYS, owner="worker", lease_seconds=30)
        self.packing = Packing(self.client, KEYS)

    def submit(self, name: str, content: str = "a", *, replace: bool = False) -> str:
        context = json.dumps(
            {
                "xml_file_path": f"/data/{content}.xml",
                "session_identifier": name,
                "instrument_pid": "TEM",
                "dt_from": "2026-11-20T10:00:00Z",
                "dt_to": "2026-11-20T11:00:00Z",
            }
        )
        entry = Entry(name, content, context, name, "TEM", "", ())
        return self.ledger.submit([entry], replace=replace)[0].outcome

    def claim(self, name: str) -> LedgerJob:
        claim = self.runner.run(self.worker.claim(name))
        assert isinstance(claim, Claim)
        return LedgerJob(self.worker, claim)

    def end(self, name: str, state: ExportState = ExportState.DELIVERED) -> str:
        job = self.claim(name)
        receipt = Receipt(destination="cdcs", record_id="7", at=utc_now()).model_dump_json()
        steps = [("receipt", "cdcs", receipt), ("note", "", '{"event":"delivered"}'), ("settle", state, "0 1 of 1")]
        assert self.runner.run(self.worker.commit(name, job.lease.token, steps)) == "ok"
        return name

    def delivered(self, name: str) -> str:
        assert self.submit(name) == "accepted"
        return self.end(name)

    def pack(self, after: float = NOW) -> int:
        return self.runner.run(self.packing.run(after))

    def is_packed(self, name: str) -> bool:
        return bool(self.redis.exists(KEYS.packed(name)))


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    with asyncio.Runner() as runner:
        yield Shelf(runner)


def test_a_packed_export_reads_as_before(shelf: Shelf) -> None:
    # Given a delivered export
    shelf.delivered("a")
    status, trail, listed = shelf.ledger.status("a"), shelf.ledger.trail("a"), shelf.ledger.recent()

    # When it is packed
    assert shelf.pack() == 1

    # Then status, trail and list say what they said, and a second submit is a duplicate or a conflict
    assert (shelf.ledger.status("a"), shelf.ledger.trail("a"), shelf.ledger.recent()) == (status, trail, listed)
    assert (shelf.submit("a"), shelf.submit("a", "b")) == ("duplicate", "conflict")


def test_only_what_was_delivered_long_enough_ago_is_packed(shelf: Shelf) -> None:
    # Given an export in every stage
    shelf.submit("queued")
    shelf.submit("running")
    shelf.claim("running")
    shelf.submit("dead")
    shelf.end("dead", ExportState.DEAD)
    shelf.delivered("a")

    # When packing looks for what was delivered a minute ago, then nothing is packed
    assert shelf.pack(60) == 0

    # When it looks for all that was delivered, then that alone is packed
    assert shelf.pack() == 1
    assert [name for name in ("queued", "running", "dead", "a") if shelf.is_packed(name)] == ["a"]


def test_packing_goes_on_where_it_stood_until_all_is_packed(shelf: Shelf) -> None:
    # Given more exports than one step looks at, all delivered in the same millisecond
    names = [shelf.delivered(f"export {number}") for number in range(STEP + 30)]
    score = float(shelf.redis.zscore(KEYS.state("delivered"), names[0]) or 0)
    shelf.redis.zadd(KEYS.state("delivered"), dict.fromkeys(names, score))

    # When packing runs, then none is left behind
    assert shelf.pack() == len(names)
    assert all(map(shelf.is_packed, names))

    # When there is nothing new, then no export is read again
    assert shelf.runner.run(shelf.packing.step(NOW)) == (0, 0)


def test_what_changed_since_it_was_read_is_not_packed(shelf: Shelf) -> None:
    # Given an export that packing has read
    shelf.delivered("a")
    row, trail = shelf.redis.hgetall(KEYS.export("a")), shelf.redis.lrange(KEYS.trail("a"), 0, -1)

    # When a replacement comes before packing writes
    shelf.submit("a", "b", replace=True)
    answer = shelf.runner.run(shelf.packing._pack(args=[KEYS.prefix, "a", row["updated"], pack(row, trail)]))

    # Then nothing is written
    assert answer == ["changed"]
    assert not shelf.is_packed("a")
    assert json.loads(shelf.redis.hget(KEYS.export("a"), "context") or "")["xml_file_path"] == "/data/b.xml"


def test_the_next_revision_of_a_packed_export_knows_what_was_delivered(shelf: Shelf) -> None:
    # Given a packed export
    shelf.delivered("a")
    receipts = shelf.ledger.status("a").deliveries[0].receipt
    shelf.pack()

    # When it is replaced
    assert shelf.submit("a", "b", replace=True) == "replaced"

    # Then a worker is handed the new context and the receipt of the revision before
    job = shelf.claim("a")
    assert (job.context.revision, job.context.previous_receipts, job.receipts) == (2, {"cdcs": receipts}, {})
    assert str(job.context.xml_file_path) == "/data/b.xml"
    assert [entry.event for entry in shelf.ledger.trail("a")][-2:] == ["replaced", "claimed"]
    assert shelf.ledger.trail("a")[0].event == "accepted"


def test_a_packed_export_that_is_delivered_again_is_packed_again(shelf: Shelf) -> None:
    # Given a packed export whose next revision is delivered as well
    shelf.delivered("a")
    shelf.pack()
    shelf.submit("a", "b", replace=True)
    shelf.end("a")
    status, trail = shelf.ledger.status("a"), shelf.ledger.trail("a")

    # When packing comes by, then it is one text again, with both revisions' trail
    shelf.redis.delete(KEYS.packed_until)  # all of this takes a millisecond
    assert shelf.pack() == 1
    assert (shelf.ledger.status("a"), shelf.ledger.trail("a")) == (status, trail)
    assert not shelf.redis.hexists(KEYS.export("a"), FIELD_EARLIER)
    assert [entry.event for entry in trail].count("accepted") == 1


def test_rows_and_tombstones_of_earlier_releases_are_read_and_replaced(shelf: Shelf) -> None:
    # Given a tombstone as labrelay wrote it before it packed, with its receipt in full
    shelf.delivered("a")
    row = shelf.redis.hgetall(KEYS.export("a"))
    del row["context"]
    tombstone = row | {"archive_file": "f", "archive_host": "h", "archive_at": "1", "archive_why": "retention"}
    shelf.redis.hset(KEYS.archived, "a", json.dumps(tombstone))
    shelf.redis.delete(KEYS.export("a"), KEYS.trail("a"))
    shelf.redis.zrem(KEYS.state("delivered"), "a")

    # When it is read, then its receipt is there; when it is replaced, then it is the previous one
    assert shelf.ledger.status("a").deliveries[0].receipt is not None
    assert shelf.submit("a", "b", replace=True) == "replaced"
    assert set(shelf.claim("a").context.previous_receipts) == {"cdcs"}


def test_a_damaged_text_says_what_to_do_and_harms_no_other_export(shelf: Shelf) -> None:
    # Given two delivered exports, one of which has a damaged earlier revision
    shelf.delivered("a")
    shelf.delivered("b")
    shelf.redis.hset(KEYS.export("a"), FIELD_EARLIER, "bm90IHppcA==")

    # When packing comes by, then it leaves that one as it is
    assert shelf.pack() == 1
    assert shelf.is_packed("b")

    # When somebody reads it, then the error names the cure
    with pytest.raises(InvalidInput, match="backup of Redis"):
        shelf.ledger.status("a")


def test_a_damaged_export_keeps_no_other_from_the_archive(shelf: Shelf, tmp_path: Path) -> None:
    # Given two packed exports, one of which is damaged
    shelf.delivered("a")
    shelf.delivered("b")
    shelf.pack()
    shelf.redis.set(KEYS.packed("a"), "bm90IHppcA==")

    # When they are old enough for the archive, then the other goes there, and the damaged one stays for a person
    retirement = Retirement(shelf.client, KEYS, Archive(tmp_path))
    assert shelf.runner.run(retirement.step(-1)) == 1
    assert shelf.ledger.status("b").archived
    assert shelf.redis.exists(KEYS.export("a"), KEYS.packed("a")) == 2


def test_a_tombstone_keeps_the_latest_receipt_of_each_destination() -> None:
    # Given a row with a receipt that replaced an earlier one, and one that has none yet
    row = {"context": "{}", "d:x": "1", "r:x": "new", "p:x": "old", "p:y": "old", "i:z": "{}"}

    # When its receipts are packed, then the outdated one and everything else is left out
    assert whole_row({FIELD_PACKED: pack_receipts(row)}) == {"r:x": "new", "p:y": "old"}
    assert pack_receipts({"context": "{}", "i:z": "{}"}) == ""


def test_what_is_in_the_row_is_newer_than_what_is_packed() -> None:
    # Given a revision after a packed one, in which a destination was found to have it
    earlier = pack({"context": "old", "r:x": "1", "r:y": "1", "p:y": "0", "p:z": "0", "d:x": "{}"}, ["first"])
    row = {FIELD_EARLIER: earlier, "context": "new", "p:x": "2", "r:y": "2"}

    # When it is read, then receipts of before are previous ones, and no more than that is taken from it
    assert whole_row(row) == {"context": "new", "p:x": "2", "p:y": "1", "p:z": "0", "r:y": "2"}
    assert whole_trail(row, ["second"]) == ["first", "second"]
