"""The command blocks of README.md and docs/, run as they stand. Markers are explained in docs/site/README.md."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from document_blocks import GIVEN, ROOT, Block, blocks_of, documents

from labrelay.results import ExportState

pytestmark = pytest.mark.integration

BIN = Path(sys.executable).parent
_SECONDS = 60


def runnable(path: Path) -> list[Block]:
    return [block for block in blocks_of(path) if not block.kind]


DOCUMENTS = [path for path in documents() if runnable(path)]


def install(lab: Any) -> str:
    """Deliver a session to an archive and a repository, and have the repository refuse another; return that one."""
    refuse = lab.folder / "refuse"
    lab.recorder("cdcs", 100, refuse_while=refuse, find_in_log=True)
    lab.destinations["archive"] = {"type": "disk", "root": str(lab.folder / "archive")}
    lab.write_settings()
    lab.start_worker()
    with lab.client() as client:
        assert lab.finished(client.submit(lab.session(1)).export_id).state is ExportState.DELIVERED
        refuse.touch()
        refused = lab.finished(client.submit(lab.session(2)).export_id)
    refuse.unlink()
    assert refused.state is ExportState.DEAD
    return refused.export_id


def run(command: list[str], lab: Any) -> subprocess.CompletedProcess[str]:
    environment = lab.environment | {"PATH": f"{BIN}{os.pathsep}{lab.environment['PATH']}", "COLUMNS": "200"}
    return subprocess.run(
        command, env=environment, cwd=lab.folder, capture_output=True, text=True, timeout=_SECONDS, check=False
    )


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_a_document_says_to_type_works(lab, document):
    # Given what the document says is there, or else a worker without any configuration
    blocks, export_id = runnable(document), ""
    if GIVEN in document.read_text():
        export_id = install(lab)
    elif any(block.language != "python" for block in blocks) or "submit(" in blocks[-1].text:
        lab.start_worker()

    # When each block is typed in, in order; Python goes on where it stopped
    python = ""
    for block in blocks:
        if block.language == "python":
            python += f"{block.text}\n"
            answer = run([sys.executable, "-c", python], lab)
            assert answer.returncode == 0, f"{block.where}\n{answer.stdout}{answer.stderr}"
            continue
        for command in block.commands:
            typed = re.sub(r"\bID\b", shlex.quote(export_id), command) if export_id else command
            answer = run(["bash", "-c", typed], lab)

            # Then every command succeeds
            assert answer.returncode == 0, f"{block.where}: {typed}\n{answer.stdout}{answer.stderr}"
