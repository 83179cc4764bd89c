"""Get the user id that LabArchives gives to one access key, and keep it where only its owner can read it."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from labrelay.errors import DeliveryError, InvalidInput, Misconfigured, Rejected
from labrelay.redaction import Redactor
from labrelay.settings import ENV_PREFIX
from labrelay_worker.destinations.account import OwnAccount
from labrelay_worker.destinations.labarchives_answers import Access
from labrelay_worker.destinations.labarchives_api import LabArchivesApi
from labrelay_worker.destinations.labarchives_options import AccessOptions
from labrelay_worker.destinations.labarchives_signing import Credentials, encoded
from labrelay_worker.http import HttpClient

#: File of the secrets directory whose JSON is merged into the ``[destinations.NAME]`` tables.
SECRETS_FILE = f"{ENV_PREFIX.lower()}destinations"
_VARIABLE_NAME = re.compile(r"[a-z_][a-z0-9_]*")


def login_address(options: AccessOptions, redirect_uri: str) -> str:
    """Return where a person logs in with a browser, which is then sent to `redirect_uri` with an ``auth_code``.

    Here it is the address to return to that is signed in place of a method; valid for two minutes.
    """
    parts = urlsplit(str(options.url))
    credentials = _credentials(options)
    expires = time.time_ns() // 1_000_000
    query = {
        "akid": credentials.access_key_id,
        "expires": str(expires),
        "redirect_uri": redirect_uri,
        "sig": credentials.signature(redirect_uri, expires),
    }
    return f"{parts.scheme}://{parts.netloc}/api_user_login?{encoded(query)}"


def code_and_email(pasted: str) -> tuple[str, str]:
    """Return authorisation code and e-mail address of the address that the browser was sent to, or a bare code."""
    query = parse_qs(urlsplit(pasted.strip()).query)
    if "error" in query:
        raise InvalidInput("login", f"LabArchives says {query['error'][0]!r}", "Log in again")
    return query.get("auth_code", [pasted.strip()])[0], query.get("email", [""])[0]


async def log_in(options: AccessOptions, email: str, token: str) -> Access:
    """Exchange an e-mail address with a password token or authorisation code for the user id.

    Raises
    ------
    InvalidInput
        LabArchives refuses them; the text holds neither.
    DeliveryError
        It cannot be reached, or the access key is wrong.
    """
    async with HttpClient(tls=options.tls, timeout=options.timeout, headers={}) as http:
        api = LabArchivesApi(str(options.url), _credentials(options), http, OwnAccount)
        try:
            return await api.access_info(email, token)
        except DeliveryError as error:
            text = Redactor([token])(str(error))
            if isinstance(error, Rejected) or (isinstance(error, Misconfigured) and "error 4514" in text):
                cure = (
                    "Make a new password token in LabArchives (it lasts an hour), for the user of this e-mail address"
                )
                raise InvalidInput("login", text.partition(";")[0], cure) from None
            raise type(error)(text) from None


def variable(name: str) -> str:
    """Return the environment variable of a destination's user id.

    Raises
    ------
    InvalidInput
        The destination's name cannot be part of one.
    """
    if not _VARIABLE_NAME.fullmatch(name):
        raise InvalidInput(
            "--name", f"{name!r} cannot be part of an environment variable", "Keep the user id with --secrets"
        )
    return f"{ENV_PREFIX}DESTINATIONS__{name.upper()}__USER_ID"


def keep_in_secrets(folder: Path, name: str, user_id: str) -> Path:
    """Write the user id into the secrets directory, beside what is there, and return the file."""
    path = folder / SECRETS_FILE
    try:
        tables: Any = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError:
        tables = None
    if not isinstance(tables, dict) or not isinstance(tables.setdefault(name, {}), dict):
        raise InvalidInput(str(path), "is not a JSON object with one object for each destination", "Correct it")
    tables[name]["user_id"] = user_id
    return _write_private(path, json.dumps(tables, indent=2, ensure_ascii=False) + "\n")


def keep_in_env_file(path: Path, name: str, user_id: str) -> Path:
    """Write the user id into an environment file, beside what is there, and return the file."""
    key = variable(name)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kept = [line for line in lines if line.partition("=")[0].strip().removeprefix("export ").upper() != key]
    return _write_private(path, "\n".join([*kept, f"{key}='{user_id}'"]) + "\n")


def _write_private(path: Path, text: str) -> Path:
    """Replace a file in one step by one that only its owner can read."""
    path = path.resolve()
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise InvalidInput(str(path), f"cannot be written ({error.strerror})", "Name another place") from None
    return path


def _credentials(options: AccessOptions) -> Credentials:
    return Credentials(options.access_key_id.get_secret_value(), options.access_password.get_secret_value())
