"""How Flower, the task view, is started: closed to strangers, read-only, with its history kept."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from labrelay.errors import InvalidInput

#: What `labrelay flower` gives to Flower; ``deploy/flower/flowerconfig.py`` is the same for others.
CONFIG_FILE = Path(__file__).with_name("config.py")
_SAVE_INTERVAL_MS = 10_000
_LAST_PORT = 65_535


@dataclass(frozen=True)
class FlowerLaunch:
    """What to start Flower with.

    Parameters
    ----------
    arguments
        What follows the ``celery`` executable; it shows in the process list and holds no secret.
    environment
        To be added to the environment of the process; holds the secret, so it is kept out of ``repr``.
    """

    arguments: list[str]
    environment: dict[str, str] = field(repr=False)


def flower_arguments(
    *,
    address: str = "127.0.0.1",
    port: int = 5555,
    basic_auth: str | None = None,
    open_access: bool = False,
    persistent_db: Path | None = None,
    read_only: bool = True,
    conf: Path | None = None,
) -> FlowerLaunch:
    """Return how to start Flower on labrelay's application.

    Its pages follow these options; its REST API answers 401 without authentication wherever it listens. Its
    ``/metrics`` and ``/healthcheck`` are open even with authentication.

    Parameters
    ----------
    address
        Where to listen.
    port
        TCP port.
    basic_auth
        ``user:password`` that the browser asks for; needed, unless `open_access` is said.
    open_access
        Let everyone who reaches the address see sessions, users and errors: on this machine, all its users.
    persistent_db
        File that keeps the tasks seen over a restart.
    read_only
        Refuse every act: stopping workers, revoking tasks, starting tasks.
    conf
        Flower's Python settings file; default: labrelay's own.

    Raises
    ------
    InvalidInput
        Flower would be open to whoever reaches it, or an option is not usable.
    """
    if not 0 < port <= _LAST_PORT:
        raise InvalidInput("port", f"{port} is not a TCP port", f"Give a number from 1 to {_LAST_PORT}")
    if conf is not None and not conf.is_file():
        raise InvalidInput("conf", f"no such file {conf}", "Give the path of a Flower settings file")
    if basic_auth is not None:
        _check_credentials(basic_auth)
    elif not open_access:
        raise InvalidInput(
            "flower_basic_auth",
            f"is not set, and Flower would ask nobody who reaches {address} for a password",
            "Set LABRELAY_FLOWER_BASIC_AUTH to user:password, or let everybody in with --open",
        )
    arguments = [
        "-A",
        "labrelay_worker.app",
        "flower",
        f"--address={address}",
        f"--port={port}",
        f"--read-only={read_only}",
        # Without a name Flower runs any flowerconfig.py that lies in the current folder.
        f"--conf={(conf or CONFIG_FILE).absolute()}",
    ]
    if persistent_db is not None:
        arguments += [
            "--persistent=True",
            f"--db={persistent_db.absolute()}",
            # Flower's own default keeps the history only at a clean stop.
            f"--state-save-interval={_SAVE_INTERVAL_MS}",
        ]
    return FlowerLaunch(arguments, {} if basic_auth is None else {"FLOWER_BASIC_AUTH": basic_auth})


def _check_credentials(basic_auth: str) -> None:
    user, _, password = basic_auth.partition(":")
    if not user or not password:
        raise InvalidInput("basic_auth", "is not user:password", "Give both, separated by a colon")
    # Flower splits the variable at commas, and compares only ASCII: either would lock everyone out or in.
    if "," in basic_auth or not basic_auth.isascii() or not basic_auth.isprintable():
        raise InvalidInput("basic_auth", "holds a character Flower cannot take", "Use printable ASCII without commas")


def read_auth_file(path: str) -> list[str]:
    """Return the accounts of a secret's file, one ``user:password`` a line.

    Raises
    ------
    SystemExit
        The file holds none, or something else: Flower stays closed.
    """
    accounts = Path(path).read_text(encoding="ascii").split()
    if not accounts or not all(re.fullmatch(r"[^:]+:.+", account) for account in accounts):
        raise SystemExit(f"{path}: Flower stays closed: write one user:password per line")
    return accounts
