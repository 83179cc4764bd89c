"""A real Flower shows what became of each session: as the ledger has it, with links and without secrets."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from labrelay.results import ExportState

pytestmark = pytest.mark.integration

IMAGES = Path(__file__).parents[2] / "docs" / "images"
TOKEN = "tok-5ecret-value-0123456789"
CDCS = "https://cdcs.example.org/data?id=67a1f0c2e4b0"
PORTAL = "https://portal.example.org/records/1"


@pytest.fixture
def sees_worker(lab, flower):
    """Start a worker and await that Flower sees it."""

    def start(**environment: str):
        worker = lab.start_worker(**environment)
        lab.wait_until(lambda: "w0@test" in (flower("/api/workers?refresh=1") or ""), 30, "Flower sees the worker")
        return worker

    return start


def task_of(lab, flower, export_id: str, state: str) -> dict[str, str]:
    """Await that the task of an export is in a state, and return it."""

    def found():
        # A wake-up may be for others as well, so its own id says nothing.
        tasks = json.loads(flower("/api/tasks") or "{}").values()
        told = (task for task in tasks if export_id in f"{task['result']}{task['exception']}")
        return next((task for task in told if task["state"] == state), None)

    return lab.wait_until(found, 30, f"the task is {state}")


def test_a_delivered_export_is_readable_in_flower_and_shows_no_secret(lab, flower, sees_worker):
    # Given Flower and a worker whose destination has a token
    lab.recorder("one", record_url=CDCS)
    lab.destinations["hook"] = {"type": "webhook", "url": "http://127.0.0.1:1/"}
    lab.write_settings()
    sees_worker(LABRELAY_DESTINATIONS__HOOK__TOKEN=TOKEN)

    # When a session is delivered
    with lab.client() as client:
        export_id = client.submit(lab.session(), "all", destinations=["one"]).export_id
        assert client.wait(export_id, 30).state is ExportState.DELIVERED
    task = task_of(lab, flower, export_id, "SUCCESS")

    # Then its task names session, instrument and strategy, how it ended and where
    told = f"delivered: 1 of 1 delivered · one {CDCS} · FEI-Titan-TEM · strategy all · export {export_id}"
    assert told in task["result"]
    assert "session-1" in task["result"]
    for page in (json.dumps(task), flower("/api/tasks"), flower(f"/task/{export_id}"), flower("/tasks")):
        assert page is not None
        assert TOKEN not in page

    # And a stranger sees nothing
    assert flower("/api/tasks", "anna:guess") == "HTTP 401"
    assert flower("/tasks", "anna:guess") == "HTTP 401"


def test_states_of_tasks_are_those_of_the_ledger_also_when_an_export_goes_on_later(lab, flower, sees_worker):
    # Given one destination that delivers, one that fails for now, one that refuses
    failing, refusing = lab.folder / "failing", lab.folder / "refusing"
    failing.touch()
    refusing.touch()
    lab.recorder("cdcs", 100, record_url=CDCS)
    lab.recorder("portal", fail_while=failing, record_url=PORTAL)
    lab.recorder("notebook", refuse_while=refusing)
    sees_worker()

    # When one session waits and another cannot be delivered
    with lab.client() as client:
        waiting = client.submit(lab.session(1), destinations=["cdcs", "portal"]).export_id
        dead = client.submit(lab.session(2), destinations=["cdcs", "notebook"]).export_id
        assert client.wait(dead, 30).state is ExportState.DEAD
        lab.wait_until(lambda: client.status(waiting).summary == "1 of 2 delivered; portal: transient")

    # Then Flower counts the one as retried and the other as failed, in the ledger's words
    task = task_of(lab, flower, waiting, "RETRY")
    assert "waiting: 1 of 2 delivered; portal: transient" in task["exception"]
    assert "portal retrying (transient): told to fail" in task["exception"]
    assert "dead: 1 of 2 delivered" in task_of(lab, flower, dead, "FAILURE")["exception"]

    # And when a later wake-up delivers the first, its first task shows that as well
    failing.unlink()
    with lab.client() as client:
        assert client.wait(waiting, 30).state is ExportState.DELIVERED

    def shown():
        page = flower(f"/task/{task['uuid']}") or ""
        return "delivered: 2 of 2 delivered (when this task ended: waiting: 1 of 2" in page and page

    page = lab.wait_until(shown, 30, "the later end is shown")
    assert '<span class="badge text-bg-success">SUCCESS</span>' in page
    assert PORTAL in page


def test_the_history_survives_a_kill_of_flower(lab, flower, sees_worker):
    # Given a delivered export that Flower has seen, and its save interval later
    lab.recorder("one")
    sees_worker()
    with lab.client() as client:
        export_id = client.submit(lab.session()).export_id
        client.wait(export_id, 30)
    task_of(lab, flower, export_id, "SUCCESS")
    history = lab.folder / "home" / "flower"

    def last_saved() -> int:
        times = [0]
        for path in history.glob("history*"):
            with suppress(FileNotFoundError):  # dbm renames its temporary file
                times.append(path.stat().st_mtime_ns)
        return max(times)

    for _ in range(2):  # the save under way may have begun before
        seen = last_saved()
        lab.wait_until(lambda seen=seen: last_saved() > seen, 40, "the history is saved")

    # When Flower is killed and started again, with no worker running
    flower.kill()
    lab.workers[0].send(15)
    lab.workers[0].wait()
    flower.start()

    # Then it shows the export still
    assert "delivered: 1 of 1 delivered" in task_of(lab, flower, export_id, "SUCCESS")["result"]


def test_flower_does_not_start_without_a_password_unless_told(lab):
    # When it is started without a password
    answer = subprocess.run(
        [sys.executable, "-m", "labrelay", "flower"],
        env=lab.environment, cwd=lab.folder, capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip

    # Then it refuses and says what to do
    assert answer.returncode == 2
    assert "LABRELAY_FLOWER_BASIC_AUTH" in answer.stderr
    assert "--open" in answer.stderr


def test_a_browser_shows_the_sessions_with_links_to_their_records(lab, flower, sees_worker, browser, request):
    # Given a delivered session, one that waits and one that needs a person
    failing, refusing = lab.folder / "failing", lab.folder / "refusing"
    failing.touch()
    refusing.touch()
    lab.recorder("cdcs", 100, record_url=CDCS)
    lab.recorder("portal", fail_while=failing, record_url=PORTAL)
    lab.recorder("notebook", refuse_while=refusing, record_url="https://elab.example.org/experiments.php?id=12")
    sees_worker(LABRELAY_RETRY__FIRST_DELAY="600")
    with lab.client() as client:
        dead = client.submit(lab.session(2), destinations=["cdcs", "notebook"]).export_id
        assert client.wait(dead, 30).state is ExportState.DEAD
        refusing.unlink()
        task_of(lab, flower, dead, "FAILURE")  # a task of its own for each: one tells the worst of all it was for
        waiting = client.submit(lab.session(3), destinations=["cdcs", "portal"]).export_id
        task_of(lab, flower, waiting, "RETRY")
        delivered = client.submit(lab.session(1), destinations=["cdcs", "notebook"]).export_id
    uuid = task_of(lab, flower, delivered, "SUCCESS")["uuid"]

    # When a browser opens the list and a task
    listed = browser.text(f"{flower.address}/tasks")
    task = browser.text(f"{flower.address}/task/{uuid}")

    # Then each delivered record is a link, and states have the colours people know
    link = f'<a href="{CDCS}" target="_blank" rel="noopener noreferrer">{CDCS}</a>'
    assert listed.count(link) == 3
    assert f"· cdcs {link}" in task
    assert "session-1: delivered: 2 of 2 delivered" in task
    for word in ("text-bg-success", "text-bg-warning", "text-bg-danger"):
        assert word in listed

    # And the pictures are those of the documents
    pictures = (
        request.config.rootpath / "docs" / "images" if request.config.getoption("--write-images") else lab.folder
    )
    browser.picture(f"{flower.address}/tasks", pictures / "flower-tasks.png", 1300, 780)
    browser.picture(f"{flower.address}/task/{uuid}", pictures / "flower-task.png", 1100, 620)
    assert (pictures / "flower-tasks.png").stat().st_size > 10_000
