"""The demo receiver as a process of its own."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from labrelay_worker.demo.receiver import Receiver


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_alone_it_prints_what_it_accepts_until_it_is_stopped(number: signal.Signals, tmp_path: Path) -> None:
    # Given the receiver as a process of its own
    command = [sys.executable, "-m", "labrelay_worker.demo.receiver", "--folder", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stderr is not None
        netloc = urlsplit(process.stderr.readline().split()[-1]).netloc
        # When it gets a delivery twice and is stopped
        body = json.dumps({"session_identifier": "s-1"}).encode()
        with closing(http.client.HTTPConnection(netloc, timeout=10)) as connection:
            for _ in range(2):
                connection.request("POST", "/in", body, {"Content-Type": "application/json", "Idempotency-Key": "k"})
                connection.getresponse().read()
            process.send_signal(number)
            out, err = process.communicate(timeout=10)
    # Then it ends well, having printed one line for the one it accepted
    assert (process.returncode, err) == (0, "")
    [line] = [json.loads(text) for text in out.splitlines()]
    assert (line["key"], line["path"], line["session"], line["record"]) == ("k", "/in", "s-1", None)


def test_a_taken_port_is_said_in_one_line() -> None:
    # Given a port in use
    with Receiver() as receiver:
        port = str(urlsplit(receiver.url).port)
        # When another receiver is to take it
        command = [sys.executable, "-m", "labrelay_worker.demo.receiver", "--port", port]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    # Then it says so
    assert result.returncode == 1
    assert result.stderr.startswith(f"cannot receive on port {port}: ")
    assert result.stderr.count("\n") == 1
