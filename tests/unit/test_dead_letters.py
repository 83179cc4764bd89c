"""Dead letters on a fake server: found by filter, replayed with a fresh budget, settled by a person, dropped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fakeredis
import pytest
from click.testing import CliRunner, Result

from labrelay.archive import Archive
from labrelay.cli import main
from labrelay.client import Client
from labrelay.deadletters import Filter, parse_since
from labrelay.errors import InvalidInput, NoSuchExport
from labrelay.ledger import Entry
from labrelay.packed import whole_row
from labrelay.results import Delivery, DeliveryState, ExportState, Receipt, utc_now
from labrelay.settings import ProducerSettings
from labrelay.wakeups import Wake, WakeUps

FAILED = Delivery(
    state=DeliveryState.FAILED,
    attempts=3,
    error_kind="rejected",
    error_message="too large",
    reason="refused for good",
)
UNKNOWN = Delivery(state=DeliveryState.UNKNOWN, attempts=1, error_kind="outcome_unknown", error_message="lost")


class Desk:
    """A client on a fake server, and exports in any state."""

    def __init__(self, client: Client, server: fakeredis.FakeRedis, woken: list[Wake]) -> None:
        self.client, self.redis, self.woken = client, server, woken
        self.keys = client.settings.keys

    def export(self, name: str, state: str, instrument: str = "TEM", **fields: Any) -> str:
        entry = Entry(name, "digest", "{}", f"session {name}", instrument, "", ())
        self.client.ledger.submit([entry], replace=False)
        self.redis.zrem(self.keys.state("queued"), name)
        self.redis.delete(self.keys.due, self.keys.ready("normal"), self.keys.rung)
        self.redis.zadd(self.keys.state(state), {name: int(self.row(name)["updated"])})
        texts = {k: v if isinstance(v, str) else v.model_dump_json(exclude_none=True) for k, v in fields.items()}
        self.redis.hset(self.keys.export(name), mapping={"state": state, **texts})
        return name

    def row(self, name: str) -> dict[str, str]:
        return self.redis.hgetall(self.keys.export(name))

    def found(self, **wanted: Any) -> set[str]:
        return {letter.export_id for letter in self.client.dead_letters.find(Filter(**wanted))}

    def command(self, *arguments: str, answer: str = "") -> Result:
        return CliRunner().invoke(main, ["dead", *arguments], input=answer)


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Desk]:
    server = fakeredis.FakeRedis(decode_responses=True)
    woken: list[Wake] = []
    monkeypatch.setattr("labrelay.link.connect", lambda _: server)
    monkeypatch.setattr(WakeUps, "ring", lambda _, count, wakes, **__: woken.extend(wakes))
    monkeypatch.setattr(server, "close", lambda: None)
    monkeypatch.setenv("LABRELAY_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("LABRELAY_HOME", str(tmp_path))
    with Client(ProducerSettings()) as client:
        yield Desk(client, server, woken)


def receipt(name: str) -> Receipt:
    return Receipt(destination=name, record_id="7", at=utc_now())


def test_filters_narrow_what_is_listed(desk: Desk) -> None:
    # Given dead letters of several kinds, and exports that are none
    desk.export("a", "dead", "FEI-Titan", **{"d:cdcs": FAILED, "r:disk": receipt("disk")})
    desk.export("b", "unknown", "JEOL", **{"d:elab": UNKNOWN, "i:elab": "{}"})
    desk.export("c", "dead", "JEOL", cause="poison", **{"i:cdcs": "{}"})
    desk.export("d", "delivered")
    desk.export("e", "cancelled", **{"d:cdcs": FAILED})

    # When they are filtered, then each filter leaves what it says
    assert desk.found() == {"a", "b", "c"}
    assert desk.found(destination="cdcs") == {"a", "c"}
    assert desk.found(destination="disk") == set()
    assert desk.found(instrument="FEI-*") == {"a"}
    assert desk.found(kind="outcome_unknown") == {"b"}
    assert desk.found(kind="poison") == {"c"}
    assert desk.found(kind="rejected", destination="elab") == set()
    assert desk.found(since=utc_now() + timedelta(hours=1)) == set()
    assert desk.found(since=utc_now() - timedelta(hours=1)) == {"a", "b", "c"}


def test_listing_reads_no_row_of_other_states(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given one dead letter among many delivered exports
    desk.export("a", "dead", **{"d:cdcs": FAILED})
    for number in range(50):
        desk.export(f"fine {number}", "delivered")
    asked: list[str] = []
    ledger = desk.client.ledger
    rows = ledger.rows
    monkeypatch.setattr(ledger, "rows", lambda ids: asked.extend(ids) or rows(ids))

    # When dead letters are listed, then one row was read
    assert desk.found() == {"a"}
    assert asked == ["a"]


def test_a_listing_goes_page_by_page_and_misses_none_when_others_leave(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given more dead letters than two pages hold, all of the same millisecond, and one that is older
    monkeypatch.setattr("labrelay.ledger_reading._FIRST_PAGE", 3)
    monkeypatch.setattr("labrelay.ledger_reading._PAGE", 3)
    monkeypatch.setattr("labrelay.deadletters._FIRST_PAGE", 3)
    monkeypatch.setattr("labrelay.deadletters._PAGE", 3)
    names = {desk.export(f"letter {number}", "dead") for number in range(8)}
    desk.redis.zadd(desk.keys.state("dead"), dict.fromkeys(names, 2000))
    desk.export("older", "unknown")
    desk.redis.zadd(desk.keys.state("unknown"), {"older": 1000})
    looked: list[tuple[int, int]] = []

    # When they are listed while those already seen are replayed
    found = []
    for letter in desk.client.dead_letters.find(progress=lambda *at: looked.append(at)):
        found.append(letter.export_id)
        desk.redis.zrem(desk.keys.state("dead"), letter.export_id)

    # Then each is found once, the latest first, and progress has an end
    assert sorted(found) == sorted({*names, "older"})
    assert found[-1] == "older"
    assert looked == [(3, 9), (6, 9), (9, 9)]


def test_a_limited_listing_reads_no_more_than_it_shows(desk: Desk) -> None:
    # Given three dead letters
    for name in "abc":
        desk.export(name, "dead")

    # When two are asked for, then two are shown
    shown = json.loads(desk.command("list", "--limit", "2", "--json").stdout)
    assert len(shown) == 2


@pytest.mark.parametrize(
    ("text", "ago"), [("30m", timedelta(minutes=30)), ("2h", timedelta(hours=2)), ("1.5d", timedelta(days=1.5))]
)
def test_since_understands_ages(text: str, ago: timedelta) -> None:
    now = datetime(2026, 11, 21, tzinfo=UTC)
    assert parse_since(text, now) == now - ago


def test_since_understands_iso_dates_and_names_its_forms() -> None:
    assert parse_since("2026-11-20T10:00:00+01:00", utc_now()) == datetime(2026, 11, 20, 9, tzinfo=UTC)
    with pytest.raises(InvalidInput, match="ISO date"):
        parse_since("yesterday", utc_now())


def test_a_replay_keeps_receipts_and_trail_and_starts_the_rest_anew(desk: Desk) -> None:
    # Given an export that reached one of two destinations
    delivered = Delivery(state=DeliveryState.DELIVERED, attempts=1)
    desk.export("a", "dead", **{"d:cdcs": FAILED, "d:disk": delivered, "r:disk": receipt("disk"), "crashes": "4"})

    # When it is replayed
    assert desk.client.replay("a")[0].is_done

    # Then what failed has no history, what was delivered has, and a worker is woken
    status = desk.client.status("a")
    assert status.state is ExportState.QUEUED
    assert [(d.destination, d.state) for d in status.deliveries] == [("disk", DeliveryState.DELIVERED)]
    assert [entry.event for entry in desk.client.trail("a")] == ["accepted", "replayed"]
    assert desk.row("a")["token"] == "1"
    assert "crashes" not in desk.row("a")
    assert desk.redis.zscore(desk.keys.due, "a") is not None
    assert [wake.export_id for wake in desk.woken] == ["a"]


def test_a_cancelled_export_is_replayed_by_id_alone(desk: Desk) -> None:
    desk.export("a", "cancelled")
    assert desk.client.replay(wanted=Filter()) == []
    assert desk.client.replay("a")[0].is_done


@pytest.mark.parametrize("state", ["queued", "running", "waiting", "delivered"])
def test_what_needs_no_person_is_not_replayed(desk: Desk, state: str) -> None:
    desk.export("a", state)
    with pytest.raises(InvalidInput, match=state):
        desk.client.replay("a")


def test_assuming_delivered_writes_a_receipt_that_says_so(desk: Desk) -> None:
    # Given an export whose outcome at one destination is unknown
    desk.export("a", "unknown", **{"d:elab": UNKNOWN, "i:elab": "{}"})

    # When a person says that it is there
    desk.client.replay("a", assume="delivered")

    # Then there is a receipt, marked, and the trail names the person's act
    delivery = desk.client.status("a").deliveries[0]
    assert (delivery.state, delivery.in_doubt) == (DeliveryState.DELIVERED, False)
    assert delivery.receipt is not None
    assert (delivery.receipt.adopted, delivery.receipt.verified) == (True, "assumed by a person")
    assert desk.client.trail("a")[-1].event == "assumed delivered"


def test_assuming_delivered_of_an_earlier_revision_does_not_deliver_the_present_one(desk: Desk) -> None:
    # Given revision 2, parked because revision 1 may have arrived
    desk.export("a", "unknown", **{"d:elab": UNKNOWN, "i:elab": '{"revision": 1}', "revision": "2"})

    # When a person says that it arrived, then that is what revision 2 updates
    desk.client.replay("a", assume="delivered")
    assert "r:elab" not in desk.row("a")
    assert "p:elab" in desk.row("a")


def test_assuming_missing_closes_the_doubt_and_keeps_the_others(desk: Desk) -> None:
    # Given doubts about two destinations
    desk.export("a", "unknown", **{"i:elab": "{}", "i:cdcs": "{}"})

    # When one is settled
    result = desk.command("replay", "a", "--assume", "missing", "--destination", "elab")

    # Then the other one is still asked about
    assert result.exit_code == 0, result.output
    assert {field for field in desk.row("a") if field[:2] in ("i:", "r:")} == {"i:cdcs"}


def test_assuming_without_a_doubt_is_refused(desk: Desk) -> None:
    desk.export("a", "dead", **{"d:cdcs": FAILED})
    result = desk.command("replay", "a", "--assume", "missing")
    assert result.exit_code == 2
    assert "nothing is in doubt" in result.output
    assert desk.row("a")["state"] == "dead"


def test_a_bulk_replay_asks_first(desk: Desk) -> None:
    # Given two dead letters of which one matches
    desk.export("a", "dead", "FEI-Titan", **{"d:cdcs": FAILED})
    desk.export("b", "dead", "JEOL", **{"d:cdcs": FAILED})

    # When a dry run shows it, and the question is answered with no, then nothing changes
    dry = desk.command("replay", "--instrument", "FEI-*", "--dry-run", "--json")
    assert [letter["export_id"] for letter in json.loads(dry.stdout)] == ["a"]
    assert desk.command("replay", "--instrument", "FEI-*", answer="n\n").exit_code == 1
    assert desk.row("a")["state"] == "dead"

    # When it is answered with yes, then that one is replayed
    assert desk.command("replay", "--instrument", "FEI-*", answer="y\n").exit_code == 0
    assert (desk.row("a")["state"], desk.row("b")["state"]) == ("queued", "dead")


def test_a_bulk_replay_of_everything_must_be_said(desk: Desk) -> None:
    desk.export("a", "dead", **{"d:cdcs": FAILED})
    assert desk.command("replay", "--yes").exit_code == 2
    result = desk.command("replay", "--all", "--yes", "--json")
    assert json.loads(result.stdout) == [{"export_id": "a", "outcome": "replayed"}]


def test_a_drop_archives_then_removes_and_says_where_it_went(desk: Desk) -> None:
    # Given a dead export
    desk.export("a", "dead", **{"d:cdcs": FAILED, "r:disk": receipt("disk")})

    # When it is dropped
    assert desk.command("drop", "a", answer="n\n").exit_code == 1
    assert desk.command("drop", "a", "--yes").exit_code == 0

    # Then the archive has everything, Redis only a tombstone, and status says where it is
    assert desk.row("a") == {}
    where = desk.client.status("a").archived
    assert where is not None
    assert where.why == "dropped"
    record = Archive.find(Path(where.file), "a")
    assert record is not None
    assert record["deliveries"]["cdcs"]["error_message"] == "too large"
    assert [entry.event for entry in desk.client.trail("a")] == ["accepted"]
    assert desk.client.ledger.ids_of_session("session a") == ["a"]


def test_a_dropped_export_is_recognised_when_it_is_submitted_again(desk: Desk) -> None:
    # Given a dropped export with a receipt
    desk.export("a", "dead", **{"r:disk": receipt("disk"), "token": "7"})
    desk.command("drop", "a", "--yes")

    # When it comes again, then it is a duplicate or a conflict, as if it were still there
    def submit(digest: str, replace: bool = False) -> str:
        entry = Entry("a", digest, "{}", "session a", "TEM", "", ())
        return desk.client.ledger.submit([entry], replace=replace)[0].outcome

    assert submit("digest") == "duplicate"
    assert submit("other") == "conflict"

    # When it replaces, then the next revision knows what the first delivered, and old tokens stay void
    assert submit("other", replace=True) == "replaced"
    row = desk.row("a")
    assert (row["revision"], row["token"], row["context"]) == ("2", "8", "{}")
    assert "p:disk" in whole_row(row)
    assert desk.client.status("a").archived is None
    assert desk.client.ledger.ids_of_session("session a") == ["a"]


def test_nothing_is_dropped_when_the_archive_cannot_be_written(desk: Desk) -> None:
    # Given an archive folder that is a file
    desk.export("a", "dead", **{"d:cdcs": FAILED})
    desk.client.settings.archive.write_text("in the way")

    # When the export is dropped, then it stays
    result = desk.command("drop", "a", "--yes")
    assert result.exit_code == 2
    assert "cannot be written" in result.output
    assert desk.row("a")["state"] == "dead"


def test_show_tells_what_can_be_done(desk: Desk) -> None:
    desk.export("a", "unknown", **{"d:elab": UNKNOWN, "i:elab": "{}"})
    result = desk.command("show", "a")
    assert "elab may have it" in result.output
    assert "--assume delivered|missing" in result.output
    assert desk.command("show", "nothing").exit_code == 4


def test_an_archive_skips_torn_lines_and_takes_the_last(tmp_path: Path) -> None:
    # Given a file whose last write was cut off
    archive, at = Archive(tmp_path), datetime(2026, 11, 21, tzinfo=UTC)
    path = archive.append(['{"export_id": "a", "n": 1}'], at)
    with path.open("a") as file:
        file.write('{"export_id": "a", "n"')

    # When the same export is written again
    assert archive.append(['{"export_id": "a", "n": 2}'], at) == path

    # Then the last whole line counts
    assert Archive.find(path, "a") == {"export_id": "a", "n": 2}
    assert Archive.find(path, "b") is None


def test_the_trail_of_an_archive_on_another_machine_says_where_it_is(desk: Desk) -> None:
    desk.export("a", "dead", **{"d:cdcs": FAILED})
    desk.command("drop", "a", "--yes")
    for file in desk.client.settings.archive.iterdir():
        file.unlink()
    with pytest.raises(NoSuchExport, match="archived to"):
        desk.client.trail("a")
