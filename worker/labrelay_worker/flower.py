"""How Flower, the task view, is started: closed to strangers, read-only, with its history kept."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path

from labrelay.errors import InvalidInput

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
        Where to listen; anything but this machine needs ``basic_auth`` or ``open_access``.
    port
        TCP port.
    basic_auth
        ``user:password`` that the browser asks for.
    open_access
        Let everyone who reaches the address see sessions, users and errors.
    persistent_db
        File that keeps the tasks seen over a restart.
    read_only
        Refuse every act: stopping workers, revoking tasks, starting tasks.
    conf
        Flower's Python settings file, such as ``deploy/flower/flowerconfig.py``.

    Raises
    ------
    InvalidInput
        Flower would be open to a network, or an option is not usable.
    """
    if not 0 < port <= _LAST_PORT:
        raise InvalidInput("port", f"{port} is not a TCP port", f"Give a number from 1 to {_LAST_PORT}")
    if conf is not None and not conf.is_file():
        raise InvalidInput("conf", f"no such file {conf}", "Give the path of a Flower settings file")
    if basic_auth is not None:
        _check_credentials(basic_auth)
    elif not open_access and not _is_loopback(address):
        raise InvalidInput(
            "address",
            f"{address!r} can be reached from other machines and Flower would ask nobody for a password",
            "Give basic_auth as user:password, listen on 127.0.0.1, or allow it with open_access",
        )
    arguments = [
        "-A",
        "labrelay_worker.app",
        "flower",
        f"--address={address}",
        f"--port={port}",
        f"--read-only={read_only}",
        # Without a name Flower runs any flowerconfig.py that lies in the current folder.
        f"--conf={conf.absolute() if conf else os.devnull}",
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


def _is_loopback(address: str) -> bool:
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
