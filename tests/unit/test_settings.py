"""Settings: where they come from, what is refused, and what is never shown."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labrelay.errors import InvalidInput, LedgerUnavailable
from labrelay.settings import EffectiveOption, ProducerSettings, effective_options, load_settings, split_list
from labrelay_worker.settings import WorkerSettings, load_worker_settings

SECRET = "hunter2-hunter2"
Write = Callable[[str], None]


@pytest.fixture
def toml(tmp_path: Path) -> Write:
    """Return a function that writes the labrelay.toml of the working folder."""

    def write(text: str) -> None:
        (tmp_path / "labrelay.toml").write_text(text, encoding="utf-8")

    return write


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Return a function that sets ``LABRELAY_<name>``."""
    return lambda name, value: monkeypatch.setenv(f"LABRELAY_{name}", value)


def refused(load: Callable[[], Any] = load_worker_settings) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        load()
    assert "\n" not in str(caught.value)
    return caught.value


def options(**overrides: Any) -> dict[str, EffectiveOption]:
    return {option.name: option for option in effective_options(load_worker_settings(**overrides))}


# --- where they come from ------------------------------------------------------------------------------


def test_without_any_setting_everything_has_a_default() -> None:
    # Given a machine without settings, when they are read, then they are usable
    settings = load_worker_settings()
    assert settings.redis_url is None
    assert settings.strategy == "all"
    assert settings.destinations == {}


def test_the_environment_comes_before_dotenv_and_that_before_toml(env: Any, toml: Write, tmp_path: Path) -> None:
    # Given one option everywhere
    toml('key_prefix = "toml:"\nstrategy = "best_effort"\nwake_up_grace = 5.0')
    (tmp_path / ".env").write_text("LABRELAY_KEY_PREFIX=dotenv:\nLABRELAY_STRATEGY=first_success\n")
    env("KEY_PREFIX", "env:")
    # When it is read
    settings = load_settings(ProducerSettings)
    # Then the nearest wins, option by option
    assert (settings.key_prefix, settings.strategy, settings.wake_up_grace) == ("env:", "first_success", 5.0)


def test_an_argument_comes_before_everything(env: Any) -> None:
    # Given an option in the environment, when a program gives it, then that holds
    env("KEY_PREFIX", "env:")
    assert load_settings(ProducerSettings, key_prefix="here:").key_prefix == "here:"


def test_a_folder_of_secrets_is_read(env: Any, tmp_path: Path) -> None:
    # Given a secret as a file, as containers mount them
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "LABRELAY_REDIS_URL").write_text("redis://redis:6379/0\n")
    env("SECRETS_DIR", str(tmp_path / "run"))
    # When the settings are read, then it is one
    assert load_settings(ProducerSettings).resolve_redis_url() == "redis://redis:6379/0"


def test_the_file_of_the_home_is_read_where_the_folder_has_none(tmp_path: Path) -> None:
    # Given a file in the home alone
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "labrelay.toml").write_text('key_prefix = "home:"')
    # When the settings are read, then from there
    assert load_settings(ProducerSettings).key_prefix == "home:"


def test_a_named_file_comes_before_the_one_here(env: Any, toml: Write, tmp_path: Path) -> None:
    # Given a file here and a named one
    toml('key_prefix = "here:"')
    (tmp_path / "other.toml").write_text('key_prefix = "other:"')
    env("CONFIG", str(tmp_path / "other.toml"))
    # When the settings are read, then from the named one
    assert load_settings(ProducerSettings).key_prefix == "other:"


def test_a_nested_option_of_the_environment_reaches_its_table(env: Any, toml: Write) -> None:
    # Given a table in the file and its secret in the environment
    toml('[destinations.hook]\ntype = "webhook"\nurl = "https://host"')
    env("DESTINATIONS__HOOK__TOKEN", SECRET)
    env("RETRY__FIRST_DELAY", "0.5")
    # When the settings are read, then both make the table
    settings = load_worker_settings()
    assert settings.destinations["hook"] == {"type": "webhook", "url": "https://host", "token": SECRET}
    assert settings.retry.first_delay == 0.5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/a,/b", (Path("/a"), Path("/b"))),
        ("/a:/b", (Path("/a"), Path("/b"))),
        (" /a , /b ,", (Path("/a"), Path("/b"))),
        ('["/a", "/b"]', (Path("/a"), Path("/b"))),
        ("/a", (Path("/a"),)),
        ("", ()),
    ],
)
def test_a_list_of_folders_is_read_as_environments_give_it(env: Any, text: str, expected: tuple[Path, ...]) -> None:
    # Given a list in one variable, when it is read, then every usual spelling is understood
    env("DATA_ROOTS", text)
    assert load_settings(ProducerSettings).data_roots == expected


