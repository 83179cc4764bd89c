"""A real Flower on the same broker shows the delivered export, readable and without secrets."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from labrelay.results import ExportState

pytestmark = pytest.mark.integration

TOKEN = "tok-5ecret-value-0123456789"


@pytest.fixture
def flower(lab):
    """Start Flower with a password, and return how to ask it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    lab.write_settings()
    process = subprocess.Popen(
        [sys.executable, "-m", "labrelay", "flower", "--port", str(port)],
        env=lab.environment | {"LABRELAY_FLOWER_BASIC_AUTH": "anna:pass-5ecret"},
        cwd=lab.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def ask(path: str, password: str = "anna:pass-5ecret") -> str | None:
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}")
        request.add_header("Authorization", "Basic " + base64.b64encode(password.encode()).decode())
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            return f"HTTP {error.code}"
        except OSError:
            return None

    try:
        lab.wait_until(lambda: ask("/healthcheck"), 60, "Flower answers")
        yield ask
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def test_a_delivered_export_is_readable_in_flower_and_shows_no_secret(lab, flower):
    # Given Flower and a worker whose destination has a token
    lab.recorder("one")
    lab.destinations["hook"] = {"type": "webhook", "url": "http://127.0.0.1:1/"}
    lab.write_settings()
    lab.start_worker(LABRELAY_DESTINATIONS__HOOK__TOKEN=TOKEN)
    lab.wait_until(lambda: "w0@test" in (flower("/api/workers?refresh=1") or ""), 30, "Flower sees the worker")

    # When a session is delivered
    with lab.client() as client:
        export_id = client.submit(lab.session(), "all", destinations=["one"]).export_id
        assert client.wait(export_id, 30).state is ExportState.DELIVERED
    task = json.loads(
        lab.wait_until(
            lambda: (text := flower(f"/api/task/info/{export_id}")) and "SUCCESS" in text and text, 30, "the task"
        )
    )

    # Then its task names session, instrument and strategy, and how it ended
    assert "session=session-1 instrument=FEI-Titan-TEM strategy=all" in task["kwargs"]
    assert "delivered: 1 of 1 delivered" in task["result"]
    for page in (json.dumps(task), flower("/api/tasks"), flower(f"/task/{export_id}"), flower("/tasks")):
        assert page is not None
        assert TOKEN not in page

    # And a stranger sees nothing
    assert flower("/api/tasks", "anna:guess") == "HTTP 401"
