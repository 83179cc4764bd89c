"""A record builder switches by changing an import; the sweep picks up what NexusLIMS left behind."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys

import pytest
from nexus_site import INSTRUMENT

from labrelay.context import export_id_of
from labrelay.results import ExportState
from labrelay_worker.conformance.faults import Fault

pytestmark = pytest.mark.integration

# What NexusLIMS's builder does after it built (builder/record_builder.py), with its own session objects.
BUILDER = """
import json, shutil, sys
from pathlib import Path
from types import SimpleNamespace
from nexusLIMS.config import settings
from nexusLIMS.db.enums import RecordStatus
from nexusLIMS.db.session_handler import get_sessions_to_build
from labrelay.nexuslims import export_records, was_successfully_exported

sessions = get_sessions_to_build()
files, activities, events = [], [], []
for session in sessions:
    number = session.session_identifier.rpartition("=")[2]
    (file,) = settings.records_dir_path.glob(f"*_{number}.xml")
    files.append(file)
    raw = settings.NX_INSTRUMENT_DATA_PATH / "Titan" / number / "image a.dm3"
    preview = settings.NX_DATA_PATH / "Titan" / number / "image a.dm3.thumb.png"
    activities.append([SimpleNamespace(
        start=session.dt_from, end=session.dt_to, mode="IMAGING", unique_params={"Voltage"}, setup_params={"a": 1},
        unique_meta=[{"b": 2}], files=[str(raw), str(raw)], previews=[preview], meta=[{}], warnings=[[]],
    )])
    events.append(SimpleNamespace(username="alice", user_email="a@example.org", instrument=session.instrument))
results = export_records(files, sessions, activities, events, **json.loads(sys.argv[1]))
for file, session in zip(files, sessions):
    good = was_successfully_exported(file, results)
    session.update_session_status(RecordStatus.COMPLETED if good else RecordStatus.BUILT_NOT_EXPORTED)
    if good:
        uploaded = settings.records_dir_path / "uploaded"
        uploaded.mkdir(exist_ok=True)
        shutil.copy2(file, uploaded)
        file.unlink()
print(json.dumps([[[r.destination_name, r.success, r.record_id, r.metadata] for r in found]
                  for found in results.values()]))
"""

SIGNATURES = """
import inspect
import labrelay.nexuslims as ours
import nexusLIMS.exporters as theirs
for name in ("export_records", "was_successfully_exported"):
    mine = list(inspect.signature(getattr(ours, name)).parameters.values())
    for number, parameter in enumerate(inspect.signature(getattr(theirs, name)).parameters.values()):
        assert (mine[number].name, mine[number].kind) == (parameter.name, parameter.kind), (name, parameter)
        assert mine[number].default == parameter.default, (name, parameter)
    rest = mine[number + 1:]
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in rest), name
wanted = set(theirs.ExportResult.__dataclass_fields__)
assert wanted <= set(ours.ExportResult.model_fields), wanted
wanted = set(theirs.ExportContext.__dataclass_fields__) | {"get_result", "add_result", "has_successful_export"}
known = {*ours.ExportContext.model_fields, *dir(ours.ExportContext)}
assert wanted <= known, wanted - known
print("same")
"""


def statuses(site) -> set[str]:
    return {status for (status,) in site.rows("SELECT DISTINCT record_status FROM session_log")}


def sweep(site, *options: str) -> tuple[int, dict, str]:
    """Run the command as a person or cron would; answers exit code, report and what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "labrelay", "nexuslims", "sweep", str(site.database), "--json", *options],
        env=site.lab.environment | site.environment, cwd=site.lab.folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


def finish(site, *numbers: int) -> list[ExportState]:
    return [site.lab.finished(export_id_of(INSTRUMENT, site.identifier(number))).state for number in numbers]


def test_names_and_fields_are_those_of_the_real_package(site):
    assert site.run(SIGNATURES).strip() == "same"


