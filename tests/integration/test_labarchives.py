"""LabArchives through real workers: once, in place, with its link, in its pace, and without a secret anywhere."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

import pytest
from aiohttp import web
from labarchives_bench import SECRETS
from tests.servers.labarchives import LabArchivesServer

from labrelay.inputs import read_contexts
from labrelay.results import ExportState
from labrelay_worker.conformance.faults import Fault
from labrelay_worker.conformance.serving import ServerThread

pytestmark = pytest.mark.integration

SHARED = Path(__file__).parents[3] / "shared" / "data" / "sessions.tar.xz"


@pytest.fixture
def server():
    server = LabArchivesServer()
    with server.thread() as running:
        server.url = running.url
        yield server


@pytest.fixture
def notebook(lab, server):
    """Return a function that configures the destination, at a rate that keeps tests short."""

    def configure(**options):
        lab.destinations["labarchives"] = {
            "url": f"{server.url}/api",
            "notebook_id": "nb/1+=",
            "requests_per_second": 50.0,
            **options,
        }
        lab.write_settings()
        for name, value in zip(("ACCESS_KEY_ID", "ACCESS_PASSWORD", "USER_ID"), SECRETS, strict=False):
            lab.environment[f"LABRELAY_DESTINATIONS__LABARCHIVES__{name}"] = value

    return configure


def record_of(page):
    (record,) = [entry for entry in page["entries"] if entry["part_type"] == "Attachment"]
    return base64.b64decode(record["base64"])


def test_a_new_revision_replaces_the_first_in_place(lab, server, notebook):
    # Given a delivered session
    notebook()
    lab.start_worker()
    with lab.client() as client:
        assert lab.finished(client.submit(lab.session()).export_id).state is ExportState.DELIVERED
        (first,) = server.pages
        # When its record changes and it is submitted to replace it
        changed = lab.session()
        changed.xml_file_path.write_bytes(b"<other>\r\n\xc3\x85</other>")
        status = lab.finished(client.submit(changed, replace=True).export_id)
    # Then the same page has the new record, and there is no other
    assert (status.state, status.revision) == (ExportState.DELIVERED, 2)
    (page,) = server.pages
    assert [entry["eid"] for entry in page["entries"]] == [entry["eid"] for entry in first["entries"]]
    assert {entry["version"] for entry in page["entries"]} == {2}
    assert record_of(page) == b"<other>\r\n\xc3\x85</other>"


def test_an_entry_gets_its_link_when_the_record_is_there(lab, server, notebook):
    # Given a repository that fails for longer than the notebook waits
    is_up: list[bool] = []

    async def take(_: web.Request) -> web.Response:
        body = {"id": 7, "url": "https://cdcs.lab.example/data?id=7"}
        return web.json_response(body, status=201) if is_up else web.Response(status=408)

    app = web.Application()
    app.router.add_post("/records", take)
    with ServerThread(app) as cdcs:
        lab.options["link_wait"] = 0.3
        lab.destinations["cdcs"] = {"type": "webhook", "url": f"{cdcs.url}/records", "priority": 100}
        notebook()
        lab.start_worker()
        with lab.client() as client:
            export_id = client.submit(lab.session()).export_id
            lab.wait_until(lambda: server.pages and len(server.pages[0]["entries"]) == 2, what="it goes out unlinked")
            # When the repository takes the record
            is_up.append(True)
            status = lab.finished(export_id)
    # Then the entry leads to it
    assert status.state is ExportState.DELIVERED
    (page,) = server.pages
    assert page["entries"][0]["data"].count('href="https://cdcs.lab.example/data?id=7"') == 1
    assert [entry["version"] for entry in page["entries"]] == [2, 1]


def deliver(lab, server, sessions: int) -> None:
    """Deliver to LabArchives and to disk with four worker processes, and see that neither waits for the other."""
    archive = lab.folder / "archive"
    lab.destinations["archive"] = {"type": "disk", "root": str(archive)}
    lab.write_settings()
    for _ in range(4):
        lab.start_worker()
    with lab.client() as client:
        ids = [s.export_id for s in client.submit_many([lab.session(n) for n in range(sessions)])]
        lab.wait_until(lambda: len(list(archive.rglob("manifest.json"))) == sessions, what="disk has every session")
        by_then = len(server.arrivals["akid-one"])
        assert all(client.wait(export_id, 100).state is ExportState.DELIVERED for export_id in ids)
    assert by_then < len(server.arrivals["akid-one"]), "disk was not done before LabArchives was"
    assert sorted(record_of(page) for page in server.pages) == sorted(
        (lab.folder / "data" / str(n) / f"record-{n}.xml").read_bytes() for n in range(sessions)
    )


def test_four_workers_together_keep_the_pace_of_one_account_and_disk_does_not_wait(lab, server, notebook):
    # Given ten requests a second for the account, when four worker processes deliver eight sessions of one instrument
    notebook(requests_per_second=10.0)
    deliver(lab, server, sessions=8)
    # Then no two requests came closer than a tenth of a second, and there is one folder and one instrument
    assert min(server.gaps("akid-one")) >= 0.1
    assert [node["is_page"] for node in server.state()["tree"]].count(False) == 2


def test_the_pace_without_any_setting_is_a_request_a_second(lab, server, notebook):
    # Given no rate in the settings, when four worker processes deliver two sessions
    notebook()
    del lab.destinations["labarchives"]["requests_per_second"]
    deliver(lab, server, sessions=2)
    # Then there is a second between any two requests
    assert min(server.gaps("akid-one")) >= 1.0


def test_a_worker_that_dies_in_the_midst_leaves_one_whole_page(lab, server, notebook):
    # Given a worker that waits for the answer to its attachment, which LabArchives has by then
    notebook()
    server.faults.plan(Fault("hang", after=True, path="add_attachment"))
    worker = lab.start_worker()
    with lab.client() as client:
        export_id = client.submit(lab.session()).export_id
        lab.wait_until(lambda: server.faults.held == 1, what="the answer is awaited")
        # When it is killed, and another one goes on
        worker.end()
        server.faults.release()
        lab.start_worker()
        status = client.wait(export_id, 60)
    # Then it found what was there
    assert status.state is ExportState.DELIVERED
    (page,) = server.pages
    assert [entry["version"] for entry in page["entries"]] == [1, 1]
    assert status.deliveries[0].receipt.adopted


def test_no_secret_is_found_anywhere(lab, server, notebook):
    # Given a server that repeats user id and signature in its errors, and a password that is wrong at first
    notebook()
    server.store.passwords["akid-one"] = "another one"
    worker = lab.start_worker(LABRELAY_RETRY__MISCONFIGURED_DELAY="0.3")
    with lab.client() as client:
        export_id = client.submit(lab.session()).export_id
        lab.wait_until(
            lambda: client.status(export_id).deliveries and client.status(export_id).deliveries[0].error_kind
        )
        broken = client.status(export_id).model_dump_json()
        # When it is corrected and the session is delivered
        server.store.passwords["akid-one"] = SECRETS[1]
        assert client.wait(export_id, 60).state is ExportState.DELIVERED
        # Then no secret is in Redis, the log, the trail, the receipt or the settings listing
        redis = client.ledger._redis
        places = {
            "redis": str([(key, redis.dump(key)) for key in redis.keys("*export*")]),
            "log": worker.output(),
            "status": broken + client.status(export_id).model_dump_json(),
            "trail": str(client.trail(export_id)),
        }
    for command in (["settings"], ["destinations", "--check"], ["destinations", "--json"]):
        answer = subprocess.run(
            [sys.executable, "-m", "labrelay", *command],
            env=lab.environment, cwd=lab.folder, capture_output=True, text=True, check=True,
        )  # fmt: skip
        places[" ".join(command)] = answer.stdout + answer.stderr
    assert "misconfigured" in broken
    for place, text in places.items():
        for secret in SECRETS:
            assert secret not in text, place


@pytest.mark.skipif(not SHARED.exists(), reason="the real sessions lie beside the project only on some machines")
def test_real_sessions_arrive_byte_for_byte_with_their_previews(lab, server, notebook, tmp_path):
    # Given two real sessions
    subprocess.run(["tar", "xJf", SHARED, "-C", tmp_path], check=True)
    notebook()
    lab.start_worker()
    contexts = [
        c
        for file in (tmp_path / "contexts").glob("*.json")
        for c in read_contexts(str(file), root=tmp_path, limit=10**7)
    ]
    # When they are delivered
    with lab.client() as client:
        for submission in client.submit_many(contexts):
            assert client.wait(submission.export_id, 60).state is ExportState.DELIVERED
    # Then each record is there as it was, and each preview is in its entry
    assert sorted(record_of(page) for page in server.pages) == sorted(c.xml_file_path.read_bytes() for c in contexts)
    html = "".join(entry.get("data", "") for page in server.pages for entry in page["entries"])
    previews = {p for c in contexts for a in c.activities for p in a.previews if p is not None}
    assert len(previews) > 10
    for preview in previews:
        assert base64.b64encode(preview.read_bytes()).decode() in html