def test_a_list_of_plugins_keeps_its_colons(env: Any) -> None:
    # Given plugins by module and class, when they are read, then the colon separates nothing
    env("PLUGINS", "lab.plugins:Archive, lab.other:Notebook")
    assert load_worker_settings().plugins == ("lab.plugins:Archive", "lab.other:Notebook")


def test_folders_are_absolute_whoever_starts_from_where(env: Any, tmp_path: Path) -> None:
    # Given relative folders, when they are read, then they do not move with the process
    env("DATA_ROOTS", "data")
    env("HOME", "state")
    settings = load_settings(ProducerSettings)
    assert settings.data_roots == (tmp_path / "data",)
    assert settings.home == tmp_path / "state"


def test_a_value_that_is_a_list_already_is_left_alone() -> None:
    # Given a list from TOML, when it is split, then it stays one
    assert split_list(["/a,b"]) == ["/a,b"]


# --- what is refused -----------------------------------------------------------------------------------


def test_an_unknown_option_of_the_file_is_refused_by_name(toml: Write) -> None:
    # Given a misspelled option, when a worker reads it, then it is not silently ignored
    toml("leese_seconds = 5")
    error = refused()
    assert error.field == "labrelay.toml"
    assert error.problem == "unknown option 'leese_seconds'"


@pytest.mark.parametrize(
    ("text", "field", "where"),
    [
        ("in_flight = 0", "in_flight", "LABRELAY_IN_FLIGHT"),
        ('strategy = "most"', "strategy", "LABRELAY_STRATEGY"),
        ("[retry]\nfirst_dely = 5", "retry.first_dely", "LABRELAY_RETRY__FIRST_DELY"),
        ('[[routes]]\ninstrument = "*"\ndestination = ["x"]', "routes.0.destination", "labrelay.toml"),
        ('destinations = "cdcs"', "destinations", "labrelay.toml"),
    ],
)
def test_a_bad_value_is_refused_with_option_and_place(toml: Write, text: str, field: str, where: str) -> None:
    # Given a bad value, when it is read, then option and place are named
    toml(text)
    error = refused()
    assert error.field == field
    assert where in error.cure


@pytest.mark.parametrize("load", [load_worker_settings, lambda: load_settings(ProducerSettings)])
def test_a_file_that_is_not_toml_is_refused_with_its_line(toml: Write, load: Callable[[], Any]) -> None:
    # Given a broken file, when it is read, then the line is named
    toml("a = 1\nb = ]")
    assert "line 2" in refused(load).problem


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    # Given a file as some Windows editors write it, when it is read, then that is said
    (tmp_path / "labrelay.toml").write_text('key_prefix = "x:"', encoding="utf-16")
    assert "UTF-8" in refused().cure


def test_a_named_file_that_is_not_there_is_refused(env: Any) -> None:
    # Given a wrong LABRELAY_CONFIG, when it is read, then no default is taken instead
    env("CONFIG", "/no/such.toml")
    assert refused().field == "LABRELAY_CONFIG"


def test_a_table_in_the_environment_that_is_not_json_is_refused_by_name(env: Any) -> None:
    # Given a path_map in another spelling, when it is read, then the variable is named
    env("PATH_MAP", "Z:=/srv")
    error = refused()
    assert error.field == "path_map"
    assert "LABRELAY_PATH_MAP" in error.cure


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        (f"redis+cluster://:{SECRET}@host", "Celery has no Redis Cluster transport"),
        (f"http://:{SECRET}@host", "must begin with redis://"),
        ("localhost:6379", "must begin with redis://"),
        ("", "must begin with redis://"),
    ],
)
def test_a_redis_address_that_cannot_work_is_refused(env: Any, url: str, problem: str) -> None:
    # Given an address of another kind, when it is read, then not only at the first submit, and without its password
    env("REDIS_URL", url)
    error = refused()
    assert problem in error.problem
    assert SECRET not in str(error)


