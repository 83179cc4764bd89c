"""The example of docs/writing-a-destination.md: it holds the contract, and delivers through a real worker."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from shelf_server import TOKEN, ShelfServer

from labrelay.results import ExportState

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


def example(name: str) -> str:
    """Return one block of the page."""
    page = (ROOT / "docs" / "writing-a-destination.md").read_text()
    found = re.search(rf"<!-- example: {re.escape(name)} -->\n```\w+\n(.*?)```", page, re.DOTALL)
    assert found is not None, name
    return found.group(1)


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    folder = tmp_path / "plugins"
    folder.mkdir()
    for name in ("shelf.py", "test_shelf.py"):
        (folder / name).write_text(example(name))
    return folder


def test_the_example_holds_the_contract_in_at_most_twenty_lines(plugins: Path) -> None:
    # Given the page's destination and its test
    lines = [line for line in example("test_shelf.py").splitlines() if line.strip()]
    assert len(lines) <= 20
    # When the suite is run
    answer = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml"),
         "-o", f"pythonpath={ROOT} {ROOT / 'tests' / 'support'} {plugins}", str(plugins / "test_shelf.py")],
        capture_output=True, text=True, check=False, timeout=110, cwd=plugins,
    )  # fmt: skip
    # Then every test of it passes
    assert answer.returncode == 0, answer.stdout[-4000:] + answer.stderr
    assert re.search(r"\d+ passed in", answer.stdout)
    assert not re.search(r"skipped|xfailed", answer.stdout)


def test_the_example_delivers_through_a_worker(lab, plugins: Path) -> None:
    # Given the page's file in the plugin folder, its settings and its token
    (plugins / "test_shelf.py").unlink()
    shelf = ShelfServer()
    with shelf.thread() as thread:
        table = example("labrelay.toml").replace("http://127.0.0.1:8000", thread.url)
        (lab.folder / "labrelay.toml").write_text(table)
        lab.environment |= {"LABRELAY_PLUGIN_PATH": str(plugins), "LABRELAY_DESTINATIONS__SHELF__TOKEN": TOKEN}
        lab.start_worker()
        # When a session is submitted
        context = lab.session()
        with lab.client() as client:
            status = lab.finished(client.submit(context).export_id)
    # Then the shelf has it
    assert (status.state, [d.destination for d in status.deliveries]) == (ExportState.DELIVERED, ["shelf"])
    assert shelf.books_of(context.export_id) == [context.xml_file_path.read_bytes()]