def test_a_builder_that_changed_its_import_gets_on_at_once(site):
    # Given two sessions to build, and no worker
    files = site.sessions(1, 2, status="TO_BE_BUILT")

    # When NexusLIMS's builder runs with labrelay's functions
    results = json.loads(site.run(BUILDER, "{}"))

    # Then it is done at once: labrelay has them, and the records are moved as ever
    assert [(found[0][0], found[0][1]) for found in results] == [("labrelay", True)] * 2
    assert statuses(site) == {"COMPLETED"}
    assert not any(file.exists() for file in files)

    # When a worker comes, then it delivers what was built, previews and user included
    site.start_worker()
    assert finish(site, 1, 2) == [ExportState.DELIVERED] * 2
    assert {record.title for record in site.servers.cdcs.records} == {file.stem for file in files}
    assert len(site.servers.pages) == len(site.servers.experiments) == 2
    assert all("data:image/png;base64," in html for html in site.servers.entries)
    assert all("alice" in experiment.tags for experiment in site.servers.experiments)


def test_a_builder_that_waits_gets_a_result_per_destination(site):
    # Given a worker and a session to build
    site.sessions(1, status="TO_BE_BUILT")
    site.start_worker()

    # When the builder waits
    ((*results,),) = json.loads(site.run(BUILDER, '{"wait": true, "timeout": 60}'))

    # Then it gets what NexusLIMS's own exporters answer, in the order in which it was delivered
    assert results[0][0] == "cdcs"
    assert sorted(name for name, *_ in results) == ["cdcs", "elabftw", "labarchives"]
    assert all(success and record_id for _, success, record_id, _ in results)
    assert {metadata["export_state"] for *_, metadata in results} == {"delivered"}
    assert statuses(site) == {"COMPLETED"}


def test_a_rebuild_after_a_crash_makes_nothing_twice(site):
    # Given a builder that died after its records were accepted, so that all sessions are still to be built
    site.sessions(1, 2, status="TO_BE_BUILT")
    site.start_worker()
    site.run(BUILDER, "{}")
    finish(site, 1, 2)
    with sqlite3.connect(site.database) as connection:
        connection.execute("UPDATE session_log SET record_status = 'TO_BE_BUILT'")
    connection.close()

    # When it builds them again, the records differing in details as rebuilt ones do
    for number in (1, 2):
        record = site.record(number)
        record.write_bytes(record.read_bytes().replace(b"\xc3\x85", b"A"))
    results = json.loads(site.run(BUILDER, "{}"))

    # Then they count as exported, and there is one object of each everywhere
    assert [found[0][3]["outcome"] for found in results] == ["kept_earlier"] * 2
    assert statuses(site) == {"COMPLETED"}
    finish(site, 1, 2)
    servers = site.servers
    counts = len(servers.cdcs.records), len(servers.experiments), len(servers.pages)
    assert counts == (2, 2, 2)


def test_the_sweep_delivers_what_was_left_and_tells_nexuslims(site):
    # Given three sessions that NexusLIMS built and could not export, and one that it exported
    files = site.sessions(1, 2, 3)
    site.sessions(9, status="COMPLETED")

    # When a sweep only looks
    code, report, _ = sweep(site, "--dry-run")
    # Then it names them, and nothing is submitted
    assert code == 0
    assert [one["outcome"] for one in report["sessions"]] == ["would submit"] * 3
    with site.lab.client() as client:
        assert not any(client.ledger.counts().values())

    # When it sweeps twice, then each is submitted once
    assert [one["outcome"] for one in sweep(site)[1]["sessions"]] == ["submitted"] * 3
    assert [one["outcome"] for one in sweep(site)[1]["sessions"]] == ["known"] * 3
    site.start_worker()
    assert finish(site, 1, 2, 3) == [ExportState.DELIVERED] * 3

    # When it writes back, then NexusLIMS's own models read what became of them
    code, report, _ = sweep(site, "--write-back")
    assert code == 0
    assert all(one["written"] == 3 + 3 for one in report["sessions"])
    logged = json.loads(site.run(
        "import json\n"
        "from sqlmodel import Session, select\n"
        "from nexusLIMS.db.engine import get_engine\n"
        "from nexusLIMS.db.models import UploadLog, SessionLog\n"
        "with Session(get_engine()) as db:\n"
        "    rows = db.exec(select(UploadLog)).all()\n"
        "    status = sorted({log.record_status.value for log in db.exec(select(SessionLog)).all()})\n"
        "    print(json.dumps([status, [[r.session_identifier, r.destination_name, r.success, r.record_id,"
        " r.timestamp.utcoffset() is not None] for r in rows]]))"
    ))  # fmt: skip
    assert logged[0] == ["COMPLETED"]
    assert len(logged[1]) == 9
    assert all(success and record_id and aware for *_, success, record_id, aware in logged[1])
    assert {row[1] for row in logged[1]} == {"cdcs", "elabftw", "labarchives"}
    assert all((site.records / "uploaded" / file.name).exists() and not file.exists() for file in files)

    # When it runs again, then there is nothing to do
    assert sweep(site, "--write-back")[:2] == (0, {"sessions": [], "away": ""})
    assert len(site.rows("SELECT 1 FROM upload_log")) == 9


