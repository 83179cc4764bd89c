"""`labrelay check` against real disk files and the test servers, after real deliveries."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cdcs_parts import nexus
from click.testing import CliRunner
from elab import Elab, elab_server
from labarchives_bench import SECRETS
from tests.servers.cdcs import SUPERUSER, TEMPLATE, CdcsServer
from tests.servers.elabftw_calls import WRITER
from tests.servers.labarchives import LabArchivesServer

from labrelay.cli import main
from labrelay.results import ExportState
from labrelay_worker.conformance.faults import Fault
from labrelay_worker.conformance.serving import ServerThread
from labrelay_worker.limiting import account_key

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Result:
    exit_code: int
    stdout: str
    stderr: str


def check(*arguments: str) -> Result:
    """Run the command as people do: in a process of its own, which knows nothing of this one."""
    command = [sys.executable, "-m", "labrelay", "check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return Result(done.returncode, done.stdout, done.stderr)


def marks(result: Result) -> list[str]:
    """Return mark and destination of each line."""
    return sorted(line[: line.index("  ")] for line in result.stdout.splitlines())


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def delivered(lab: Any) -> Callable[..., list[str]]:
    """Return a function that delivers sessions to what is configured, ends the worker, and returns their ids."""

    def deliver(contexts: list[Any]) -> list[str]:
        worker = lab.start_worker()
        with lab.client() as client:
            ids = [submission.export_id for submission in client.submit_many(contexts)]
            assert {client.wait(export_id, 60).state for export_id in ids} == {ExportState.DELIVERED}
        worker.end()
        return ids

    return deliver


@pytest.fixture
def archive(lab: Any) -> Path:
    """Configure a destination on disk."""
    lab.destinations["archive"] = {"type": "disk", "root": str(lab.folder / "archive")}
    lab.write_settings()
    return lab.folder / "archive"


def test_files_on_disk_are_compared_byte_for_byte_and_nothing_is_touched(lab, archive, delivered):
    # Given four delivered sessions, whose sources are gone
    delivered([lab.session(number, files=2) for number in range(4)])
    shutil.rmtree(lab.folder / "data")
    folders = sorted(path.parent for path in archive.rglob("manifest.json"))
    answer = check()
    assert answer.exit_code == 0, answer.stdout + answer.stderr

    # When one loses a byte, one a file, and one everything
    (image,) = folders[1].rglob("image 0.raw")
    image.write_bytes(b"\xff" + image.read_bytes()[1:])
    next(folders[2].rglob("image 1.raw")).unlink()
    shutil.rmtree(folders[3])
    before = everything_in(archive)
    result = check()

    # Then each has its mark, the files are named, the exit code warns, and nothing was changed
    assert result.exit_code == 1
    assert marks(result) == ["* archive", "* archive", "- archive", "= archive"]
    assert "changed: files/image 0.raw" in result.stdout
    assert "gone: files/image 1.raw" in result.stdout
    assert "4 deliveries: 1 equal, 1 missing, 2 different" in result.stderr
    assert everything_in(archive) == before


def test_a_manifest_that_was_made_to_fit_its_files_is_found_out(lab, archive, delivered):
    # Given a session whose record and manifest were both rewritten
    delivered([lab.session()])
    (manifest,) = archive.rglob("manifest.json")
    document = json.loads(manifest.read_text())
    (entry,) = [entry for entry in document["files"] if entry["path"].endswith(".xml")]
    forged = b"<forged/>"
    (manifest.parent / entry["path"]).write_bytes(forged)
    entry |= {"size": len(forged), "sha256": hashlib.sha256(forged).hexdigest()}
    manifest.write_text(json.dumps(document))

    # When it is audited
    result = check()

    # Then what the ledger knows of it tells
    assert result.exit_code == 1
    assert "itself was changed: record-1.xml" in result.stdout


@pytest.fixture
def cdcs(lab: Any) -> Iterator[tuple[CdcsServer, ServerThread]]:
    server = CdcsServer()
    with ServerThread(server.app()) as thread:
        lab.destinations["cdcs"] = {"type": "cdcs", "url": thread.url, "token": SUPERUSER, "template": TEMPLATE}
        lab.write_settings()
        yield server, thread


def nexus_session(lab: Any, number: int) -> Any:
    context = lab.session(number)
    context.xml_file_path.write_bytes(nexus(f"Å {number}"))
    return context


def test_a_cdcs_record_that_was_removed_or_changed_is_found(lab, cdcs, delivered):
    # Given three published records
    server, _ = cdcs
    delivered([nexus_session(lab, number) for number in range(3)])
    assert check().exit_code == 0

    # When one is removed and another rewritten
    first, second, _ = server.records
    server.store.records.pop(first.id)
    second.xml_content = nexus("tampered with").decode()
    requests = len(server.faults.seen)
    result = check()

    # Then both are told, by reading alone
    assert result.exit_code == 1
    assert marks(result) == ["* cdcs", "- cdcs", "= cdcs"]
    assert {request.method for request in server.faults.seen[requests:]} == {"GET"}


def test_a_server_that_is_down_is_asked_a_few_times_and_then_left_alone(lab, cdcs, archive, delivered):
    # Given sessions at a repository and on disk
    _, thread = cdcs
    delivered([nexus_session(lab, number) for number in range(12)])

    # When the repository is down
    thread.close()
    result = check()

    # Then its deliveries are not known, the others are, and the exit code says that something was not asked
    assert result.exit_code == 3
    assert marks(result) == ["! cdcs"] * 12 + ["= archive"] * 12
    assert "not asked: it was down 3 times in a row" in result.stdout


def test_an_experiment_that_lost_its_attachment_or_was_deleted_is_found(lab, delivered, monkeypatch):
    elab: Elab
    with elab_server() as elab:
        # Given three experiments
        monkeypatch.setenv("LABRELAY_DESTINATIONS__ELABFTW__API_KEY", WRITER)
        lab.environment["LABRELAY_DESTINATIONS__ELABFTW__API_KEY"] = WRITER
        lab.destinations["elabftw"] = {"url": elab.url, "timeout": 10}
        lab.write_settings()
        delivered([lab.session(number) for number in range(3)])
        assert check().exit_code == 0

        # When one is deleted, and the record of another
        elab.server.experiments[1]["state"] = 3
        (upload,) = [u for u in elab.server.uploads.values() if u["item_id"] == 2]
        upload["state"] = 3
        result = check()

    # Then both are told
    assert result.exit_code == 1
    assert marks(result) == ["* elabftw", "- elabftw", "= elabftw"]


def test_a_page_that_lost_its_entry_or_all_is_found(lab, delivered, monkeypatch):
    server = LabArchivesServer()
    with server.thread() as running:
        # Given three pages
        server.url = running.url
        lab.destinations["labarchives"] = {
            "url": f"{server.url}/api", "notebook_id": "nb/1+=", "requests_per_second": 50.0,
        }  # fmt: skip
        lab.write_settings()
        for name, value in zip(("ACCESS_KEY_ID", "ACCESS_PASSWORD", "USER_ID"), SECRETS, strict=False):
            lab.environment[f"LABRELAY_DESTINATIONS__LABARCHIVES__{name}"] = value
            monkeypatch.setenv(f"LABRELAY_DESTINATIONS__LABARCHIVES__{name}", value)
        delivered([lab.session(number) for number in range(3)])
        assert check().exit_code == 0

        # When one loses everything, and another its text
        first, second, _ = (page["tree_id"] for page in server.pages)
        for entry in list(server.store.entries.values()):
            if entry.page == first or (entry.page == second and not entry.is_attachment):
                del server.store.entries[entry.eid]
        result = check()

    # Then both are told
    assert result.exit_code == 1, result.output
    assert marks(result) == ["* labarchives", "- labarchives", "= labarchives"]


def test_what_cannot_be_asked_is_said_so_and_has_an_exit_code_of_its_own(lab, archive, delivered):
    # Given a destination that cannot be asked beside one that can
    lab.recorder("unasked")
    lab.destinations["unasked"]["type"] = "blind"
    lab.write_settings()
    delivered([lab.session()])

    # When both, or the one that can be asked, are audited
    both, one = check(), check("--destination", "archive")

    # Then monitoring can tell this from an error
    assert (both.exit_code, marks(both)) == (7, ["! unasked", "= archive"])
    assert (one.exit_code, marks(one)) == (0, ["= archive"])


def test_a_paused_destination_is_not_asked(lab, archive, delivered):
    delivered([lab.session()])
    assert CliRunner().invoke(main, ["pause", "archive", "--reason", "moving disks"]).exit_code == 0
    result = check()
    assert (result.exit_code, marks(result)) == (3, ["! archive"])
    assert "moving disks" in result.stdout


def test_filters_choose_by_state_and_time(lab, archive, delivered):
    delivered([lab.session()])
    assert "1 deliveries" in check("--since", "1h", "--state", "delivered").stderr
    assert "nothing to ask about" in check("--since", "2099-01-01").stderr
    assert "nothing to ask about" in check("--state", "dead").stderr
    assert check("--since", "yesterday-ish").exit_code == 2


def test_a_destination_that_nobody_has_is_refused_rather_than_found_well(lab, archive, delivered):
    # Given a delivery, and monitoring with a misspelt name beside a right one
    delivered([lab.session()])
    result = check("--destination", "archive", "--destination", "archvie")

    # Then it hears of it, not that all is equal
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--destination: neither this machine nor a running worker has a destination 'archvie'" in result.stderr
    assert "Use archive" in result.stderr


def test_an_interrupted_audit_goes_on_from_its_report(lab, cdcs, delivered):
    # Given a report of an audit in which the server answered to one question only
    server, _ = cdcs
    delivered([nexus_session(lab, number) for number in range(3)])
    server.faults.plan(Fault("status", status=503, path="/data/[0-9]", times=2))
    report = lab.folder / "report.jsonl"
    assert check("--report", str(report)).exit_code == 3
    with report.open("ab") as file:
        file.write(b'{"schema": "labrelay.audit_li')  # a kill tore the last line

    # When it goes on
    requests = len(server.faults.seen)
    result = check("--report", str(report), "--resume", "--json")

    # Then only what was not known is asked, and the report ends whole
    assert result.exit_code == 0
    summary = json.loads(result.stdout)["summary"]
    assert (summary["asked"], summary["equal"], summary["taken_over"]) == (3, 3, 1)
    assert len(server.faults.seen) - requests == 2
    lines = [json.loads(line) for line in report.read_text().splitlines() if line.endswith("}")]
    assert [line["mark"] for line in lines].count("=") == 3
    # And a report is never mixed up with another
    assert check("--report", str(report)).exit_code == 2


def test_archived_exports_are_asked_about_where_their_archive_is(lab, archive, delivered):
    # Given an export that was retired to this machine's archive
    lab.options["retention_days"] = 1e-6
    lab.write_settings()
    (export_id,) = delivered([lab.session()])
    lab.start_worker()
    with lab.client() as client:
        lab.wait_until(lambda: client.status(export_id).archived, what="its retirement")

    # When audits run without and with the archive, and where the archive is not
    without, with_it = check(), check("--archived")
    shutil.move(lab.folder / "home" / "archive", lab.folder / "elsewhere")
    not_here = check("--archived")

    # Then each says what it can
    assert "1 archived exports were left out" in without.stderr
    assert (with_it.exit_code, marks(with_it)) == (0, ["= archive"])
    assert not_here.exit_code == 7
    assert "run `labrelay check --archived` there" in not_here.stdout


def test_an_audit_keeps_the_limits_that_workers_keep(lab, archive, delivered):
    # Given an account whose only place somebody holds
    lab.destinations["archive"] |= {"concurrent": 1, "limit_account": "shared"}
    lab.write_settings()
    delivered([lab.session()])
    with lab.client() as client:
        keys, redis = client.settings.keys, client.ledger._redis
        places = keys.places(account_key("shared"))
        seconds, _ = redis.time()
        redis.zadd(places, {"a worker": seconds * 1000 + 3000})

        # When an audit asks, then it waits for its turn
        result = check()
        assert result.exit_code == 0
        assert redis.time()[0] >= seconds + 2


def test_ctrl_c_ends_an_audit_at_once_with_what_was_found_so_far(lab, cdcs, archive, delivered):
    # Given an audit in front of a server that hangs
    server, _ = cdcs
    (export_id,) = delivered([nexus_session(lab, 1)])
    server.faults.plan(Fault("hang"))
    report = lab.folder / "report.jsonl"
    command = [sys.executable, "-m", "labrelay", "check", "--report", str(report)]
    process = subprocess.Popen(
        command, env=lab.environment, cwd=lab.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        lab.wait_until(lambda: server.faults.held and report.exists() and report.read_text(), what="one line")

        # When it is interrupted
        process.send_signal(signal.SIGINT)
        printed, said = process.communicate(timeout=30)
    finally:
        process.kill()
        server.faults.release()

    # Then it says so, and the report has what was asked
    assert process.returncode == 3
    assert printed.startswith("= archive")
    assert "interrupted; --resume goes on" in said
    assert [json.loads(line)["export_id"] for line in report.read_text().splitlines()] == [export_id]