@pytest.mark.parametrize("url", ["redis://host/0", "rediss://:pw@host:6380/1", "unix:///run/redis.sock?db=0"])
def test_a_redis_address_that_can_work_is_taken_as_it_is(env: Any, url: str) -> None:
    # Given a usual address, when it is needed, then it is that
    env("REDIS_URL", url)
    assert load_settings(ProducerSettings).resolve_redis_url() == url


def test_without_an_address_the_running_embedded_server_is_found(tmp_path: Path) -> None:
    # Given an embedded server that says how to reach it
    (tmp_path / "home" / "redis").mkdir(parents=True)
    (tmp_path / "home" / "redis" / "url").write_text("unix:///x/redis.sock\n")
    # When the address is needed, then it is that
    assert load_settings(ProducerSettings).resolve_redis_url() == "unix:///x/redis.sock"


def test_without_any_server_the_text_says_how_to_start_one() -> None:
    # Given no server, when the address is needed, then both ways out are named
    with pytest.raises(LedgerUnavailable, match=r"labrelay up.*LABRELAY_REDIS_URL"):
        load_settings(ProducerSettings).resolve_redis_url()


# --- what is shown -------------------------------------------------------------------------------------


def test_every_option_is_listed_with_its_meaning_and_source(env: Any, toml: Write) -> None:
    # Given one option in each place
    toml("in_flight = 7")
    env("STRATEGY", "best_effort")
    # When they are listed
    listed = options(key_prefix="x:")
    # Then each says where it comes from and what it is for
    assert listed.keys() == WorkerSettings.model_fields.keys()
    assert (listed["in_flight"].value, listed["in_flight"].source) == ("7", "labrelay.toml")
    assert (listed["strategy"].value, listed["strategy"].source) == ("best_effort", "LABRELAY_STRATEGY")
    assert listed["key_prefix"].source == ".env, secrets or argument"
    assert listed["call_timeout"].source == "default"
    assert all(option.help for option in listed.values())


def test_no_secret_is_listed(env: Any, toml: Write) -> None:
    # Given secrets wherever they may stand
    toml(
        f'[destinations.hook]\nurl = "https://me:{SECRET}@host"\n'
        f'[destinations.hook.headers]\nX-Lab = "{SECRET}"\n[backends.s3]\naccess_key = "{SECRET}"'
    )
    env("REDIS_URL", f"redis://:{SECRET}@host")
    env("DESTINATIONS__HOOK__TOKEN", SECRET)
    # When the settings are listed
    listed = options()
    # Then none of them is in it, and the rest can be read
    assert SECRET not in "".join(option.model_dump_json() for option in listed.values())
    assert listed["redis_url"].value == EffectiveOption.mask
    assert listed["redis_url"].sensitive
    assert "@host" in listed["destinations"].value


def test_a_secret_is_not_in_the_text_of_the_settings(env: Any) -> None:
    # Given a password, when somebody prints the object, then it is not there
    env("REDIS_URL", f"redis://:{SECRET}@host")
    assert SECRET not in repr(load_settings(ProducerSettings))


@pytest.mark.parametrize("name", ["labrelay.toml", ".env"])
def test_a_file_that_this_user_may_not_read_is_named(
    monkeypatch: pytest.MonkeyPatch, toml: Write, tmp_path: Path, name: str
) -> None:
    # Given settings in files, one of which is somebody else's; root may read everything, so it is denied here
    toml('strategy = "all"')
    (tmp_path / ".env").write_text("LABRELAY_STRATEGY=all\n")
    opened = io.open

    def denied(file: Any, *arguments: Any, **options: Any) -> Any:
        if Path(str(file)).name == name:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
        return opened(file, *arguments, **options)

    monkeypatch.setattr("io.open", denied)
    monkeypatch.setattr("builtins.open", denied)
    # When they are read, then it is said which, and what to do
    error = refused()
    assert (Path(error.field).name, error.problem) == (name, "cannot be read (Permission denied)")
    assert "right to read it" in error.cure
