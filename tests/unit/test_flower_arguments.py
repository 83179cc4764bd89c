"""Flower is never open to a network by accident, and its password never shows."""

from __future__ import annotations

import runpy
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from labrelay.errors import InvalidInput
from labrelay_worker.flower.launch import CONFIG_FILE, FlowerLaunch, flower_arguments

_CONF = Path(__file__).parents[2] / "deploy" / "flower" / "flowerconfig.py"


def test_by_default_flower_is_local_read_only_and_shows_tasks_as_labrelay_does() -> None:
    launch = flower_arguments(basic_auth="u:hush-hush")
    assert launch.arguments[:3] == ["-A", "labrelay_worker.app", "flower"]
    assert "--address=127.0.0.1" in launch.arguments
    assert "--port=5555" in launch.arguments
    assert "--read-only=True" in launch.arguments
    assert f"--conf={CONFIG_FILE}" in launch.arguments
    assert CONFIG_FILE.is_file()


def test_the_history_is_saved_while_flower_runs(tmp_path: Path) -> None:
    arguments = flower_arguments(basic_auth="u:p", persistent_db=tmp_path / "history").arguments
    assert "--persistent=True" in arguments
    assert f"--db={tmp_path / 'history'}" in arguments
    assert "--state-save-interval=10000" in arguments


@pytest.mark.parametrize("address", ["0.0.0.0", "", "192.0.2.7", "127.0.0.1", "localhost"])
def test_without_a_password_flower_is_refused_wherever_it_listens(address: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        flower_arguments(address=address)
    assert caught.value.field == "flower_basic_auth"
    assert "LABRELAY_FLOWER_BASIC_AUTH" in caught.value.cure
    assert "--open" in caught.value.cure


def test_open_access_is_possible_when_it_is_said() -> None:
    launch = flower_arguments(address="0.0.0.0", open_access=True)
    assert "--address=0.0.0.0" in launch.arguments
    assert "--read-only=True" in launch.arguments


def test_the_password_is_in_the_environment_and_nowhere_else() -> None:
    launch = flower_arguments(address="0.0.0.0", basic_auth="user:pa:ss word")
    assert launch.environment == {"FLOWER_BASIC_AUTH": "user:pa:ss word"}
    assert not any("pa:ss" in argument for argument in launch.arguments)
    assert "pa:ss" not in repr(launch)


@pytest.mark.parametrize("bad", ["", "hush", "hush:", ":hush-hush", "me:hush,b", "me:hüsh", "me:hush\nb"])
def test_a_password_that_flower_cannot_take_is_refused_without_showing_it(bad: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        flower_arguments(basic_auth=bad)
    assert caught.value.field == "basic_auth"
    assert not bad or bad not in str(caught.value)


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_that_is_none_is_refused(port: int) -> None:
    with pytest.raises(InvalidInput, match="port"):
        flower_arguments(basic_auth="u:p", port=port)


def test_a_settings_file_is_taken_and_a_missing_one_is_refused(tmp_path: Path) -> None:
    assert f"--conf={_CONF}" in flower_arguments(basic_auth="u:p", conf=_CONF).arguments
    with pytest.raises(InvalidInput, match="no such file"):
        flower_arguments(basic_auth="u:p", conf=tmp_path / "none.py")


def test_a_launch_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        flower_arguments(open_access=True).arguments = []  # type: ignore[misc]
    assert isinstance(flower_arguments(open_access=True), FlowerLaunch)


def test_flower_understands_every_option() -> None:
    options = pytest.importorskip("flower.options").default_options
    launch = flower_arguments(basic_auth="u:p", persistent_db=Path("history"), conf=_CONF)
    for argument in launch.arguments[3:]:
        assert argument.removeprefix("--").partition("=")[0] in options
    for variable in launch.environment:
        assert variable.removeprefix("FLOWER_").lower() in options


# --- deploy/flower/flowerconfig.py ----------------------------------------------------------------------


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the settings file be read as a new process does."""
    monkeypatch.delitem(sys.modules, "labrelay_worker.flower.config", raising=False)


@pytest.fixture
def conf(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    monkeypatch.delenv("FLOWER_BASIC_AUTH_FILE", raising=False)
    monkeypatch.setenv("LABRELAY_HOME", str(tmp_path / "home"))
    return runpy.run_path(str(_CONF))


def test_a_shown_task_keeps_its_sessions_and_loses_its_secrets(conf: dict[str, Any]) -> None:
    task = SimpleNamespace(
        args="(['0b0f6c8e-…'],)",
        kwargs="{'token': 'hush', 'session': '2026-11-01_a', 'url': 'https://me:hush@host/x'}",
        result="Authorization: Bearer hush",
        exception=None,
        traceback="x" * 100_000,
    )
    shown = conf["format_task"](task)
    assert shown.args == "(['0b0f6c8e-…'],)"
    assert "2026-11-01_a" in shown.kwargs
    assert "https://[redacted]@host/x" in shown.kwargs
    assert "hush" not in shown.kwargs + shown.result
    assert shown.exception is None
    assert len(shown.traceback) < 50_000


@pytest.mark.parametrize("long", ["x" * 10**6, "token" * 10**5, "://" * 10**5, "token: " * 10**5])
def test_showing_a_long_text_takes_no_long_time(conf: dict[str, Any], long: str) -> None:
    task = SimpleNamespace(args=long)
    began = time.process_time()
    conf["format_task"](task)
    assert time.process_time() - began < 1


class _Hostile:
    def __repr__(self) -> str:
        raise RuntimeError


class _Frozen:
    __slots__ = ()
    args = "x"


@pytest.mark.parametrize("task", [SimpleNamespace(args=_Hostile(), kwargs=b"\xff"), _Frozen(), None, object()])
def test_showing_a_task_never_fails(conf: dict[str, Any], task: object) -> None:
    assert conf["format_task"](task) is task


def test_without_a_secret_file_the_password_is_left_to_the_environment(conf: dict[str, Any]) -> None:
    assert "basic_auth" not in conf


def test_the_password_is_read_from_a_secret_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "auth"
    secret.write_text("a:b,c\nd:e\n")
    monkeypatch.setenv("FLOWER_BASIC_AUTH_FILE", str(secret))
    assert runpy.run_path(str(_CONF))["basic_auth"] == ["a:b,c", "d:e"]


@pytest.mark.parametrize("content", ["", "\n", "nopassword\n"])
def test_an_empty_secret_file_keeps_flower_closed(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "auth"
    secret.write_text(content)
    monkeypatch.setenv("FLOWER_BASIC_AUTH_FILE", str(secret))
    with pytest.raises(SystemExit, match="stays closed"):
        runpy.run_path(str(_CONF))
