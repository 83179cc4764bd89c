"""A real Flower beside a lab."""

from __future__ import annotations

import base64
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

ACCOUNT = "anna:pass-5ecret"


class WatchedFlower:
    """Flower on a lab's broker; called with a path, it answers the page, or ``HTTP 401`` and the like, or None.

    Parameters
    ----------
    lab
        The installation.
    """

    def __init__(self, lab: Any) -> None:
        self._lab = lab
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"http://{ACCOUNT}@127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and return when it answers."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "labrelay", "flower", "--port", str(self.port)],
            env=self._lab.environment | {"LABRELAY_FLOWER_BASIC_AUTH": ACCOUNT},
            cwd=self._lab.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._lab.wait_until(lambda: self("/healthcheck"), 60, "Flower answers")

    def kill(self) -> None:
        """End it as the operating system would."""
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """End it as a service manager would."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()

    def __call__(self, path: str, account: str = ACCOUNT) -> str | None:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}")
        request.add_header("Authorization", "Basic " + base64.b64encode(account.encode()).decode())
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            return f"HTTP {error.code}"
        except OSError:
            return None


@pytest.fixture
def flower(lab: Any) -> Iterator[WatchedFlower]:
    """Start Flower with a password, and return how to ask it."""
    lab.write_settings()
    watched = WatchedFlower(lab)
    watched.start()
    try:
        yield watched
    finally:
        watched.end()
