"""Large records go to the notebooks and are read back without ever being in memory as a whole."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from repositories import REPOSITORIES

from labrelay.context import ExportContext
from labrelay.results import ExportResult
from labrelay_worker.destinations.account import OwnAccount

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
MIB = 2**20


@pytest.fixture
def run_alone() -> Iterator[Callable[[str], str]]:
    """Return a function that starts a server as a process of its own and returns its address."""
    with ExitStack() as stack:

        def start(name: str) -> str:
            command = [sys.executable, "-m", f"tests.servers.{name}", "--port", "0"]
            server = stack.enter_context(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True))
            stack.callback(server.terminate)
            assert server.stdout is not None
            return server.stdout.readline().strip()

        yield start


@pytest.mark.parametrize("name", ["elabftw", "labarchives"])
def test_a_large_record_is_never_in_memory_as_a_whole(
    name: str, run_alone: Callable[[str], str], tmp_path: Path
) -> None:
    # Given a record of 64 MiB, and a server in another process
    path = tmp_path / "large.xml"
    path.write_bytes(b"<a>" + b"x" * (64 * MIB) + b"</a>")
    context = ExportContext.parse(
        {
            "xml_file_path": str(path),
            "session_identifier": "session-1",
            "instrument_pid": "FEI-Titan-TEM",
            "dt_from": "2026-11-20T10:00:00+01:00",
            "dt_to": "2026-11-20T11:00:00+01:00",
        }
    )
    url = run_alone(name)

    async def deliver() -> ExportResult:
        destination = REPOSITORIES[name]().destination(url)
        destination.account = OwnAccount()  # which keeps no pace
        try:
            return await destination.export(context)
        finally:
            await destination.close()

    # When it is delivered, hashed, sent and read back
    tracemalloc.start()
    try:
        result = asyncio.run(deliver())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Then it is there, and the most that was in memory at once is a small part of it
    assert result.success
    assert peak < 8 * MIB
