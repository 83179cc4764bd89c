"""`labrelay.nexuslims` without NexusLIMS: a builder's own objects, a real Redis, a real worker."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from labrelay.context import ExportContext
from labrelay.nexuslims import export_records, was_successfully_exported
from labrelay.results import ExportState

pytestmark = pytest.mark.integration


def session_of(context: ExportContext, **fields: Any) -> Any:
    """Return what a record builder has of the lab's session."""
    return SimpleNamespace(
        session_identifier=context.session_identifier,
        instrument=SimpleNamespace(name=context.instrument_pid),
        dt_from=context.dt_from,
        dt_to=context.dt_to,
        user="alice",
        **fields,
    )


def built(lab, *numbers: int) -> tuple[list[Path], list[Any]]:
    contexts = [lab.session(number) for number in numbers]
    return [context.xml_file_path for context in contexts], [session_of(context) for context in contexts]


def test_a_record_that_moves_right_away_is_delivered(lab):
    # Given a record that its builder removes once it counts as exported
    lab.recorder("one")
    files, sessions = built(lab, 1)
    with lab.client() as client:
        results = export_records(files, sessions, client=client)
        assert was_successfully_exported(files[0], results)
        files[0].unlink()

        # When a worker comes, then it delivers what was submitted
        lab.start_worker()
        assert client.wait(results[files[0]][0].metadata["export_id"], 60).state is ExportState.DELIVERED


def test_one_bad_record_does_not_stop_the_others(lab):
    # Given three records of which one is gone, and one whose session ends before it began
    lab.recorder("one")
    files, sessions = built(lab, 1, 2, 3)
    files[0].unlink()
    sessions[1].dt_to = sessions[1].dt_from - timedelta(hours=1)

    # When they are exported
    with lab.client() as client:
        results = export_records(files, sessions, client=client)

    # Then those two have their reasons, and the third is accepted
    assert [was_successfully_exported(file, results) for file in files] == [False, False, True]
    assert files[0].name in str(results[files[0]][0].error_message)
    assert "dt_to" in str(results[files[1]][0].error_message)


def test_a_builder_gets_on_while_redis_is_away(lab):
    # Given a Redis that died
    lab.recorder("one")
    files, sessions = built(lab, 1)
    lab.kill_redis()

    # When a record is exported, then the outbox has it, and the builder goes on
    with lab.client() as client:
        results = export_records(files, sessions, client=client)
    assert was_successfully_exported(files[0], results)
    assert results[files[0]][0].metadata["export_state"] == "spooled"


def test_waiting_ends_in_time_and_says_how_it_stands(lab):
    # Given a destination that fails for now
    broken = lab.folder / "broken"
    broken.touch()
    lab.recorder("shaky", fail_while=broken)
    lab.start_worker()
    files, sessions = built(lab, 1)

    # When a builder waits for a moment, then it is told, and it is not called exported
    with lab.client() as client:
        results = export_records(files, sessions, wait=True, timeout=0.1, client=client)
        assert not was_successfully_exported(files[0], results)
        export_id = results[files[0]][0].metadata["export_id"]

        # When the destination is back, then the same call answers that it is
        broken.unlink()
        client.wait(export_id, 60)
        results = export_records(files, sessions, wait=True, timeout=60, client=client)
    assert was_successfully_exported(files[0], results)
    assert [result.destination_name for result in results[files[0]]] == ["shaky"]
    assert len(lab.events(event="accepted")) == 1


def test_a_rebuilt_record_is_sent_when_nothing_of_the_first_arrived_or_when_told(lab):
    # Given a record that was submitted, and no worker yet
    lab.recorder("one")
    files, sessions = built(lab, 1)
    with lab.client() as client:
        export_records(files, sessions, client=client)

        # When it is rebuilt, then the new one takes its place
        files[0].write_text("<second/>")
        assert export_records(files, sessions, client=client)[files[0]][0].metadata["outcome"] == "replaced"
        lab.start_worker()
        (result,) = export_records(files, sessions, wait=True, timeout=60, client=client)[files[0]]
        assert (result.success, result.metadata["revision"]) == (True, 2)

        # When it is rebuilt after its delivery, then the delivered one stays, unless somebody asks
        files[0].write_text("<third/>")
        assert export_records(files, sessions, client=client)[files[0]][0].metadata["outcome"] == "kept_earlier"
        (result,) = export_records(files, sessions, wait=True, timeout=60, replace=True, client=client)[files[0]]
    assert result.metadata["revision"] == 3
    assert [event["revision"] for event in lab.events(event="accepted")] == [2, 3]


def test_nexuslims_own_strategy_is_used(lab, monkeypatch):
    # Given NexusLIMS's setting, and two destinations
    monkeypatch.setenv("NX_EXPORT_STRATEGY", "first_success")
    lab.recorder("first", priority=90)
    lab.recorder("second", priority=10)
    lab.start_worker()
    files, sessions = built(lab, 1)

    # When a record is exported, then the second is not needed
    with lab.client() as client:
        results = export_records(files, sessions, wait=True, timeout=60, client=client)
    assert [result.destination_name for result in results[files[0]]] == ["first"]


def test_arguments_of_different_lengths_are_refused(lab):
    files, sessions = built(lab, 1, 2)
    with lab.client() as client, pytest.raises(ValueError, match="same length"):
        export_records(files, sessions[:1], client=client)
