"""A ledger that grew costs what it cost when it was small, on a real Redis; counted, not timed."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from click.testing import CliRunner
from tests.support.lab import Lab

from labrelay.archive import Archive
from labrelay.cli import main
from labrelay.context import ExportContext
from labrelay.deadletters import DeadLetters
from labrelay.errors import LedgerUnavailable
from labrelay.ledger import Entry, Ledger, connect
from labrelay.names import Keys
from labrelay.results import ExportState, Receipt, utc_now
from labrelay.settings import ProducerSettings, load_settings
from labrelay_worker.ledger import Claim, WorkerLedger
from labrelay_worker.packing import Packing
from labrelay_worker.retirement import Retirement

SMALL, LARGE = 200, 2000
#: Of one command: whether a wake-up must be sent, for instance, is a matter of the moment. A call that grew with the
#: ledger would run some command ten times as often.
A_FEW = 2
#: How the exports of a ledger end, in turn.
ENDS = (
    *[ExportState.DELIVERED] * 10,
    *[ExportState.DEAD] * 4,
    *[ExportState.WAITING] * 4,
)
_HOUR = 3600


class Site:
    """Everybody who reads and writes a ledger, under a prefix of their own."""

    def __init__(self, prefix: str, folder: Path) -> None:
        settings = load_settings(ProducerSettings)
        self.keys, self.redis = Keys(prefix), connect(settings)
        self.ledger = Ledger(self.redis, self.keys, wake_up_grace=_HOUR)
        archive = Archive(folder)
        self.letters = DeadLetters(self.redis, self.keys, self.ledger, wake_up_grace=_HOUR, archive=archive)
        self._runner = asyncio.Runner()
        self._async = redis.asyncio.Redis.from_url(settings.resolve_redis_url(), decode_responses=True)
        self.worker = WorkerLedger(self._async, self.keys, owner="worker", lease_seconds=_HOUR)
        self.packing = Packing(self._async, self.keys)
        self.retirement = Retirement(self._async, self.keys, archive)
        self._names = (f"export {number}" for number in itertools.count())

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(coroutine)

    def submit(self, count: int = 1) -> list[str]:
        names = list(itertools.islice(self._names, count))
        self.ledger.submit([Entry(n, n, "{}", f"session of {n}", "TEM", "", ()) for n in names], replace=False)
        return names

    def grow(self, count: int) -> None:
        """Let exports come and end, and pack those that were delivered."""
        self.end(self.submit(count))
        self.pack()

    def end(self, names: Sequence[str]) -> None:
        self.run(self._end(names))

    def pack(self) -> None:
        while self.run(self.packing.run(-1)):
            pass

    def make_due(self, count: int) -> None:
        ids: Any = self.redis.zrange(self.keys.state("waiting"), 0, count - 1)
        self.redis.zadd(self.keys.due, dict.fromkeys(ids, 1))

    def sweep(self) -> Any:
        return self.run(self.worker.sweep(leader_seconds=60, grace=_HOUR))

    def look_for_what_ended(self) -> None:
        self.run(self.packing.run(60))
        self.run(self.retirement.step(90))

    def close(self) -> None:
        self.run(self._async.aclose())
        self._runner.close()
        self.redis.close()

    async def _end(self, names: Sequence[str]) -> None:
        receipt = Receipt(destination="cdcs", record_id="7", at=utc_now()).model_dump_json()

        async def end(name: str, state: ExportState) -> None:
            claim = await self.worker.claim(name)
            assert isinstance(claim, Claim)
            later = 10**13 if state is ExportState.WAITING else 0
            steps = [("receipt", "cdcs", receipt), ("settle", state, f"{later} as it stands")]
            assert await self.worker.commit(name, claim.row["token"], steps) == "ok"

        await asyncio.gather(*(end(*pair) for pair in zip(names, itertools.cycle(ENDS), strict=False)))


@pytest.fixture
def sites(lab: Lab) -> Any:
    """Two ledgers, of which one is ten times the other."""
    made = [Site("small:", lab.folder), Site("large:", lab.folder)]
    for site, size in zip(made, (SMALL, LARGE), strict=True):
        site.grow(size)
        site.submit(20)
    yield made
    for site in made:
        site.close()


CALLS: dict[str, Callable[[Site], object]] = {
    "submit": lambda site: site.submit(),
    "claim": lambda site: site.run(site.worker.claim(site.submit()[0])),
    "status of a finished one": lambda site: site.ledger.status("export 0"),
    "its trail": lambda site: site.ledger.trail("export 0"),
    "find a session": lambda site: site.ledger.ids_of_session("session of export 0"),
    "count": lambda site: site.ledger.counts(),
    "list": lambda site: site.ledger.recent(limit=20),
    "list one state": lambda site: site.ledger.recent(ExportState.DELIVERED, limit=20),
    "list dead letters": lambda site: list(itertools.islice(site.letters.find(), 20)),
    "sweep": lambda site: site.sweep(),
    "sweep what is due": lambda site: (site.make_due(10), site.sweep()),
    "look for what ended": lambda site: site.look_for_what_ended(),
}


def test_every_call_takes_as_many_commands_in_a_large_ledger_as_in_a_small_one(sites: Sequence[Site]) -> None:
    # Given two ledgers, one ten times the other
    small, large = sites
    for name, call in CALLS.items():
        for site in sites:
            call(site)  # so that Redis knows the scripts

        # When the same is asked of both
        (few, little), (many, much) = used(small, call), used(large, call)

        # Then Redis ran as many commands, also within scripts, and answered as much (but for longer numbers in ids)
        differs = {command: many[command] - few[command] for command in many.keys() | few.keys()}
        assert max(map(abs, differs.values())) <= A_FEW, (name, differs)
        assert much == pytest.approx(little, rel=0.1, abs=64), name


def used(site: Site, call: Callable[[Site], object]) -> tuple[Counter[str], int]:
    """Return how often each command ran, and how many bytes Redis answered."""
    site.redis.config_resetstat()
    call(site)
    stats: Any = site.redis.info("all")
    ran = Counter({key: value["calls"] for key, value in stats.items() if key.startswith("cmdstat_")})
    return ran, stats["total_net_output_bytes"]


def test_a_finished_export_takes_at_most_one_and_a_half_times_its_context(lab: Lab) -> None:
    # Given three destinations, and workers that pack what was delivered
    for name in ("cdcs", "elabftw", "disk"):
        lab.recorder(name)
    lab.start_worker(LABRELAY_PACK_AFTER_SECONDS="0.1")
    sessions = [two_kilobytes(lab.session(number)) for number in range(20)]

    # When 20 sessions with contexts of 2 KB are delivered
    with lab.client() as client:
        ids = [submission.export_id for submission in client.submit_many(sessions)]
        assert {client.wait(export_id, 60).state for export_id in ids} == {"delivered"}
        keys, server = client.settings.keys, client.ledger._redis
        lab.wait_until(lambda: all(server.exists(keys.packed(i)) for i in ids), what="packing")

        # Then Redis holds at most 1.5 times their JSON, everything counted that grows with them
        own = [key(i) for key in (keys.export, keys.trail, keys.packed) for i in ids]
        shared = [keys.state(ExportState.DELIVERED), keys.sessions]
        held: list[Any] = [server.memory_usage(key, samples=0) for key in (*own, *shared)]
        contexts = sum(len(context.to_json()) for context in sessions)
        assert sum(size or 0 for size in held) <= 1.5 * contexts

        # And nothing else stayed behind
        rest: Any = server.keys(f"{keys.prefix}*")
        assert not [key for key in rest if key.startswith((keys.trail(""), keys.held("")))]
        assert client.trail(ids[0])[0].event == "accepted"


def test_a_packed_export_is_checked_replaced_and_archived_as_any_other(lab: Lab) -> None:
    # Given a delivered session that a worker packed
    lab.destinations["archive"] = {"type": "disk", "root": str(lab.folder / "archive")}
    lab.write_settings()
    worker = lab.start_worker(LABRELAY_PACK_AFTER_SECONDS="0.1")
    with lab.client() as client:
        export_id = client.submit(lab.session()).export_id
        keys, server = client.settings.keys, client.ledger._redis
        lab.wait_until(lambda: server.exists(keys.packed(export_id)), what="packing")

        # When it is audited, then it is asked about with the context that was delivered
        audited = CliRunner().invoke(main, ["check"])
        assert (audited.exit_code, audited.stdout[:9]) == (0, "= archive"), audited.output

        # When its content changes and it is submitted again, then the next revision is delivered and packed in turn
        changed = lab.session().model_copy(update={"user": "anna"})
        assert client.submit(changed, replace=True).revision == 2
        lab.wait_until(lambda: client.status(export_id).state.is_final, what="revision 2")
        lab.wait_until(lambda: server.exists(keys.packed(export_id)), what="packing of revision 2")
        events = [entry.event for entry in client.trail(export_id)]
        assert (events.count("accepted"), events.count("replaced"), events.count("sending")) == (1, 1, 2)
        before = client.status(export_id)
        assert before.state is ExportState.DELIVERED

        # When it is old enough for the archive, then it goes there whole, and a tombstone with its receipt stays
        worker.send(signal.SIGTERM)
        worker.wait()
        lab.start_worker(LABRELAY_RETENTION_DAYS="1e-6")
        lab.wait_until(lambda: client.status(export_id).archived, what="its retirement")
        assert client.status(export_id).deliveries[0].receipt == before.deliveries[0].receipt
        assert [entry.event for entry in client.trail(export_id)] == events
        assert not server.exists(keys.packed(export_id), keys.export(export_id), keys.trail(export_id))


def test_packing_makes_room_in_a_redis_that_is_full(lab: Lab) -> None:
    # Given a Redis whose memory is full of exports that were delivered
    site = Site("full:", lab.folder)
    site.end(site.submit(500))
    site.redis.config_set("maxmemory", site.redis.info("memory")["used_memory"] - 50_000)  # type: ignore[index]
    with pytest.raises(LedgerUnavailable, match="memory is full"):
        site.submit()

    # When they are packed, then there is room again
    site.pack()
    assert site.submit()
    site.close()


def two_kilobytes(context: ExportContext) -> ExportContext:
    names = [f"/data/titan/{context.session_identifier}/image_{i:03d}.dm3" for i in range(23)]
    metadata = {"files": [{"name": name, "bytes": 33_555_000 + i} for i, name in enumerate(names)]}
    made = ExportContext.parse({**json.loads(context.to_json()), "metadata": metadata})
    assert 1800 <= len(made.to_json()) <= 2600
    return made
