"""The destinations of one process: found, made from the settings, and each failing for itself alone."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from labrelay.context import ExportContext
from labrelay.errors import InvalidInput, LedgerUnavailable, Misconfigured
from labrelay.plans import make_plan, select
from labrelay.results import DestinationInfo, RouteInfo, WorkerInfo, utc_now
from labrelay_worker.backends import registry as backends
from labrelay_worker.destinations.registry import ExporterRegistry
from labrelay_worker.discovery import PLUGIN_NAMESPACE, UnavailablePlugin
from labrelay_worker.settings import load_worker_settings

Build = Callable[..., ExportContext]
SECRET = "hunter2-hunter2"

SEED = """
class Archive:
    name = "archive"
    priority = 70
    enabled = True

    def validate_config(self):
        return True, None

    def export(self, context):
        from labrelay import ExportResult
        return ExportResult(success=True, destination_name=self.name, record_id=context.session_identifier)
"""

OPTIONED = """
from pydantic import Field, SecretStr
from labrelay_worker.destinations.base import Destination, Options

class NotebookOptions(Options):
    url: str
    token: SecretStr | None = None

class Notebook(Destination):
    name = "notebook"
    priority = 30
    Options = NotebookOptions
    waits_for = ("archive",)
"""


@pytest.fixture(autouse=True)
def _own_registries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(backends, "_REGISTRY", backends.BackendRegistry())
    yield
    for name in [name for name in sys.modules if name.startswith(PLUGIN_NAMESPACE)]:
        del sys.modules[name]


@pytest.fixture
def plugin(tmp_path: Path) -> Callable[[str, str], None]:
    """Return a function that writes a plugin file."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    return lambda name, text: (folder / name).write_text(text) and None


@pytest.fixture
def registry(tmp_path: Path) -> Callable[..., ExporterRegistry]:
    """Return a function that makes a registry from destination tables and other settings."""

    def make(destinations: dict[str, dict[str, Any]] | None = None, **settings: Any) -> ExporterRegistry:
        if (tmp_path / "plugins").is_dir():
            settings.setdefault("plugin_path", (tmp_path / "plugins",))
        made = ExporterRegistry(load_worker_settings(destinations=destinations or {}, **settings))
        made.discover_plugins()
        return made

    return make


Make = Callable[..., ExporterRegistry]
Plugin = Callable[[str, str], None]


def enabled(registry: ExporterRegistry) -> list[str]:
    return [info.name for info in registry.infos() if info.enabled]


def info_of(registry: ExporterRegistry, name: str) -> DestinationInfo:
    return next(info for info in registry.infos() if info.name == name)


def unavailable(registry: ExporterRegistry, name: str) -> UnavailablePlugin:
    return next(each for each in registry.unavailable if each.name == name)


# --- what there is -------------------------------------------------------------------------------------


def test_without_any_configuration_the_disk_is_the_default(registry: Make, tmp_path: Path) -> None:
    # Given a machine without settings
    made = registry()
    # Then sessions go to a folder of the home, and other backends may be named
    assert enabled(made) == ["disk"]
    assert info_of(made, "memory").reason == "used when it is named"
    assert made.unavailable == []


def test_with_any_other_destination_the_disk_is_not_used_by_itself(registry: Make) -> None:
    # Given one configured destination, then the default steps back
    assert enabled(registry({"hook": {"type": "webhook", "url": "https://host"}})) == ["hook"]


def test_a_class_of_the_seed_in_a_plugin_folder_is_a_destination(registry: Make, plugin: Plugin) -> None:
    # Given a file with NexusLIMS's five members
    plugin("archive.py", SEED)
    made = registry()
    # Then it is enabled as it is, and links are those of the seed
    assert enabled(made) == ["archive"]
    assert info_of(made, "archive").waits_for is None
    assert info_of(made, "archive").priority == 70


def test_one_type_can_have_several_instances(registry: Make, plugin: Plugin) -> None:
    # Given two tables of one type
    plugin("notebook.py", OPTIONED)
    made = registry(
        {
            "team1": {"type": "notebook", "url": "https://one", "priority": 40},
            "team2": {"type": "notebook", "url": "https://two", "waits_for": ["team1"]},
        }
    )
    # Then each has its own settings, and the bare type is nobody's destination
    assert enabled(made) == ["team1", "team2"]
    assert (info_of(made, "team1").priority, info_of(made, "team2").priority) == (40, 30)
    assert (info_of(made, "team1").waits_for, info_of(made, "team2").waits_for) == (("archive",), ("team1",))
    assert made.unavailable == []


