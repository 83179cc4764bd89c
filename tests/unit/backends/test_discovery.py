"""Discovery: each plugin on its own, whatever it does while it is imported."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from labrelay.errors import InvalidInput
from labrelay_worker.discovery import Discovery, UnavailablePlugin, check_profile, discover, left_out

Plugin = Callable[[str, str], Path]


def _in(folder: Path) -> Discovery:
    return discover([], "labrelay.tests", [folder], [])


def _only(result: Discovery) -> UnavailablePlugin:
    assert len(result.unavailable) == 1
    return result.unavailable[0]


def _names(result: Discovery) -> list[str]:
    return [Path(source).stem for source, _ in result.found]


# --- plugin folders ----------------------------------------------------------------------------------------


def test_a_folder_gives_its_modules_and_packages_by_name(plugin: Plugin) -> None:
    # Given modules, a package with a relative import, helpers, and files that are no plugins
    plugin("b.py", "from . import _shared; VALUE = _shared.VALUE")
    plugin("a.py", "VALUE = 1")
    plugin("package/__init__.py", "from .part import VALUE")
    plugin("package/part.py", "VALUE = 3")
    plugin("_shared.py", "VALUE = 2")
    plugin(".hidden.py", "raise RuntimeError")
    plugin("notes.txt", "not Python")
    folder = plugin("no_package/readme.md", "")
    # When it is searched
    result = _in(folder)
    # Then the plugins are there in order, under names that can shadow nobody's
    assert result.unavailable == []
    assert _names(result) == ["a", "b", "package"]
    modules = [module for _, module in result.found]
    assert [module.VALUE for module in modules if isinstance(module, ModuleType)] == [1, 2, 3]
    names = [module.__name__ for module in modules if isinstance(module, ModuleType)]
    assert all(name.startswith("labrelay_plugins.") and name in sys.modules for name in names)


def test_a_plugin_named_like_a_library_shadows_nothing(plugin: Plugin) -> None:
    import json

    result = _in(plugin("json.py", "import json; LOADS = json.loads"))
    assert result.found[0][1].LOADS is json.loads  # type: ignore[attr-defined]


def test_two_folders_may_hold_plugins_of_one_name(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.py").write_text(f"FOLDER = {folder!r}")
    result = discover([], "labrelay.tests", [tmp_path / "one", tmp_path / "two"], [])
    assert [module.FOLDER for _, module in result.found] == ["one", "two"]  # type: ignore[attr-defined]


def test_a_second_look_imports_nothing_twice(plugin: Plugin) -> None:
    folder = plugin("a.py", "VALUES = []")
    assert _in(folder).found[0][1] is _in(folder).found[0][1]


def test_a_missing_folder_is_unavailable_with_its_cure(tmp_path: Path) -> None:
    problem = _only(_in(tmp_path / "nowhere"))
    assert problem.source == str(tmp_path / "nowhere")
    assert str(problem).endswith("the plugin folder does not exist. Create it, or take it out of plugin_path")


def test_a_file_as_plugin_folder_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "directory" in _only(_in(tmp_path / "file")).reason


def test_names_that_cannot_be_imported_or_told_apart_are_reported(plugin: Plugin) -> None:
    plugin("a.b.py", "")
    plugin("same.py", "")
    result = _in(plugin("same/__init__.py", ""))
    assert [problem.reason for problem in result.unavailable] == [
        "the plugin file has a dot in its name",
        "the plugin file has the same name as another plugin here",
    ]
    assert _names(result) == ["same"]


# --- broken plugins ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import numpi_typo", "needs the package 'numpi_typo': pip install numpi_typo"),
        ("import numpi_typo.sub", "needs the package 'numpi_typo': pip install numpi_typo"),
        ("x = 1 +", "SyntaxError: invalid syntax (FILE, line 1)"),
        ("\nraise ValueError('two\\nlines')", "ValueError: two lines (FILE, line 2)"),
        ("import json\n\njson.loads('{')", "JSONDecodeError: Expecting property name enclosed in double "),
        ("class A:\n    x = 1 / 0", "ZeroDivisionError: division by zero (FILE, line 2)"),
        ("import sys\nsys.exit(3)", "SystemExit: 3 (FILE, line 2)"),
        ("raise KeyError", "KeyError (FILE, line 1)"),
        ("from json import no_such_name", "ImportError: cannot import name 'no_such_name' from 'json'"),
        ("import json.no_such_part", "ModuleNotFoundError: No module named 'json.no_such_part'"),
        ("raise RuntimeError('password=hunter22')", "RuntimeError: password=[redacted] (FILE, line 1)"),
    ],
)  # fmt: skip
def test_a_broken_plugin_is_named_with_reason_and_takes_no_other_down(
    plugin: Plugin, source: str, reason: str
) -> None:
    # Given a broken plugin between two good ones
    plugin("a_good.py", "")
    plugin("z_good.py", "")
    folder = plugin("broken.py", source)
    # When the folder is searched
    result = _in(folder)
    # Then the good ones are there, and the broken one says on one line what is wrong and where
    assert _names(result) == ["a_good", "z_good"]
    problem = _only(result)
    assert (problem.name, problem.source) == ("broken", str(folder / "broken.py"))
    assert problem.reason.startswith(reason.replace("FILE", str(folder / "broken.py")))
    assert "\n" not in str(problem)
    assert problem.cure


def test_a_package_called_otherwise_on_the_index_is_named_right(
    plugin: Plugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "zmq", None)
    assert _only(_in(plugin("a.py", "import zmq"))).reason == "needs the package 'zmq': pip install pyzmq"


def test_a_repaired_plugin_is_found_at_the_next_look(plugin: Plugin) -> None:
    # Given a package whose second part is broken
    plugin("package/__init__.py", "from . import first, second")
    plugin("package/first.py", "VALUE = 1")
    folder = plugin("package/second.py", "import numpi_typo")
    failed: list[str] = []
    discover([], "labrelay.tests", [folder], [], on_failure=failed.append)
    assert [name.rpartition(".")[2] for name in failed] == ["package"]
    # When it is repaired
    plugin("package/second.py", "VALUE = 'repaired, and longer'")
    plugin("package/first.py", "VALUE = 'changed, and longer'")
    # Then all of it is imported anew
    package = _in(folder).found[0][1]
    assert package.first.VALUE == "changed, and longer"  # type: ignore[attr-defined]


def test_an_interrupt_is_not_a_broken_plugin(plugin: Plugin) -> None:
    with pytest.raises(KeyboardInterrupt):
        _in(plugin("a.py", "raise KeyboardInterrupt"))


# --- built-ins, explicit names, entry points ---------------------------------------------------------------------


def test_all_sources_are_searched_in_order(plugin: Plugin, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = importlib.metadata.EntryPoint("mine", "decimal:Decimal", "labrelay.tests")
    broken = importlib.metadata.EntryPoint("gone", "numpi_typo.plugin:Backend", "labrelay.tests")
    # Given a distribution that is on the path twice
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [entry, entry, broken])
    result = discover(["json"], "labrelay.tests", [plugin("a.py", "")], ["fractions:Fraction.from_float"])
    assert [source.rpartition("/")[2] for source, _ in result.found] == [
        "json",
        "entry point decimal:Decimal",
        "a.py",
        "fractions:Fraction.from_float",
    ]
    problem = _only(result)
    assert (problem.name, problem.source) == ("gone", "entry point numpi_typo.plugin:Backend")
    assert problem.reason == "needs the package 'numpi_typo': pip install numpi_typo"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("json", "'json' names no attribute of a module"),
        ("json:", "names no attribute"),
        ("json:Nothing", "AttributeError: module 'json' has no attribute 'Nothing'"),
        ("no such module:X", "needs the package 'no such module'"),
        (".relative:X", "TypeError"),
    ],
)
def test_an_explicit_name_that_leads_nowhere_is_unavailable(name: str, reason: str) -> None:
    failed: list[str] = []
    result = discover([], "labrelay.tests", [], [name], on_failure=failed.append)
    assert reason in _only(result).reason
    # And a module that could be imported is not taken back
    assert "json" not in failed


# --- profiles -------------------------------------------------------------------------------------------------------


class _NeedsDisplay:
    needs = frozenset({"display"})


@pytest.mark.parametrize(
    ("thing", "profile", "out"),
    [(_NeedsDisplay, "headless", True), (_NeedsDisplay, "", False), (object, "headless", False)],
)
def test_a_profile_leaves_out_what_needs_what_it_lacks(thing: type, profile: str, out: bool) -> None:
    answer = left_out(thing, profile)
    assert (answer is not None) == out
    if answer:
        assert answer[0].startswith("left out by profile headless")


def test_an_unknown_profile_is_refused_because_it_would_do_nothing() -> None:
    with pytest.raises(InvalidInput, match=r"LABRELAY_WORKER_PROFILE.*'hedless'.*Use 'headless'"):
        check_profile("hedless")


@pytest.fixture(autouse=True)
def _no_bytecode(monkeypatch: pytest.MonkeyPatch) -> None:
    # A file rewritten within a second would be taken for its old bytecode.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
