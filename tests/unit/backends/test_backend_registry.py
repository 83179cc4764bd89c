"""The registry: registration, lazy instances, names of one's own, fork, cleanup."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from labrelay.errors import DuplicatePlugin, InvalidInput, PluginError
from labrelay_worker.backends import registry as module
from labrelay_worker.backends.base import DataSink, StorageBackend, StreamingBackend
from labrelay_worker.backends.disk import DiskBackend
from labrelay_worker.backends.memory import MemoryBackend
from labrelay_worker.backends.registry import (
    STORAGE_BACKENDS,
    BackendRegistry,
    backend_registry,
    cleanup_all_backends,
    cleanup_backend_connections,
    create_storage_registry,
    discover_all_backends,
    get_backend_instance,
)

Plugin = Callable[[str, str], Path]

SINK = """
    from labrelay_worker.backends.base import DataSink

    class Sink(DataSink):
        _backend_type = "{key}"
        def save(self, data, identifier, *, if_exists="error"): ...
        def save_batch(self, data_list, identifiers, *, if_exists="error"): ...
"""


class _Sink(DataSink):
    """Whole, but without a key: not registered."""

    def save(self, data: Any, identifier: Any, *, if_exists: Any = "error") -> None: ...

    def save_batch(self, data_list: Any, identifiers: Any, *, if_exists: Any = "error") -> None: ...


@pytest.fixture
def registry() -> BackendRegistry:
    return BackendRegistry()


# --- registration ---------------------------------------------------------------------------------------------


def test_a_class_registers_itself_in_lower_case_when_it_is_defined(registry: BackendRegistry) -> None:
    class Mixed(_Sink):
        _backend_type = " Upper_Case "

    assert STORAGE_BACKENDS["upper_case"] is Mixed
    assert Mixed._backend_type == "upper_case"
    assert isinstance(registry.get("UPPER_case"), Mixed)


def test_only_a_key_in_the_class_body_registers() -> None:
    before = dict(STORAGE_BACKENDS)

    class Double(MemoryBackend):
        """A test double: sub-classing a backend is free."""

    class NoKey(_Sink): ...

    assert dict(STORAGE_BACKENDS) == before
    assert STORAGE_BACKENDS["memory"] is MemoryBackend
    assert Double._backend_type == "memory"


def test_two_classes_with_one_key_are_refused_naming_both() -> None:
    class First(_Sink):
        _backend_type = "mine"

    with pytest.raises(DuplicatePlugin) as caught:

        class Second(_Sink):
            _backend_type = "MINE"

    text = str(caught.value)
    assert "'mine'" in text
    assert "First" in text
    assert "Second" in text
    assert __file__ in text
    assert STORAGE_BACKENDS["mine"] is First


def test_the_same_class_defined_again_takes_its_own_place() -> None:
    def define() -> type[DataSink]:
        class Reloaded(_Sink):
            _backend_type = "reloaded"

        return Reloaded

    define()
    again = define()
    assert STORAGE_BACKENDS["reloaded"] is again


@pytest.mark.parametrize("key", ["", "  ", 7])
def test_a_key_that_is_no_text_is_refused(key: Any) -> None:
    with pytest.raises(PluginError, match="_backend_type"):
        type("Odd", (_Sink,), {"_backend_type": key})


def test_a_class_that_lacks_methods_is_unavailable_and_says_which(registry: BackendRegistry) -> None:
    class Half(StreamingBackend):
        _backend_type = "half"

        def save(self, data: Any, identifier: Any, *, if_exists: Any = "error") -> None: ...

    assert "half" not in STORAGE_BACKENDS
    with pytest.raises(KeyError, match=r"Half .* does not define save_batch"):
        registry.get("half")


def test_the_table_of_classes_cannot_be_changed_from_outside() -> None:
    with pytest.raises(TypeError):
        STORAGE_BACKENDS["disk"] = MemoryBackend  # type: ignore[index]


# --- instances ----------------------------------------------------------------------------------------------------


def test_the_same_instance_is_returned_until_a_full_cleanup(registry: BackendRegistry) -> None:
    first = registry.get("memory")
    assert registry.get("Memory") is first
    registry.cleanup_connections()
    assert registry.get("memory") is first
    registry.cleanup()
    assert registry.get("memory") is not first


def test_eight_threads_get_one_instance(registry: BackendRegistry) -> None:
    made: list[DataSink] = []
    everybody_asked = threading.Event()

    class Slow(_Sink):
        _backend_type = "slow"

        def __init__(self) -> None:
            made.append(self)
            everybody_asked.wait(1)

    # Given eight threads that ask while the first constructor is still running
    barrier, got = threading.Barrier(9), []

    def ask() -> None:
        barrier.wait()
        got.append(registry.get("slow"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    barrier.wait()
    # And another backend, which they do not hold up
    assert isinstance(registry.get("memory"), MemoryBackend)
    everybody_asked.set()
    for thread in threads:
        thread.join()
    # Then one was made
    assert len(made) == 1
    assert got == made * 8


def test_a_forked_child_makes_its_own_instances_and_keeps_the_names(
    registry: BackendRegistry, tmp_path: Path
) -> None:
    # Given a parent with an instance and a name, forking while another thread is making a backend
    registry.configure("archive", "disk", {"root": tmp_path})
    parents = registry.get("memory")
    in_constructor, go_on = threading.Event(), threading.Event()

    class Slow(_Sink):
        _backend_type = "slow"
        pid: ClassVar[int] = os.getpid()

        def __init__(self) -> None:
            if os.getpid() == self.pid:
                in_constructor.set()
                go_on.wait(5)

    thread = threading.Thread(target=registry.get, args=("slow",))
    thread.start()
    in_constructor.wait(5)
    child = os.fork()
    if child == 0:
        # Then nothing of the parent's is returned, no lock is stuck, and the names are there
        try:
            fresh = registry.get("memory") is not parents and registry.get("memory") is registry.get("memory")
            fresh = fresh and registry.get("slow") is not None and isinstance(registry.get("archive"), DiskBackend)
            registry.cleanup()
            os._exit(0 if fresh else 1)
        finally:
            os._exit(2)
    go_on.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    # And the parent goes on with its own
    assert registry.get("memory") is parents


def test_the_process_wide_functions_survive_a_fork_too() -> None:
    parents = get_backend_instance("memory")
    child = os.fork()
    if child == 0:
        os._exit(0 if get_backend_instance("memory") is not parents else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    cleanup_all_backends()


def test_an_unknown_backend_lists_what_there_is(registry: BackendRegistry) -> None:
    with pytest.raises(KeyError) as caught:
        registry.get("tape")
    assert str(caught.value).startswith("backend 'tape' is not registered. Available: disk, fiji_stream, memory")


def test_a_constructor_that_fails_is_wrapped_and_tried_again(registry: BackendRegistry) -> None:
    class Moody(_Sink):
        _backend_type = "moody"
        mood: ClassVar[list[str]] = ["token=abcdefgh is wrong"]

        def __init__(self) -> None:
            if self.mood:
                raise OSError(self.mood.pop())

    with pytest.raises(
        RuntimeError, match=r"'moody' could not be made: OSError: token=\[redacted\] is wrong"
    ) as caught:
        registry.get("moody")
    assert isinstance(caught.value.__cause__, OSError)
    assert isinstance(registry.get("moody"), Moody)


# --- names of one's own --------------------------------------------------------------------------------------------


def test_one_type_can_have_several_named_instances(registry: BackendRegistry, tmp_path: Path) -> None:
    registry.configure("Archive", "disk", {"root": str(tmp_path / "a")})
    registry.configure("scratch", "Disk", {"root": str(tmp_path / "b"), "verify": False})
    for name in ("archive", "SCRATCH"):
        backend = registry.get(name)
        assert isinstance(backend, StorageBackend)
        backend.save(name, "x.txt")
    assert (tmp_path / "a" / "x.txt").read_text() == "archive"
    assert (tmp_path / "b" / "x.txt").read_text() == "SCRATCH"
    assert {"archive", "scratch", "disk", "memory"} <= set(registry.names)
    # And the bare type is yet another one
    assert registry.get("disk") is not registry.get("archive")


def test_the_name_of_a_type_configures_the_type(registry: BackendRegistry, tmp_path: Path) -> None:
    registry.configure("disk", "disk", {"root": tmp_path})
    backend = registry.get("disk")
    assert isinstance(backend, DiskBackend)
    backend.save(b"x", "x")
    assert (tmp_path / "x").exists()


def test_wrong_options_are_named_and_their_values_are_not_shown(registry: BackendRegistry) -> None:
    with pytest.raises(InvalidInput) as caught:
        registry.configure("archive", "disk", {"rot": "s3cret"})
    assert str(caught.value) == (
        "backends.archive.rot: backend type 'disk' has no such option. Its options are: root, verify, create_root"
    )


def test_options_of_a_type_found_later_are_checked_when_it_is_made(registry: BackendRegistry) -> None:
    registry.configure("mine", "late", {"colour": "red"})

    class Late(_Sink):
        _backend_type = "late"

        def __init__(self, *, size: int) -> None: ...

    with pytest.raises(RuntimeError, match=r"backends.mine.colour: .* Its options are: size"):
        registry.get("mine")
    with pytest.raises(InvalidInput, match=r"backends.other.size: .* needs this option"):
        registry.configure("other", "late", {})


def test_a_name_cannot_be_taken_from_another_type_or_changed_in_use(
    registry: BackendRegistry, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match=r"backends\.memory"):
        registry.configure("memory", "disk", {})
    registry.configure("archive", "disk", {"root": tmp_path})
    registry.get("archive")
    registry.configure("archive", "disk", {"root": tmp_path})
    with pytest.raises(InvalidInput, match="in use"):
        registry.configure("archive", "disk", {})
    registry.cleanup()
    registry.configure("archive", "disk", {})


def test_a_name_of_an_unknown_type_says_so(registry: BackendRegistry) -> None:
    registry.configure("archive", "tape", {})
    with pytest.raises(KeyError, match="backend 'archive' of type 'tape' is not registered"):
        registry.get("archive")


# --- discovery ------------------------------------------------------------------------------------------------------


def test_plugins_of_a_folder_join_and_broken_ones_are_listed(registry: BackendRegistry, plugin: Plugin) -> None:
    # Given a folder with a good plugin, one without its dependency, a broken one and a duplicate
    plugin("good.py", SINK.format(key="good"))
    plugin("lacking.py", "import numpi_typo")
    plugin("broken.py", "class Oops:\n    x = undefined")
    folder = plugin("duplicate.py", SINK.format(key="Memory"))
    # When it is discovered
    registry.discover(directories=[folder])
    # Then the good one works, and so do the built-ins
    assert type(registry.get("good")).__name__ == "Sink"
    assert isinstance(registry.get("memory"), MemoryBackend)
    # And the others are listed with their reasons
    reasons = {problem.name: problem.reason for problem in registry.unavailable}
    assert reasons["lacking"] == "needs the package 'numpi_typo': pip install numpi_typo"
    assert "NameError: name 'undefined' is not defined" in reasons["broken"]
    assert "'memory'" in reasons["duplicate"]
    assert "labrelay_worker.backends.memory.MemoryBackend" in reasons["duplicate"]
    assert str(folder / "duplicate.py") in reasons["duplicate"]
    with pytest.raises(KeyError, match="'lacking' is unavailable: needs the package 'numpi_typo'"):
        registry.get("lacking")


def test_a_plugin_that_fails_half_way_leaves_no_class_and_no_claim(registry: BackendRegistry, plugin: Plugin) -> None:
    plugin("a_fails.py", SINK.format(key="wanted") + "\n    raise RuntimeError('after the class')")
    folder = plugin("b_works.py", SINK.format(key="wanted"))
    registry.discover(directories=[folder])
    assert type(registry.get("wanted")).__module__.endswith("b_works")
    assert [problem.name for problem in registry.unavailable] == ["a_fails"]


def test_a_later_discovery_keeps_folders_and_profile(registry: BackendRegistry, plugin: Plugin) -> None:
    source = SINK.format(key="window") + '\n        needs = frozenset({"display"})\n'
    registry.discover(directories=[plugin("window.py", source)], profile="headless")
    assert set(registry.create_all()) >= {"disk", "memory"}
    assert "window" in {problem.name for problem in registry.unavailable}


def test_a_headless_worker_has_no_viewer(registry: BackendRegistry) -> None:
    class Viewer(_Sink, StreamingBackend):
        _backend_type = "viewer"
        needs = frozenset({"display", "jvm"})

    registry.configure("screen", "viewer", {})
    registry.discover(profile="headless")
    for name in ("viewer", "screen"):
        with pytest.raises(KeyError, match=r"left out by profile headless .*display and jvm"):
            registry.get(name)
    assert "viewer" not in registry.create_all()
    # And another worker has it
    registry.discover(profile="")
    assert isinstance(registry.get("screen"), Viewer)
    with pytest.raises(InvalidInput):
        registry.discover(profile="hedless")


def test_the_storage_registry_holds_all_that_can_be_made(
    registry: BackendRegistry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Fails(_Sink):
        _backend_type = "fails"

        def __init__(self) -> None:
            raise OSError("no device")

    class NeedsOption(_Sink):
        _backend_type = "needs_option"

        def __init__(self, host: str) -> None: ...

    registry.configure("archive", "disk", {"root": tmp_path})
    backends = registry.create_all()
    assert {"archive", "disk", "memory"} <= set(backends)
    assert not {"fails", "needs_option"} & set(backends)
    assert backends["archive"] is registry.get("archive")
    assert "'fails' could not be made: OSError: no device" in caplog.text
    assert "needs_option" not in caplog.text


def test_the_first_use_of_a_fresh_process_discovers_by_itself() -> None:
    code = (
        "from labrelay_worker.backends.registry import *;"
        "import labrelay_worker.backends.registry as r;"
        "print(sorted(r.STORAGE_BACKENDS), type(r.get_backend_instance('disk')).__name__)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[] DiskBackend"


# --- cleanup ---------------------------------------------------------------------------------------------


def test_cleanup_reaches_every_backend_whatever_the_others_do(
    registry: BackendRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[str] = []

    def define(key: str, error: BaseException | None) -> None:
        def note(word: str) -> None:
            calls.append(f"{word} {key}")
            if error is not None:
                raise error

        body = {
            "_backend_type": key,
            "cleanup_connections": lambda self: note("connections"),
            "cleanup": lambda self: note("all"),
            "__module__": __name__,
            "__qualname__": key,
        }
        type(key, (_Sink,), body)

    # Given three backends, of which the first two fail when they are closed
    for key, error in (("a", OSError("socket password=hunter22")), ("b", SystemExit(1)), ("c", None)):
        define(key, error)
        registry.get(key)
    # When connections are cleaned up twice and everything twice
    with caplog.at_level(logging.DEBUG):
        for _ in range(2):
            registry.cleanup_connections()
        for _ in range(2):
            registry.cleanup()
    # Then every backend was reached, the second full cleanup had nothing to do, and the log says what follows
    once = ["connections a", "connections b", "connections c"]
    assert calls == [*once, *once, "all a", "all b", "all c"]
    assert "backend 'a' could not be cleaned up, its connections may stay open until this process ends" in caplog.text
    assert [record.levelname for record in caplog.records if "'b' could not" in record.message] == ["ERROR"] * 3


def test_the_public_functions_act_on_the_one_registry_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REGISTRY", BackendRegistry())
    discover_all_backends()
    assert {"disk", "memory"} <= set(STORAGE_BACKENDS)
    backends = create_storage_registry()
    assert backends["memory"] is get_backend_instance("MEMORY")
    assert backends["memory"] is backend_registry().get("memory")
    cleanup_backend_connections()
    cleanup_all_backends()
    assert get_backend_instance("memory") is not backends["memory"]