def test_a_seed_class_can_be_configured_under_another_name(registry: Make, plugin: Plugin) -> None:
    # Given a table that names a class of the seed
    plugin("archive.py", SEED)
    made = registry({"cold": {"type": "archive"}})
    # Then there is that instance alone: nobody configured a second one
    assert enabled(made) == ["cold"]


def test_a_backend_can_be_configured_as_a_destination(registry: Make, tmp_path: Path, make_session: Build) -> None:
    # Given a disk under a name of its own
    made = registry({"vault": {"type": "disk", "root": str(tmp_path / "vault"), "priority": 5}})
    # When something is exported here and now
    results = made.export_to_all(make_session())
    # Then it lies there
    assert [(r.destination_name, r.success) for r in results] == [("vault", True)]
    assert len(list((tmp_path / "vault").rglob("manifest.json"))) == 1


@pytest.mark.parametrize("value", [False, "false", "no", "0"])
def test_a_destination_can_be_switched_off(registry: Make, value: Any) -> None:
    # Given a table that is switched off, also as the environment spells it
    made = registry({"hook": {"type": "webhook", "url": "https://host", "enabled": value}})
    # Then no export takes it by itself, and the default does not come back
    assert enabled(made) == []
    assert info_of(made, "hook").reason == "disabled"


def test_a_link_may_be_a_single_name(registry: Make) -> None:
    # Given one name instead of a list, then it is not taken letter by letter
    made = registry({"hook": {"type": "webhook", "url": "https://host", "waits_for": "cdcs"}})
    assert info_of(made, "hook").waits_for == ("cdcs",)


# --- what fails ----------------------------------------------------------------------------------------


def test_broken_plugins_take_no_other_down(registry: Make, plugin: Plugin) -> None:
    # Given a folder with one of each kind
    plugin("archive.py", SEED)
    plugin("broken.py", "raise RuntimeError('no licence')")
    plugin("lacking.py", "import package_that_is_not_there")
    plugin("twice.py", SEED)
    made = registry()
    # Then the good one works, and each other one says why it does not
    assert enabled(made) == ["archive"]
    assert "RuntimeError: no licence" in unavailable(made, "broken").reason
    assert "pip install package_that_is_not_there" in unavailable(made, "lacking").cure
    assert "already taken by" in unavailable(made, "archive").reason


def test_a_plugin_that_cannot_be_made_is_unavailable(registry: Make, plugin: Plugin) -> None:
    # Given a plugin that needs options and has none
    plugin("notebook.py", OPTIONED)
    made = registry()
    # Then the option and the table are named
    broken = unavailable(made, "notebook")
    assert "option url" in broken.reason
    assert "[destinations.notebook]" in broken.cure
    assert enabled(made) == ["disk"]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"type": "webhook", "url": "https://host", "tokn": "x"}, "option tokn"),
        ({"type": "webhook", "url": "nowhere"}, "option url"),
        ({"type": "webhook"}, "option url"),
        ({"type": "webhook", "url": "https://host", "priority": "high"}, "option priority"),
        ({"type": "webhook", "url": "https://host", "priority": 5000}, "option priority"),
        ({"type": "webhook", "url": "https://host", "enabled": "perhaps"}, "option enabled"),
        ({"type": "wbhook"}, "there is no type 'wbhook'"),
        ({"type": "disk", "rot": "/x"}, "rot"),
    ],
)
def test_a_bad_option_is_named(registry: Make, table: dict[str, Any], words: str) -> None:
    # Given a table with one mistake, then the reason names it
    assert words in unavailable(registry({"hook": table}), "hook").reason


def test_a_configured_destination_that_cannot_be_made_stays_part_of_every_export(registry: Make) -> None:
    # Given two configured destinations, one with a mistake
    made = registry({"hook": {"type": "webhook", "url": "https://host"}, "cdcs": {"type": "webhook", "priority": 90}})
    # Then exports wait for it: otherwise they would be called delivered without it
    assert enabled(made) == ["cdcs", "hook"]
    host = made.hosts(["cdcs"])["cdcs"]
    with pytest.raises(Misconfigured, match="option url"):
        asyncio.run(host.export(None, attempt=1))
    # And the default does not take its place
    assert enabled(registry({"cdcs": {"type": "webhook"}})) == ["cdcs"]


