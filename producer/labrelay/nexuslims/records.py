"""The records that NexusLIMS keeps on disk: where they are, and whose they are."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from labrelay.context import ExportContext
from labrelay.errors import InvalidInput
from labrelay.nexus_record import read_nexus_record
from labrelay.nexuslims.database import LoggedSession


@dataclass(frozen=True)
class Folders:
    """Where NexusLIMS keeps records, data and previews."""

    records: Path
    instrument: Path | None = None
    previews: Path | None = None

    @classmethod
    def of(cls, settings: Mapping[str, str], records: Path | None = None) -> Folders:
        """Return the folders of NexusLIMS's settings (its ``config.py``: records default to ``records`` in the data).

        Raises
        ------
        InvalidInput
            Nothing says where the records are.
        """
        data = settings.get("NX_DATA_PATH")
        named = settings.get("NX_RECORDS_PATH") or (data and str(Path(data) / "records"))
        if records is None and not named:
            raise InvalidInput(
                "records", "not given, and neither NX_RECORDS_PATH nor NX_DATA_PATH is set", "Pass --records"
            )
        instrument = settings.get("NX_INSTRUMENT_DATA_PATH")
        return cls(
            (records or Path(str(named))).absolute(),
            Path(instrument) if instrument else None,
            Path(data) if data else None,
        )


def find_record(session: LoggedSession, folder: Path) -> Path:
    """Return the record that NexusLIMS built of a session.

    Its name is ``{day}_{instrument}_{id}.xml`` (``builder/record_builder.py``); the id is the number of the usage
    event with NEMO, and the first part of the identifier with others.

    Raises
    ------
    InvalidInput
        There is none, or there are several and none is of the day on which the session began.
    """
    numbers = parse_qs(urlsplit(session.identifier).query).get("id") if session.harvester == "nemo" else None
    suffix = numbers[0] if numbers else session.identifier.split("-")[0]
    ending = f"_{session.instrument}_{suffix}.xml"
    if session.started is not None and (exact := folder / f"{session.started:%Y-%m-%d}{ending}").is_file():
        return exact
    # The day is that of the time zone in which NexusLIMS was told of it.
    found = sorted(folder.glob(f"????-??-??{glob.escape(ending)}")) if os.sep not in ending else []
    if len(found) == 1:
        return found[0]
    problem = f"{len(found)} records are called *{ending}" if found else f"no record is called *{ending}"
    raise InvalidInput(session.identifier, f"{problem} in {folder}", "Let NexusLIMS build it again")


def context_of_session(session: LoggedSession, folders: Folders) -> ExportContext:
    """Return the context of a session, from its record and from what the database says of it.

    Raises
    ------
    InvalidInput
        The session is not whole, or its record is not usable.
    """
    if session.started is None or session.ended is None:
        missing = "END" if session.started else "START"
        raise InvalidInput(session.identifier, f"session_log has no {missing} with a time", "Correct session_log")
    record = find_record(session, folders.records)
    read = read_nexus_record(
        record,
        session_identifier=session.identifier,
        instrument_root=folders.instrument,
        preview_root=folders.previews,
    )
    # The database is what NexusLIMS's own exporters go by.
    told = {"instrument_pid": session.instrument, "dt_from": session.started, "dt_to": session.ended}
    return ExportContext.parse({**read, **told, "user": session.user or read["user"]}, source=record.name)


def move_uploaded(session: LoggedSession, folders: Folders) -> None:
    """Move the record where NexusLIMS keeps those it exported; what cannot be moved stays, and harms nothing."""
    try:
        record = find_record(session, folders.records)
        uploaded = folders.records / "uploaded"
        uploaded.mkdir(exist_ok=True)
        shutil.move(record, uploaded / record.name)
    except (InvalidInput, OSError):
        return
