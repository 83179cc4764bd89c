"""Classes of OpenHCS's interface are found, named after their package, and hosted; viewers never hold a caller up."""

from __future__ import annotations

import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labrelay_worker.backends.adoption import adopt
from labrelay_worker.backends.base import StorageBackend, StreamingBackend, Unavailable, Unsupported
from labrelay_worker.backends.registration import CLASSES
from labrelay_worker.backends.registry import BackendRegistry
from labrelay_worker.conformance.backends import StreamConformance
from labrelay_worker.destinations.registry import ExporterRegistry
from labrelay_worker.settings import WorkerSettings

Plugin = Callable[[str, str], Path]

SHELF = """
    class Shelf:
        '''Storage by OpenHCS's interface, reduced to what is asked of it here.'''
        _backend_type = "Shelf"

        def __init__(self, colour="white"):
            self.colour, self.kept = colour, {}
        def save(self, data, identifier, **kwargs):
            self.kept[str(identifier)] = data
        def save_batch(self, data_list, identifiers, **kwargs): raise NotImplementedError
        def load(self, path, **kwargs): return self.kept[str(path)]
        def exists(self, path): return str(path) in self.kept
        def is_file(self, path): return self.kept.get(str(path)) is not None
        def is_dir(self, path): return str(path) in self.kept and self.kept[str(path)] is None
        def is_symlink(self, path): return False
        def list_dir(self, path):
            inside = [key[len(str(path)) + 1:] for key in self.kept if key.startswith(f"{path}/")]
            return list({key.split("/")[0] for key in inside})
        def ensure_directory(self, path):
            for folder in [path, *__import__("pathlib").PurePath(path).parents]:
                self.kept.setdefault(str(folder), None)
        def delete(self, path): del self.kept[str(path)]
        def delete_all(self, path):
            for key in [key for key in self.kept if f"{key}/".startswith(f"{path}/")]: del self.kept[key]
        def create_symlink(self, source, link, overwrite=False): raise NotImplementedError
        def move(self, source, target):
            self.kept[str(target)] = self.kept.pop(str(source))
        def copy(self, source, target): self.kept[str(target)] = self.kept[str(source)]
        def stat(self, path): raise NotImplementedError
"""


class Viewer:
    """A viewer's class by OpenHCS's interface: it can hang, fail, or show."""

    _backend_type = "viewer"

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.hangs = threading.Event()
        self.hangs.set()
        self.fault: Exception | None = None

    def save(self, data: Any, identifier: Any, **kwargs: Any) -> None:
        self.save_batch([data], [identifier])

    def save_batch(self, data_list: list[Any], identifiers: list[Any], **kwargs: Any) -> None:
        self.hangs.wait()
        if self.fault is not None:
            raise self.fault
        self.shown += identifiers

    def supports_file_path(self, path: str) -> bool:
        return path.endswith(".tif")


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    CLASSES.forget(__name__)


@pytest.fixture
def window() -> Any:
    return adopt(Viewer, "window")(deadline=0.05)


class TestViewer(StreamConformance):
    def make(self, folder: Path) -> Any:
        return adopt(Viewer, "window")()


class TestViewerThatHangs(StreamConformance):
    def make(self, folder: Path) -> Any:
        stream: Any = adopt(Viewer, "window")(deadline=0.05)
        stream._theirs.hangs.clear()
        return stream


def test_a_class_in_a_plugin_folder_becomes_a_backend_with_its_options(plugin: Plugin, tmp_path: Path) -> None:
    # Given a plugin that knows nothing of labrelay
    registry = BackendRegistry()
    registry.discover(directories=[plugin("shelf.py", SHELF)])
    # Then it is known by its package and its key
    assert "labrelay_plugins_shelf" in registry.names
    registry.configure("mine", "labrelay_plugins_shelf", {"colour": "red", "root": str(tmp_path)})
    backend = registry.get("mine")
    assert isinstance(backend, StorageBackend)
    # And keeps the contract
    backend.save(b"x", "a/b")
    assert backend.load("a/b") == b"x"
    assert backend.list_files(".", recursive=True) == [Path("a/b")]
    with pytest.raises(FileExistsError):
        backend.save(b"y", "a/b")
    backend.save(b"y", "a/b", if_exists="replace")
    assert backend.load("a/b") == b"y"


def test_what_neither_stores_nor_shows_is_left_alone(plugin: Plugin) -> None:
    registry = BackendRegistry()
    before = set(registry.names)
    registry.discover(
        directories=[plugin("other.py", 'class Reader:\n    _backend_type = "r"\n    def load(self): ...')]
    )
    assert set(registry.names) == before
    assert registry.unavailable == []


def test_a_viewer_that_shows_is_told_what_to_show(window: Any) -> None:
    window.save(np.ones((2, 2)), "a.tif")
    assert isinstance(window, StreamingBackend)
    assert window._theirs.shown == ["a.tif"]


def test_a_viewer_that_hangs_costs_one_deadline_and_is_used_again_when_it_answers(window: Any) -> None:
    # Given a viewer that does not answer
    window._theirs.hangs.clear()
    with pytest.raises(Unavailable, match="did not answer in"):
        window.save(np.ones((2, 2)), "a.tif")
    with pytest.raises(Unavailable, match="does not answer"):
        window.save(np.ones((2, 2)), "b.tif")
    # When it answers again
    window._theirs.hangs.set()
    with window._busy:
        pass
    # Then it is used again
    window.save(np.ones((2, 2)), "c.tif")
    assert window._theirs.shown == ["a.tif", "c.tif"]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (RuntimeError("queue full"), Unavailable), (TimeoutError("30 s"), Unavailable),
        (ConnectionError("gone"), Unavailable), (ValueError("no colour"), Unsupported),
    ],
    ids=lambda value: getattr(value, "__name__", repr(value)),
)  # fmt: skip
def test_errors_of_a_viewer_say_whether_to_try_again(window: Any, fault: Exception, expected: type) -> None:
    window._theirs.fault = fault
    with pytest.raises(expected, match=str(fault)):
        window.save(np.ones((2, 2)), "a.tif")


@pytest.mark.parametrize(
    ("payload", "name"), [("text", "a.tif"), (np.zeros((0, 3)), "a.tif"), (np.ones((2, 2)), "a.csv")], ids=str
)
def test_what_a_viewer_would_drop_without_a_word_is_refused(window: Any, payload: Any, name: str) -> None:
    with pytest.raises(Unsupported, match=name):
        window.save(payload, name)


def test_a_backend_among_the_plugins_of_the_settings_is_no_destination(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a backend named beside destinations in the one list of plugins
    (tmp_path / "shelves.py").write_text(textwrap.dedent(SHELF))
    monkeypatch.syspath_prepend(tmp_path)
    exporters = ExporterRegistry(WorkerSettings(plugins=("shelves:Shelf",)))
    # When all is discovered
    exporters.discover_plugins()
    # Then it is a backend, and nothing is wrong with it as a destination
    assert "shelves_shelf" in exporters.backends.names
    assert [plugin for plugin in exporters.unavailable if plugin.name == "Shelf"] == []
    CLASSES.forget("shelves")
