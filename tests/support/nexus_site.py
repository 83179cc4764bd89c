"""A facility that runs NexusLIMS: its folders, its database made by its own migrations, records and sessions."""

from __future__ import annotations

import sqlite3
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import Lab, Worker
from nexus_servers import Servers

DESTINATIONS = "nexusLIMS.exporters.destinations"
CLASSES = {
    "cdcs": f"{DESTINATIONS}.cdcs:CDCSDestination",
    "elabftw": f"{DESTINATIONS}.elabftw:ELabFTWDestination",
    "labarchives": f"{DESTINATIONS}.labarchives:LabArchivesDestination",
}
INSTRUMENT = "FEI-Titan-TEM-012345"
PNG = b"\x89PNG\r\n\x1a\n preview"

_MIGRATE = """
import pathlib, nexusLIMS.db
from alembic import command
from alembic.config import Config
config = Config()
config.set_main_option("script_location", str(pathlib.Path(nexusLIMS.db.__file__).parent / "migrations"))
command.upgrade(config, "head")
"""

# NexusLIMS's own objects write the rows, so that they are spelled as it spells them.
_SESSION = """
import datetime, sys
from sqlmodel import Session
from nexusLIMS.db.engine import get_engine
from nexusLIMS.db.models import Instrument, SessionLog
from nexusLIMS.db.enums import EventType, RecordStatus
pid, status = sys.argv[1:3]
zone = datetime.timezone(datetime.timedelta(hours=-5))
with Session(get_engine()) as db:
    if db.get(Instrument, pid) is None:
        db.add(Instrument(
            instrument_pid=pid, api_url=f"https://nemo.example/api/tools/?id={pid}", calendar_url="https://nemo.example",
            location="223", display_name="Titan", property_tag="012345", filestore_path="./Titan",
            harvester="nemo", timezone_str="America/New_York",
        ))
        db.commit()
    for identifier in sys.argv[3:]:
        number = int(identifier.rpartition("=")[2])
        for kind, hour in ((EventType.START, 10), (EventType.END, 12)):
            db.add(SessionLog(
                session_identifier=identifier, instrument=pid,
                timestamp=datetime.datetime(2026, 11, 1 + number % 20, hour, tzinfo=zone),
                event_type=kind, user="alice", record_status=RecordStatus(status),
            ))
        db.add(SessionLog(
            session_identifier=identifier, instrument=pid, timestamp=datetime.datetime.now(zone),
            event_type=EventType.RECORD_GENERATION, user="nexuslims", record_status=RecordStatus(status),
        ))
    db.commit()
"""

RECORD = """<?xml version="1.0" encoding="UTF-8"?>\r
<Experiment xmlns="https://data.nist.gov/od/dm/nexus/experiment/v1.0">\r
<title>Å session {number}</title>\r
<summary><experimenter>alice</experimenter><instrument pid="{instrument}">Titan</instrument>\r
<reservationStart>2026-11-{day:02}T10:00:00-05:00</reservationStart>\r
<reservationEnd>2026-11-{day:02}T12:00:00-05:00</reservationEnd></summary>\r
<acquisitionActivity seqno="0"><startTime>2026-11-{day:02}T10:05:00-05:00</startTime>\r
<dataset type="Image" role="Experimental"><name>a</name><location>/Titan/{number}/image%20a.dm3</location>\r
<preview>/Titan/{number}/image%20a.dm3.thumb.png</preview></dataset></acquisitionActivity>\r
</Experiment>\r
"""


@dataclass
class Site:
    """One facility."""

    lab: Lab
    servers: Servers
    python: Path
    environment: dict[str, str]

    @classmethod
    def build(cls, lab: Lab, servers: Servers, python: Path) -> Site:
        folder = lab.folder / "nexuslims"
        for name in ("instrument", "data", "data/records"):
            (folder / name).mkdir(parents=True)
        (folder / "nexuslims.db").touch()
        site = cls(
            lab,
            servers,
            python,
            {
                "NX_INSTRUMENT_DATA_PATH": str(folder / "instrument"),
                "NX_DATA_PATH": str(folder / "data"),
                "NX_DB_PATH": str(folder / "nexuslims.db"),
                **servers.environment,
            },
        )
        site.run(_MIGRATE)
        lab.options["plugins"] = list(CLASSES.values())
        lab.write_settings()
        return site

    @property
    def records(self) -> Path:
        return Path(self.environment["NX_DATA_PATH"]) / "records"

    @property
    def database(self) -> Path:
        return Path(self.environment["NX_DB_PATH"])

    def run(self, code: str, *arguments: str, **environment: str) -> str:
        """Run Python with NexusLIMS and labrelay in it."""
        done = subprocess.run(
            [str(self.python), "-c", code, *arguments],
            env=self.lab.environment | self.environment | environment, cwd=self.lab.folder,
            capture_output=True, text=True, check=False, timeout=100,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start_worker(self, **environment: str) -> Worker:
        return self.lab.start_worker(python=self.python, **(self.environment | environment))

    def identifier(self, number: int) -> str:
        return f"https://nemo.example.com/api/usage_events/?id={number}"

    def record(self, number: int) -> Path:
        """Write the record of a session and its files, under the name that NexusLIMS gives it."""
        day = 1 + number % 20
        for root, name in (("instrument", "image a.dm3"), ("data", "image a.dm3.thumb.png")):
            file = self.lab.folder / "nexuslims" / root / "Titan" / str(number) / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(PNG)
        path = self.records / f"2026-11-{day:02}_{INSTRUMENT}_{number}.xml"
        path.write_bytes(RECORD.format(number=number, instrument=INSTRUMENT, day=day).encode())
        return path

    def sessions(self, *numbers: int, status: str = "BUILT_NOT_EXPORTED") -> list[Path]:
        """Put sessions into the database, and their records where NexusLIMS leaves them."""
        self.run(_SESSION, INSTRUMENT, status, *map(self.identifier, numbers))
        return [self.record(number) for number in numbers]

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(self.database)
        try:
            return connection.execute(query, values).fetchall()
        finally:
            connection.close()
