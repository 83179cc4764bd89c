"""NexusLIMS's objects are taken for what they look like, whatever odd values they hold."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from labrelay.context import Activity, ExportContext
from labrelay.errors import InvalidInput
from labrelay.nexuslims.contexts import context_of, jsonable

ZONE = timezone(timedelta(hours=-5))
START = datetime(2026, 11, 2, 10, tzinfo=ZONE)


class Quantity:
    """Looks like pint's."""

    magnitude = Decimal("200.0")
    units = "kilovolt"


class Mode(Enum):
    STEM = "stem"


class Number:
    """Looks like numpy's."""

    def tolist(self) -> list[float]:
        return [1.5, 2.5]


def session(**fields: Any) -> Any:
    ordinary = {
        "session_identifier": "https://nemo.example.com/api/usage_events/?id=7",
        "instrument": SimpleNamespace(name="FEI-Titan-TEM-012345"),
        "dt_from": START,
        "dt_to": START + timedelta(hours=2),
        "user": "alice",
    }
    return SimpleNamespace(**ordinary | fields)


def test_a_session_with_everything_becomes_a_context() -> None:
    # Given the objects as NexusLIMS's builder has them
    activity = SimpleNamespace(
        start=START, end=START, mode="IMAGING", unique_params={"B", "A"},
        setup_params={"Voltage": Quantity(), "when": START, "mode": Mode.STEM}, unique_meta=[{"stage": Number()}],
        files=["/i/a.dm3", "/i/a.dm3", Path("/i/b.dm3")], previews=[Path("/d/a.png"), None], meta=[{"x": 1}],
        warnings=[[], ["odd"]],
    )  # fmt: skip
    event = SimpleNamespace(
        username="alice", user_email="alice@example.org", instrument=SimpleNamespace(name="FEI-Titan-TEM-012345"),
        sample_details=["a", None], sample_elements=[None, ["Au"]], project_id=None, internal_id=42, start_time=START,
        made_up="not known",
    )  # fmt: skip

    # When they are put together
    context = context_of(Path("/r/2026-11-02_x_7.xml"), session(), [activity], event)

    # Then nothing that a destination reads is lost
    assert context.xml_file_path == Path("/r/2026-11-02_x_7.xml")
    assert context.dt_from.isoformat() == "2026-11-02T10:00:00-05:00"
    assert (context.instrument_pid, context.user) == ("FEI-Titan-TEM-012345", "alice")
    (kept,) = context.activities
    assert kept.files == ("/i/a.dm3", "/i/a.dm3", "/i/b.dm3")
    assert kept.previews == (Path("/d/a.png"), None)
    assert context.reservation_event is not None
    assert context.reservation_event.user_email == "alice@example.org"
    assert context.reservation_event.internal_id == "42"
    assert context.reservation_event.sample_elements == (None, ("Au",))

    # And it survives the wire, with the attributes of NexusLIMS's activity
    again = ExportContext.parse(context.to_json()).activities[0]
    assert again.unique_params == ["A", "B"]
    assert again.setup_params == {
        "Voltage": {"magnitude": "200.0", "unit": "kilovolt"}, "when": "2026-11-02T10:00:00-05:00", "mode": "stem",
    }  # fmt: skip
    assert again.warnings == [[], ["odd"]]
    assert again.meta == [{**again.setup_params, "stage": [1.5, 2.5]}]


def test_an_activity_without_details_answers_as_an_empty_one_of_nexuslims() -> None:
    activity = Activity()
    assert (activity.setup_params, activity.unique_meta, activity.meta, activity.warnings) == ({}, [], [], [])
    with pytest.raises(AttributeError, match="no attribute 'mood'"):
        _ = activity.mood


def test_a_time_without_a_zone_is_its_instruments() -> None:
    # Given a session whose times are naive, of an instrument that knows its zone
    instrument = SimpleNamespace(name="x", localize_datetime=lambda time: time.replace(tzinfo=ZONE))
    given = session(instrument=instrument, dt_from=datetime(2026, 11, 2, 10), dt_to=datetime(2026, 11, 2, 11))  # noqa: DTZ001
    # When its context is made, then the zone is there
    assert context_of(Path("/r.xml"), given).dt_from == START


def test_a_time_without_any_zone_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match="dt_from"):
        context_of(Path("/r.xml"), session(dt_from=datetime(2026, 11, 2)))  # noqa: DTZ001


def test_bare_objects_are_enough() -> None:
    # Given no activities and no reservation
    context = context_of(Path("r.xml"), session(user=None, dt_to=START.astimezone(UTC)))
    # Then there is a context all the same, with an absolute path
    assert context.xml_file_path.is_absolute()
    assert (context.activities, context.reservation_event, context.user) == ((), None, None)


@pytest.mark.parametrize("value", [{1: {2, 3}}, [Path("/a"), b"x"], object(), Number(), float("inf")])
def test_any_metadata_becomes_json(value: object) -> None:
    assert json.dumps(jsonable(value))


def test_the_bridge_loads_neither_celery_nor_redis_nor_nexuslims() -> None:
    # When a record builder imports it, then only light modules come along
    code = (
        "import sys, labrelay.nexuslims; print(sorted({'celery', 'redis', 'nexusLIMS', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
