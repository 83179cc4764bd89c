"""What every test has: no settings of this machine, a folder of its own, and builders of sessions."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from labrelay.context import ExportContext

# The same examples every time, and no limit by the clock: a busy machine must not fail a test.
settings.register_profile("labrelay", derandomize=True, database=None, deadline=None)
settings.load_profile("labrelay")

RECORD = "<Experiment><title>session {number}</title></Experiment>\r\n"

#: Builds a context from what differs from an ordinary one.
Build = Callable[..., ExportContext]


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hide the machine's LABRELAY_* variables and labrelay.toml, and keep state in the test's own folder."""
    for name in [name for name in os.environ if name.upper().startswith("LABRELAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LABRELAY_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    yield
    # The process has one registry of backends: an instance left there would serve the next test this one's folder.
    if "labrelay_worker.backends.registry" in sys.modules:
        sys.modules["labrelay_worker.backends.registry"].cleanup_all_backends()


@pytest.fixture(scope="session")
def make_context() -> Build:
    """Return a function that builds a context whose files need not exist."""

    def build(number: int = 1, **fields: Any) -> ExportContext:
        return ExportContext.parse(
            {
                "xml_file_path": f"/data/record-{number}.xml",
                "session_identifier": f"session-{number}",
                "instrument_pid": "FEI-Titan-TEM",
                "dt_from": "2026-11-20T10:00:00+01:00",
                "dt_to": "2026-11-20T11:00:00+01:00",
                **fields,
            }
        )

    return build


@pytest.fixture
def make_session(tmp_path: Path, make_context: Build) -> Build:
    """Return a function that writes a record with its files and builds their context."""

    def build(number: int = 1, *, files: int = 1, **fields: Any) -> ExportContext:
        folder = tmp_path / "data" / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        record = folder / f"record-{number}.xml"
        record.write_text(RECORD.format(number=number))
        names = [folder / f"image {index}.raw" for index in range(files)]
        for index, name in enumerate(names):
            name.write_bytes(bytes([index]) * 1000)
        given = {"xml_file_path": str(record), "activities": [{"files": [str(name) for name in names]}]}
        return make_context(number, **given | fields)

    return build


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-images", action="store_true", help="renew the pictures of docs/images")
