"""`labrelay labarchives login`: from an access key and a person to a user id that is kept well."""

from __future__ import annotations

import json
import re
from pathlib import Path

import aiohttp
import click.testing
import pytest
from labarchives_bench import Bench, bench

from labrelay.cli import main
from labrelay_worker.settings import load_worker_settings

__all__ = ["bench"]

UID = "uid+one/=="
PASSWORD = "pass/word+one=="


@pytest.fixture
def configured(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Give the machine an access key, as an administrator got it."""
    for name, value in {"URL": f"{bench.url}/api", "ACCESS_KEY_ID": "akid-one", "ACCESS_PASSWORD": PASSWORD}.items():
        monkeypatch.setenv(f"LABRELAY_DESTINATIONS__LABARCHIVES__{name}", value)
    return bench


def login(*arguments: str, answers: str = "one@lab.example\ntoken-one\n") -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, ["labarchives", "login", *arguments], input=answers)


def test_the_user_id_is_printed_alone_with_the_variable_that_holds_it(configured: Bench) -> None:
    # When a person logs in with a password token
    result = login()
    # Then standard output is the line to keep, the notebooks are listed beside it, and the token is nowhere
    assert result.exit_code == 0, result.output
    assert result.stdout == f"LABRELAY_DESTINATIONS__LABARCHIVES__USER_ID='{UID}'\n"
    assert 'notebook_id = "nb/1+="  # Microscopy' in result.stderr
    assert "token-one" not in result.output


def test_it_is_kept_in_an_environment_file_that_others_cannot_read(configured: Bench) -> None:
    # Given an environment file with other lines and an old user id
    file = Path(".env")
    file.write_text("OTHER=1\nexport LABRELAY_DESTINATIONS__LABARCHIVES__USER_ID=old\n")
    file.chmod(0o644)
    # When the user id is kept there
    result = login("--env-file", ".env")
    # Then it is in force, the other lines are as they were, and nothing of it was printed
    assert result.exit_code == 0, result.output
    assert load_worker_settings().destinations["labarchives"]["user_id"] == UID
    assert file.read_text().splitlines()[0] == "OTHER=1"
    assert file.read_text().count("USER_ID") == 1
    assert file.stat().st_mode & 0o777 == 0o600
    assert UID not in result.output


def test_it_is_kept_in_the_secrets_directory(
    configured: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a secrets directory with a secret of another destination
    file = tmp_path / "secrets" / "labrelay_destinations"
    file.parent.mkdir()
    file.write_text('{"hook": {"token": "t"}}')
    monkeypatch.setenv("LABRELAY_SECRETS_DIR", str(file.parent))
    # When the user id is kept there
    result = login("--secrets")
    # Then both are in force
    assert result.exit_code == 0, result.output
    assert json.loads(file.read_text()) == {"hook": {"token": "t"}, "labarchives": {"user_id": UID}}
    assert load_worker_settings().destinations["labarchives"]["user_id"] == UID
    assert file.stat().st_mode & 0o777 == 0o600
    assert UID not in result.output


async def follow(address: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(address, allow_redirects=False) as answer:
        return answer.headers["Location"]


def test_a_person_can_log_in_with_a_browser(configured: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a person who opens the printed address and pastes where it led
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    shown: list[str] = []
    monkeypatch.setattr("click.echo", lambda text="", **_: shown.append(str(text)))

    def paste(*_: object, **__: object) -> str:
        address = re.search(r"http\S+", shown[-1])
        assert address is not None
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(lambda: asyncio.run(follow(address.group(0)))).result()

    monkeypatch.setattr("click.prompt", paste)
    # When the login is done, then the code alone sufficed
    result = login("--browser", "https://lab.example/done", answers="")
    assert result.exit_code == 0, result.output
    assert shown[-1] == f"LABRELAY_DESTINATIONS__LABARCHIVES__USER_ID='{UID}'"


@pytest.mark.parametrize(
    ("arguments", "answers", "said"),
    [
        ([], "one@lab.example\nwrong-token\n", "Make a new password token"),
        ([], "two@lab.example\ntoken-one\n", "Make a new password token"),
        (["--name", "other"], "", "destinations.other.access_key_id: Field required"),
        (["--name", "Team-2"], "", "Keep the user id with --secrets"),
        (["--secrets"], "", "LABRELAY_SECRETS_DIR is not set"),
        (["--env-file", "/proc/nothing/.env"], "one@lab.example\ntoken-one\n", "cannot be written"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_without_a_secret(
    configured: Bench, arguments: list[str], answers: str, said: str
) -> None:
    # When something is wrong, then the line names it and the cure
    result = login(*arguments, answers=answers)
    assert result.exit_code == 2
    line = result.stderr.splitlines()[-1]
    assert line.startswith("labrelay: ")
    assert said in line
    assert not any(secret in result.output for secret in ("wrong-token", "token-one", PASSWORD, UID))


def test_a_wrong_access_key_is_told_apart_from_a_wrong_login(
    configured: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a wrong access password, when a person logs in, then that is what is named
    monkeypatch.setenv("LABRELAY_DESTINATIONS__LABARCHIVES__ACCESS_PASSWORD", "wrong-password")
    result = login()
    assert result.exit_code == 1
    assert "correct access_password" in result.stderr
    assert "wrong-password" not in result.output
