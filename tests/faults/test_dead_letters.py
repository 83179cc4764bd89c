"""Exports that need a person, made by real faults: killers, doubtful sends, refusals; and what ended long ago."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from labrelay.archive import Archive
from labrelay.cli import main
from labrelay.deadletters import Filter
from labrelay.errors import ExportConflict
from labrelay.results import DeliveryState, ExportState

pytestmark = [pytest.mark.faults, pytest.mark.integration]


def command(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["dead", *arguments])


def parked(lab):
    """Return an export that is parked as unknown: its worker was killed while sending to a plugin that is blind."""
    lab.recorder("blind", type="blind", hold_while=lab.held)
    export_id = lab.kill_while_sending("blind")
    lab.start_worker()
    assert lab.finished(export_id).state is ExportState.UNKNOWN
    return export_id


@pytest.mark.timeout(240)
def test_an_export_that_kills_every_worker_is_parked_and_takes_no_other_with_it(lab):
    # Given a destination that kills the process that calls it, and one that does not
    deadly = lab.folder / "deadly"
    deadly.touch()
    lab.recorder("killer", kill_while=deadly, find_in_log=True)
    lab.recorder("harmless")
    lab.start_worker("prefork", concurrency=2)
    with lab.client() as client:
        poison = client.submit(lab.session(1), destinations=["killer"]).export_id

        # When exports for both are worked on by the same processes
        others = [client.submit(lab.session(n), destinations=["harmless"]).export_id for n in range(2, 12)]
        status = client.wait(poison, 200)

        # Then the one is parked after five kills, and the others were delivered
        assert status.state is ExportState.DEAD
        assert status.summary.startswith("killed its worker 5 times")
        assert status.runs == len(lab.events(event="export", name="killer")) == 5
        assert [letter.export_id for letter in client.dead_letters.find(Filter(kind="poison"))] == [poison]
        for export_id in others:
            assert client.wait(export_id, 60).state is ExportState.DELIVERED

        # When the cause is repaired and it is replayed, then it is delivered like any other
        deadly.unlink()
        assert command("replay", poison).exit_code == 0
        assert client.wait(poison, 60).state is ExportState.DELIVERED


def test_a_person_who_looked_settles_a_doubtful_delivery_as_delivered(lab):
    # Given an export parked as unknown
    export_id = parked(lab)
    listed = json.loads(command("list", "--destination", "blind", "--json").stdout)
    assert [letter["export_id"] for letter in listed] == [export_id]

    # When a person says that it is there
    assert command("replay", export_id, "--assume", "delivered").exit_code == 0

    # Then it is delivered, marked as assumed, and was not sent again
    status = lab.finished(export_id)
    assert status.state is ExportState.DELIVERED
    assert status.deliveries[0].receipt.adopted
    assert status.deliveries[0].receipt.verified == "assumed by a person"
    assert len(lab.events(event="export", name="blind")) == 1


def test_a_person_who_looked_has_a_doubtful_delivery_sent_again(lab):
    # Given an export parked as unknown, which a plain replay parks again
    export_id = parked(lab)
    with lab.client() as client:
        assert client.replay(export_id)[0].is_done
        lab.wait_until(lambda: len([e for e in client.trail(export_id) if e.event == "unknown"]) >= 3)
        assert client.wait(export_id, 30).state is ExportState.UNKNOWN
        assert len(lab.events(event="export", name="blind")) == 1

        # When a person says that it is not there, then it is sent and delivered
        client.replay(export_id, assume="missing")
        assert client.wait(export_id, 60).state is ExportState.DELIVERED
    assert len(lab.events(event="accepted", name="blind")) == 1


def test_doubtful_sends_are_repeated_where_the_settings_say_so(lab):
    # Given on_unknown = retry, and a worker killed while it sends to a plugin that cannot be asked
    lab.options["on_unknown"] = "retry"
    lab.recorder("blind", type="blind", hold_while=lab.held)
    export_id = lab.kill_while_sending("blind")

    # When another worker takes over, then it sends again unasked
    lab.start_worker()
    assert lab.finished(export_id).state is ExportState.DELIVERED
    assert len(lab.events(event="export", name="blind")) == 2


def test_a_revision_that_replaces_one_in_doubt_asks_about_that_one_first(lab):
    # Given a worker killed while it was sending revision 1
    lab.recorder("slow", hold_while=lab.held, find_in_log=True)
    export_id = lab.kill_while_sending("slow")

    # When revision 2 replaces it
    changed = lab.session()
    changed.xml_file_path.write_text("<other/>")
    with lab.client() as client:
        client.submit(changed, replace=True)
    lab.start_worker()
    assert lab.finished(export_id).state is ExportState.DELIVERED

    # Then revision 1 was asked about, and revision 2 was sent and not mistaken for it
    assert [event["revision"] for event in lab.events(event="find", name="slow")] == [1]
    assert [event["revision"] for event in lab.events(event="accepted", name="slow")] == [2]


def test_a_bulk_replay_after_a_repair_asks_no_destination_that_confirmed(lab):
    # Given exports that one of two destinations refuses
    refusing = lab.folder / "refusing"
    refusing.touch()
    lab.recorder("steady")
    lab.recorder("strict", refuse_while=refusing)
    lab.start_worker()
    with lab.client() as client:
        ids = [s.export_id for s in client.submit_many([lab.session(n) for n in range(120)])]
        for export_id in ids:
            assert client.wait(export_id, 60).state is ExportState.DEAD

        # When the destination is repaired and they are replayed by filter
        refusing.unlink()
        result = command("replay", "--destination", "strict", "--kind", "rejected", "--since", "1h", "--yes")
        assert result.stdout == "120 replayed\n"

        # Then each is delivered, with one more call at the repaired one and none at the other
        for export_id in ids:
            assert client.wait(export_id, 60).state is ExportState.DELIVERED
    assert len(lab.events(event="export", name="steady")) == 120
    assert len(lab.events(event="accepted", name="strict")) == 120
    assert json.loads(command("list", "--json").stdout) == []


def test_what_ended_long_ago_moves_to_the_archive_and_is_still_recognised(lab):
    # Given a retention of about a second, a delivered export and a dead one
    refusing = lab.folder / "refusing"
    refusing.touch()
    lab.options["retention_days"] = 0.00001
    lab.recorder("one")
    lab.recorder("strict", refuse_while=refusing)
    lab.start_worker()
    with lab.client() as client:
        context = lab.session(1)
        export_id = client.submit(context, destinations=["one"]).export_id
        dead = client.submit(lab.session(2), destinations=["strict"]).export_id

        # When it has been delivered for longer than that
        status = lab.wait_until(lambda: (s := client.status(export_id)).archived and s, 60, "archived")

        # Then Redis has a tombstone, the file has everything, and status says where
        assert status.state is ExportState.DELIVERED
        assert status.deliveries[0].state is DeliveryState.DELIVERED
        assert Path(status.archived.file).parent == lab.folder / "home" / "archive"
        record = Archive.find(Path(status.archived.file), export_id)
        assert record["receipts"]["one"]["record_id"] == export_id
        assert record["context"]["session_identifier"] == "session-1"
        assert next(entry.event for entry in client.trail(export_id)) == "accepted"
        assert client.ledger._redis.keys(f"*{export_id}*") == []

        # And a second submit is recognised, and a dead export stays
        assert client.submit(context, destinations=["one"]).is_duplicate
        context.xml_file_path.write_text("<other/>")
        with pytest.raises(ExportConflict):
            client.submit(context, destinations=["one"])
        assert client.status(dead).archived is None
    assert len(lab.events(event="accepted", name="one")) == 1


def test_a_worker_killed_while_it_archives_loses_nothing(lab):
    # Given more ended exports than one step moves
    lab.recorder("one")
    worker = lab.start_worker()
    with lab.client() as client:
        ids = [s.export_id for s in client.submit_many([lab.session(n) for n in range(200)])]
        for export_id in ids:
            client.wait(export_id, 60)
        worker.send(signal.SIGTERM)
        worker.wait()

        # When workers that archive are killed in the middle, until everything is moved
        lab.options["retention_days"] = 0.00001
        lab.write_settings()
        for moved in (20, 100):
            worker = lab.start_worker()
            lab.wait_until(lambda moved=moved: client.ledger._redis.hlen("labrelay:archived") >= moved)
            worker.kill()
        lab.start_worker()
        lab.wait_until(lambda: client.ledger._redis.hlen("labrelay:archived") == 200, 60)

        # Then each one is on disk, whole
        for export_id in ids:
            status = client.status(export_id)
            record = Archive.find(Path(status.archived.file), export_id)
            assert record["receipts"]["one"]["record_id"] == export_id