def test_a_destination_that_cannot_be_made_can_be_switched_off(registry: Make) -> None:
    # Given one with a mistake that is switched off, then nothing waits for it
    assert enabled(registry({"cdcs": {"type": "webhook", "enabled": False}})) == []


def test_a_property_that_raises_does_not_end_the_listing(registry: Make, plugin: Plugin) -> None:
    # Given a class whose enabled fails, beside a good one
    plugin("archive.py", SEED)
    odd = SEED.replace("enabled = True", "enabled = property(lambda self: 1 / 0)").replace("archive", "odd")
    plugin("odd.py", odd.replace("Archive", "Odd"))
    made = registry()
    # Then it is listed with the reason
    assert enabled(made) == ["archive"]
    assert "ZeroDivisionError" in info_of(made, "odd").reason


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("raise ValueError(f'cannot log in with {options.token.get_secret_value()}')", {"token": SECRET}),
        ("raise KeyError(options.url)", {"url": f"https://me:{SECRET}@host"}),
        ("raise Misconfigured(f'token={options.token.get_secret_value()}')", {"token": SECRET}),
    ],
)
def test_no_secret_of_the_options_is_in_a_reason(
    registry: Make, plugin: Plugin, text: str, options: dict[str, Any]
) -> None:
    # Given a constructor that fails with its options in the text
    made_by = (
        f"    def __init__(self, name, options):\n        from labrelay.errors import Misconfigured\n        {text}\n"
    )
    plugin("notebook.py", OPTIONED + made_by)
    made = registry({"notebook": {"url": "https://host"} | options})
    # Then the reason can be shown
    assert SECRET not in str(unavailable(made, "notebook"))
    assert SECRET not in info_of(made, "notebook").reason


def test_secrets_of_nested_options_are_kept_out_of_errors(registry: Make, make_context: Build) -> None:
    # Given a secret header, and an error that repeats it
    made = registry({"hook": {"type": "webhook", "url": "https://host", "headers": {"X-Lab": SECRET}}})
    host = made.hosts(["hook"])["hook"]
    # Then it is masked
    assert SECRET not in host.redact(f"the server says {SECRET}")


# --- what an export gets -------------------------------------------------------------------------------


def test_hosts_come_in_the_order_they_run(registry: Make, plugin: Plugin) -> None:
    # Given three destinations, asked for in another order
    plugin("archive.py", SEED)
    made = registry({"b": {"type": "webhook", "url": "https://b"}, "a": {"type": "webhook", "url": "https://a"}})
    # Then higher priority first, and names decide between equals
    assert list(made.hosts(["b", "a", "archive"])) == ["archive", "a", "b"]


@pytest.mark.parametrize(
    ("name", "reason"), [("elsewhere", "serves no destination 'elsewhere'"), ("hook", "disabled")]
)
def test_a_destination_not_served_here_waits_with_the_reason(registry: Make, name: str, reason: str) -> None:
    # Given an export that names a destination this worker does not serve
    made = registry({"hook": {"type": "webhook", "url": "https://host", "enabled": False}})
    host = made.hosts([name])[name]
    # Then its delivery waits and says why
    with pytest.raises(Misconfigured, match=reason):
        asyncio.run(host.export(None, attempt=1))


def test_a_check_asks_every_destination(registry: Make, plugin: Plugin) -> None:
    # Given one that is ready and one that is not
    plugin("archive.py", SEED)
    broken = SEED.replace("archive", "odd").replace("return True, None", "return False, 'no licence'")
    plugin("odd.py", broken.replace("Archive", "Odd"))
    # When they are checked, then each answers for itself
    answers = asyncio.run(registry().check())
    assert (answers["archive"], answers["odd"]) == ("ok", "no licence")


def test_closing_reaches_every_destination_whatever_one_does(registry: Make, plugin: Plugin, tmp_path: Path) -> None:
    # Given one whose close fails and one that notes it
    plugin("archive.py", SEED + f"\n    def close(self):\n        open({str(tmp_path / 'closed')!r}, 'w').close()\n")
    broken = SEED.replace("archive", "odd").replace("Archive", "Odd")
    plugin("odd.py", broken + "\n    def close(self):\n        raise OSError('stuck')\n")
    # When the registry is closed, then both had their turn
    asyncio.run(registry().close())
    assert (tmp_path / "closed").exists()


