"""What the documents say can be typed: every Python example is run, every option named in TOML exists."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from signals import counts
from viewing import noted_viewer

from labrelay_worker.backends.registry import backend_registry
from labrelay_worker.backends.zarr import ZarrBackend
from labrelay_worker.viewers.places import Place

pytestmark = pytest.mark.integration

DOCS = Path(__file__).parents[2] / "docs"
#: Tables of the settings that name backends; the rest belongs to destinations of other kinds.
_OF_THE_SETTINGS = {"type", "priority", "enabled"}


def examples(page: str, language: str) -> list[str]:
    """Return the fenced blocks of a page in this language."""
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


def run(example: str, names: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run an example and return the names that it leaves."""
    found: dict[str, Any] = {"__name__": "example"} | (names or {})
    exec(compile(example, "example", "exec"), found)
    return found


def the_one_with(page: str, text: str) -> str:
    (found,) = [example for example in examples(page, "python") if text in example]
    return found


def test_every_python_example_of_the_two_pages_is_run_here() -> None:
    known = ('get_backend_instance("memory")', "ZarrBackend(", "class TapeBackend", "class TestTape")
    assert [next(name for name in known if name in text) for text in examples("backends.md", "python")] == list(known)
    assert len(examples("viewers.md", "python")) == 1


def test_the_first_example_keeps_something_in_memory() -> None:
    assert run(the_one_with("backends.md", '"memory"'))["memory"].exists("session/notes.json")


def test_an_image_is_stored_and_read_as_the_page_says(tmp_path: Path) -> None:
    # Given the example, with a folder of this test in the place of the facility's
    text = the_one_with("backends.md", "ZarrBackend(").replace("/srv/images", str(tmp_path))
    array = counts((30, 220, 200))
    # When it is run, line by line
    *lines, _, _ = text.strip().splitlines()
    names = run(text, {"array": array})
    # Then what it says of each line is true
    image = names["image"]
    assert lines[-1].startswith("image.plane(17)")
    assert np.array_equal(image.plane(17), array[17])
    assert np.array_equal(image.data[3, 100:200], array[3, 100:200])
    assert [axis.name for axis in image.signal.axes] == ["z", "y", "x"]
    assert ZarrBackend(tmp_path).is_file("a/stack.ome.zarr")


def test_a_backend_of_ones_own_is_registered_and_tested_as_the_page_says(tmp_path: Path) -> None:
    # Given the plugin and its test as they are on the page; what it does not write is inherited from disk
    plugin = the_one_with("backends.md", "class TapeBackend").replace("(StorageBackend)", "(DiskBackend)")
    (tmp_path / "tape.py").write_text("from labrelay_worker.backends.disk import DiskBackend\n" + plugin)
    links = """
        def create_symlink(self, source, link, overwrite=False):
            raise refusal(self, "symlinks")
    """
    with (tmp_path / "tape.py").open("a") as file:
        file.write(textwrap.indent(textwrap.dedent(links), "    "))
    test = "from tape import TapeBackend\n" + the_one_with("backends.md", "class TestTape")
    (tmp_path / "test_tape.py").write_text(test)
    # When pytest runs it
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_tape.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    # Then every promise was tried
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.findall(r"(\d+) passed", done.stdout)[0]) > 150


def test_an_array_is_shown_as_the_page_says(tmp_path: Path) -> None:
    # Given a viewer that runs, without a window
    with noted_viewer(Place.of("napari")) as canvas:
        # When the example is run
        run(examples("viewers.md", "python")[0], {"array": counts((64, 48))})
        # Then the array was shown under its name
        (item,) = canvas.items
        assert item.name == "well B03"  # type: ignore[union-attr]


@pytest.mark.parametrize("page", ["backends.md", "viewers.md"])
def test_every_option_in_an_example_of_settings_is_one_of_its_backend(page: str) -> None:
    registry = backend_registry()
    registry.discover()
    tables = 0
    for example in examples(page, "toml"):
        document = tomllib.loads(example)
        for table in _tables(document):
            cls = registry.class_of(table["type"])
            if cls is None:  # polystore's, which is not installed here
                assert table["type"].startswith("polystore_")
                continue
            options = set(inspect.signature(cls).parameters)
            assert set(table) - _OF_THE_SETTINGS <= options, table
            tables += 1
    assert tables


@pytest.mark.parametrize(
    ("page", "heading", "kind"), [("backends.md", "## zarr", "zarr"), ("backends.md", "## disk", "disk"),
                                  ("viewers.md", "## Options of napari_stream", "napari_stream")],
)  # fmt: skip
def test_every_option_in_a_table_exists_and_none_is_left_out(page: str, heading: str, kind: str) -> None:
    # Given the first table below a heading
    text = (DOCS / page).read_text().split(f"\n{heading}", 1)[1]
    rows = re.search(r"\| option \| default \| meaning \|\n\|[-| ]+\|\n((?:\|.*\n)+)", text)
    assert rows is not None
    named = {name for row in rows[1].splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    # Then its options are those of the backend
    registry = backend_registry()
    registry.discover()
    cls = registry.class_of(kind)
    assert cls is not None
    assert named == set(inspect.signature(cls).parameters)


def _tables(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [
        table
        for section in ("destinations", "backends")
        for table in document.get(section, {}).values()
        if "type" in table
    ]
