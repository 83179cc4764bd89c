"""Commands for LabArchives: login."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from labrelay.errors import InvalidInput

if TYPE_CHECKING:
    from labrelay_worker.destinations.labarchives_options import AccessOptions


@click.group("labarchives")
def labarchives() -> None:
    """Set up deliveries to LabArchives."""


@labarchives.command("login", short_help="Get the user id for your access key, and list notebooks.")
@click.option("--name", default="labarchives", show_default=True, help="Which [destinations.NAME] it is for.")
@click.option("--email", metavar="ADDRESS", help="Of the user who will own the entries; asked for if missing.")
@click.option("--browser", metavar="URL", help="Log in with a browser, which is then sent to URL with a code.")
@click.option("--secrets", is_flag=True, help="Keep the user id in LABRELAY_SECRETS_DIR.")
@click.option(
    "--env-file", type=click.Path(path_type=Path, dir_okay=False), help="Keep the user id in this environment file."
)
def login(name: str, email: str | None, browser: str | None, secrets: bool, env_file: Path | None) -> None:
    """Get the user id that LabArchives gives to your access key, and list the notebooks.

    url, access_key_id and access_password come from [destinations.NAME] or the environment. The password token is
    made in LabArchives under your name, "LA App authentication"; it lasts an hour, the user id until it is revoked.
    """
    import asyncio  # noqa: PLC0415

    from labrelay_worker.destinations.labarchives_login import (  # noqa: PLC0415
        code_and_email,
        keep_in_env_file,
        keep_in_secrets,
        log_in,
        login_address,
        variable,
    )

    folder = _secrets_folder() if secrets else None
    if not secrets:
        variable(name)  # refused before anything is asked
    options = _access_options(name)
    if browser:
        click.echo(f"Open this within two minutes, and log in:\n{login_address(options, browser)}", err=True)
        pasted = click.prompt("Address that you were sent to, or its auth_code", hide_input=True, err=True)
        token, known = code_and_email(pasted)
        email = email or known or click.prompt("E-mail address", err=True)
    else:
        email = email or click.prompt("E-mail address", err=True)
        token = click.prompt("Password token", hide_input=True, err=True).strip()
    access = asyncio.run(log_in(options, str(email).strip(), token))
    click.echo(f"{access.full_name or email}; the notebooks are:", err=True)
    for notebook_id, notebook in access.notebooks:
        click.echo(f'  notebook_id = "{notebook_id}"  # {notebook}', err=True)
    if folder is not None:
        click.echo(f"The user id is in {keep_in_secrets(folder, name, access.user_id)}.", err=True)
    if env_file is not None:
        click.echo(f"The user id is in {keep_in_env_file(env_file, name, access.user_id)}.", err=True)
    if folder is None and env_file is None:
        click.echo("Keep this in the workers' environment; it is a secret (--secrets or --env-file do it):", err=True)
        click.echo(f"{variable(name)}='{access.user_id}'")


def _secrets_folder() -> Path:
    folder = os.environ.get("LABRELAY_SECRETS_DIR")
    if not folder:
        raise InvalidInput("--secrets", "LABRELAY_SECRETS_DIR is not set", "Set it to a folder, or use --env-file")
    return Path(folder)


def _access_options(name: str) -> AccessOptions:
    from pydantic import ValidationError  # noqa: PLC0415

    from labrelay_worker.destinations.labarchives_options import AccessOptions  # noqa: PLC0415
    from labrelay_worker.settings import load_worker_settings  # noqa: PLC0415

    table = load_worker_settings().destinations.get(name, {})
    given = {key: value for key, value in table.items() if key in AccessOptions.model_fields}
    try:
        return AccessOptions.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        option = ".".join(str(part) for part in first["loc"])
        where = f"Correct it under [destinations.{name}] or in the environment"
        raise InvalidInput(f"destinations.{name}.{option}", first["msg"], where) from None
