"""NexusLIMS's session, activities and reservation, by what they look like, as one export context."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from labrelay.context import ACTIVITY_DETAILS, ExportContext, ReservationEvent


class NexusInstrument(Protocol):
    """What is read of NexusLIMS's ``Instrument``."""

    @property
    def name(self) -> str:
        """Its persistent identifier."""


class NexusSession(Protocol):
    """What is read of NexusLIMS's ``Session``."""

    session_identifier: str
    dt_from: datetime
    dt_to: datetime
    user: str | None

    @property
    def instrument(self) -> NexusInstrument:
        """The instrument it was on."""


_TIMES = frozenset({"last_updated", "start_time", "end_time"})
_LISTS = frozenset({"sample_details", "sample_pid", "sample_name", "project_name", "project_id", "project_ref"})


def context_of(
    xml_file: Path, session: NexusSession, activities: Iterable[object] = (), reservation_event: object = None
) -> ExportContext:
    """Return the context of a built record.

    Parameters
    ----------
    xml_file
        The record.
    session
        NexusLIMS's ``Session``, or anything that looks like it.
    activities
        Its ``AcquisitionActivity`` objects.
    reservation_event
        Its ``ReservationEvent``, or None.

    Raises
    ------
    InvalidInput
        A field is not usable; names it and the cure.
    """
    instrument = session.instrument
    return ExportContext.parse(
        {
            "xml_file_path": Path(xml_file).absolute(),
            "session_identifier": session.session_identifier,
            "instrument_pid": instrument.name,
            "dt_from": _aware(session.dt_from, instrument),
            "dt_to": _aware(session.dt_to, instrument),
            "user": session.user,
            "activities": [_activity(activity, instrument) for activity in activities],
            "reservation_event": None if reservation_event is None else _reservation(reservation_event, instrument),
        },
        source=Path(xml_file).name,
    )


def jsonable(value: object) -> Any:
    """Return a value of NexusLIMS's metadata as JSON can keep it.

    A quantity becomes ``{"magnitude": …, "unit": …}``, a decimal a text with every digit, a set a sorted list.

    Examples
    --------
    >>> from decimal import Decimal
    >>> jsonable({"Voltage": Decimal("200.10"), "modes": {"STEM", "EDS"}})
    {'Voltage': '200.10', 'modes': ['EDS', 'STEM']}
    """
    result: Any = str(value)
    if value is None or isinstance(value, bool | int | float | str):
        result = value
    elif isinstance(value, Mapping):
        result = {str(key): jsonable(item) for key, item in value.items()}
    elif isinstance(value, set | frozenset):
        result = sorted((jsonable(item) for item in value), key=str)
    elif isinstance(value, list | tuple):
        result = [jsonable(item) for item in value]
    elif isinstance(value, date):
        result = value.isoformat()
    elif isinstance(value, Enum):
        result = jsonable(value.value)
    elif hasattr(value, "magnitude") and hasattr(value, "units"):
        result = {"magnitude": jsonable(value.magnitude), "unit": str(value.units)}
    elif hasattr(value, "tolist"):  # an array or a number of numpy
        result = jsonable(value.tolist())
    return result


def _activity(activity: object, instrument: object) -> dict[str, Any]:
    details = {name: getattr(activity, name, None) for name in ACTIVITY_DETAILS}
    return {
        "start": _aware(getattr(activity, "start", None), instrument),
        "end": _aware(getattr(activity, "end", None), instrument),
        "mode": getattr(activity, "mode", None) or None,
        "files": [str(file) for file in getattr(activity, "files", None) or ()],
        "previews": [preview and Path(preview) for preview in getattr(activity, "previews", None) or ()],
        "extra": {name: jsonable(value) for name, value in details.items() if value},
    }


def _reservation(event: object, instrument: object) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name in ReservationEvent.model_fields:
        value = getattr(event, name, None)
        if value is None:
            continue
        if name in _TIMES:
            values[name] = _aware(value, instrument)
        elif name == "sample_elements":
            values[name] = [elements if elements is None else [str(item) for item in elements] for elements in value]
        elif name in _LISTS:
            items = value if isinstance(value, list | tuple) else [value]
            values[name] = [item if item is None else str(item) for item in items]
        else:
            values[name] = str(getattr(value, "name", value))
    return values


def _aware(time: datetime | None, instrument: object) -> datetime | None:
    """Return a time with its zone; a naive one is the instrument's, as NexusLIMS takes it."""
    localize = getattr(instrument, "localize_datetime", None)
    if not isinstance(time, datetime) or time.tzinfo is not None or localize is None:
        return time
    localized: datetime = localize(time)
    return localized