def test_results_of_an_inline_export_are_by_destination(registry: Make, plugin: Plugin, make_session: Build) -> None:
    # Given the seed's way of exporting
    plugin("archive.py", SEED)
    context = make_session()
    # When a context goes to all, then the results are returned and in the context
    results = registry().export_to_all(context, strategy="first_success")
    assert [(r.destination_name, r.success, r.record_id) for r in results] == [("archive", True, "session-1")]
    assert context.has_successful_export("archive")


# --- routes and plans ----------------------------------------------------------------------------------

KNOWN = (
    DestinationInfo(name="cdcs", type="cdcs", priority=100, waits_for=()),
    DestinationInfo(name="notebook", type="elabftw", priority=80, waits_for=("cdcs",)),
    DestinationInfo(name="seed", type="seed", priority=80, waits_for=None),
    DestinationInfo(name="off", type="disk", priority=10, enabled=False, reason="disabled", waits_for=()),
)
ROUTES = (
    RouteInfo(instrument="FEI-*", destinations=("notebook", "cdcs", "cdcs"), strategy="best_effort"),
    RouteInfo(instrument="*SEM*", strategy="first_success"),
)


@pytest.mark.parametrize(
    ("instrument", "strategy", "named", "expected"),
    [
        ("FEI-Titan", None, (), ("best_effort", ("notebook", "cdcs"))),
        ("FEI-Titan", "all", (), ("all", ("notebook", "cdcs"))),
        ("FEI-Titan", None, ("off",), ("best_effort", ("off",))),
        ("fei-titan", None, (), ("all", ("cdcs", "notebook", "seed"))),
        ("JEOL-SEM-1", None, (), ("first_success", ("cdcs", "notebook", "seed"))),
        ("other", "", ("seed", "seed"), ("all", ("seed",))),
    ],
)
def test_the_submitter_comes_before_the_route_and_that_before_the_default(
    instrument: str, strategy: str | None, named: tuple[str, ...], expected: tuple[str, tuple[str, ...]]
) -> None:
    # Given routes, when an export is selected for, then the nearest word holds
    selection = select(instrument, strategy, named, KNOWN, ROUTES, "all")
    assert (selection.strategy, selection.names) == expected


def plan(**fields: Any) -> dict[str, tuple[bool, str]]:
    given = {"instrument": "other", "strategy": None, "named": (), "routes": ()} | fields
    worker = WorkerInfo(name="w", version="1", started=utc_now(), destinations=KNOWN, routes=given.pop("routes"))
    made = make_plan(given["instrument"], given["strategy"], given["named"], [worker])
    return {step.destination: (step.runs, step.explanation) for step in made.steps}


def test_a_plan_explains_order_waits_and_skips() -> None:
    # Given four destinations, when the plan is made, then each says what happens; equals do not wait
    assert plan() == {
        "cdcs": (True, "runs at once"),
        "notebook": (True, "runs after cdcs (settled, at most link_wait)"),
        "seed": (True, "runs after cdcs (had their turn)"),
        "off": (False, "left out: disabled"),
    }


def test_a_plan_of_first_success_goes_one_by_one() -> None:
    # Given first_success, when the plan is made, then the order is a chain
    steps = plan(strategy="first_success")
    assert steps["cdcs"] == (True, "runs first")
    assert steps["seed"] == (True, "runs only if cdcs and notebook fail")


def test_a_plan_does_not_wait_for_what_is_not_chosen() -> None:
    # Given a notebook without the repository it links to, when the plan is made, then it does not wait
    assert plan(named=("notebook",))["notebook"] == (True, "runs at once")


def test_a_plan_names_a_destination_that_nobody_serves() -> None:
    # Given a route to a destination that no worker has, when the plan is made, then it does not look complete
    runs, explanation = plan(routes=(RouteInfo(instrument="*", destinations=("cdcs", "gone")),))["gone"]
    assert not runs
    assert "no running worker serves it" in explanation


def test_a_plan_refuses_a_misspelled_name() -> None:
    # Given a name that nobody serves, when the plan is made, then the others are named
    with pytest.raises(InvalidInput, match="Use cdcs, notebook, off, seed"):
        plan(named=("cdsc",))


def test_a_plan_needs_somebody_who_knows_the_destinations() -> None:
    # Given no worker, when the plan is made, then the cure is named
    with pytest.raises(LedgerUnavailable, match="labrelay up"):
        make_plan("other", None, (), [])