def test_what_nexuslims_delivered_itself_is_not_delivered_again(site):
    # Given a session that NexusLIMS brought to CDCS and nowhere else
    site.sessions(1)
    with sqlite3.connect(site.database) as connection:
        connection.execute(
            "INSERT INTO upload_log (session_identifier, destination_name, success, timestamp, record_id, record_url)"
            " VALUES (?, 'cdcs', 1, '2026-11-02T12:00:00', '77', 'https://cdcs.example.org/data?id=77')",
            (site.identifier(1),),
        )
    connection.close()
    site.start_worker()

    # When it is swept
    assert sweep(site)[0] == 0

    # Then only the others get it, and they link to the record that is there
    assert finish(site, 1) == [ExportState.DELIVERED]
    assert site.servers.cdcs.records == []
    (html,) = site.servers.entries
    (experiment,) = site.servers.experiments
    assert "https://cdcs.example.org/data?id=77" in html
    assert "https://cdcs.example.org/data?id=77" in experiment.body


def test_a_session_that_was_accepted_and_died_is_given_back(site):
    # Given a session that is COMPLETED because labrelay had accepted it, and that CDCS refuses for good
    site.sessions(1, status="TO_BE_BUILT")
    site.servers.cdcs.faults.plan(
        Fault("status", method="POST", path="/rest/data/", status=400, body="bad XML", times=9)
    )
    site.run(BUILDER, json.dumps({"destinations": ["cdcs"]}))
    assert statuses(site) == {"COMPLETED"}
    site.start_worker()
    assert finish(site, 1) == [ExportState.DEAD]

    # When the sweep writes back
    code, report, _ = sweep(site, "--write-back")

    # Then NexusLIMS knows that it is not exported, and why
    assert (code, report["sessions"][0]["state"]) == (0, "dead")
    assert statuses(site) == {"BUILT_NOT_EXPORTED"}
    ((success, text),) = site.rows("SELECT success, error_message FROM upload_log")
    assert not success
    assert "bad XML" in text

    # When it runs again, then nothing is written twice
    assert sweep(site, "--write-back")[1]["sessions"][0]["written"] == 0


def test_sessions_that_cannot_be_swept_are_named_and_the_others_go_on(site):
    # Given three sessions of which one lost its record and one its raw file
    files = site.sessions(1, 2, 3)
    files[0].unlink()
    (site.lab.folder / "nexuslims" / "instrument" / "Titan" / "2" / "image a.dm3").unlink()

    # When they are swept
    code, report, _ = sweep(site)

    # Then those two have a reason with its cure, and the third is submitted
    assert code == 1
    outcomes = {one["session_identifier"][-1]: (one["outcome"], one["reason"]) for one in report["sessions"]}
    assert outcomes["1"][0] == outcomes["2"][0] == "refused"
    assert "no record is called" in outcomes["1"][1]
    assert "no such file" in outcomes["2"][1]
    assert outcomes["3"] == ("submitted", "")


def test_a_file_that_is_no_database_of_nexuslims_is_one_line(site):
    # Given another database, a text, and nothing
    other = site.lab.folder / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE x (y)")
    connection.close()
    text = site.lab.folder / "text.db"
    text.write_text("no database at all, but long enough to have a header " * 40)

    # When each is swept, then it is refused on one line that names it
    for file in (other, text, site.lab.folder / "nowhere.db"):
        done = subprocess.run(
            [sys.executable, "-m", "labrelay", "nexuslims", "sweep", str(file)],
            env=site.lab.environment | site.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert file.name in done.stderr
