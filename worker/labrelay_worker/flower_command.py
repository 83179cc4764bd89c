"""`labrelay flower`, and the Flower of `labrelay up`."""

from __future__ import annotations

import importlib.util
import os
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from labrelay.errors import LabrelayError

if TYPE_CHECKING:
    from labrelay_worker.settings import WorkerSettings

_INSTALL = 'pip install "labrelay[monitor]"'


@click.command("flower", short_help="Start Flower, the task view, on the same broker.")
@click.option("--address", help="Where to listen; default: flower_address, 127.0.0.1 unless set.")
@click.option("--port", type=click.IntRange(1, 65_535), help="Default: flower_port, 5555 unless set.")
@click.option("--open", "open_access", is_flag=True, help="Ask nobody for a password.")
def flower(address: str | None, port: int | None, open_access: bool) -> None:
    """Start Flower, the task view, on the same broker (needs the extra `monitor`).

    It is read-only, keeps its history below LABRELAY_HOME, and asks for LABRELAY_FLOWER_BASIC_AUTH (user:password).
    """
    from labrelay_worker.flower.account import stored_account  # noqa: PLC0415
    from labrelay_worker.flower.process import FlowerHome, launch_of  # noqa: PLC0415
    from labrelay_worker.settings import load_worker_settings  # noqa: PLC0415

    if not _is_installed():
        raise LabrelayError(f"Flower is not installed. Run: {_INSTALL}")
    settings = load_worker_settings()
    settings.resolve_redis_url()
    given = {"flower_address": address, "flower_port": port, "flower_open": open_access or None}
    settings = settings.model_copy(update={name: value for name, value in given.items() if value is not None})
    account = None if settings.flower_open else stored_account(settings)
    launch = launch_of(settings, account, port=settings.flower_port)
    home = FlowerHome(settings)
    lock = home.take()
    home.tell(lock, os.getpid(), f"http://{settings.flower_address}:{settings.flower_port}")
    os.set_inheritable(lock.fileno(), True)
    command = [sys.executable, "-m", "celery", *launch.arguments]
    os.execve(command[0], command, {**os.environ, **launch.environment})  # noqa: S606  fixed argument list


def flower_if_possible(settings: WorkerSettings, stack: ExitStack) -> None:
    """Start Flower beside a worker, and say where; without it the worker runs as well."""
    if not _is_installed():
        click.echo(f"labrelay: without Flower, the task view; to have it: {_INSTALL}", err=True)
        return
    from labrelay_worker.flower.account import account_file, make_account, stored_account  # noqa: PLC0415
    from labrelay_worker.flower.process import FlowerProcess  # noqa: PLC0415

    def tell(text: str) -> None:
        click.echo(f"labrelay: {text}", err=True)

    try:
        account = None if settings.flower_open else stored_account(settings)
        if account is None and not settings.flower_open:
            account = make_account(settings)
            # Logs keep what they are told: only a person at a terminal sees it.
            if sys.stderr.isatty():
                user, _, password = account.partition(":")
                tell(f"Flower's user is {user}, its password {password}; both are kept in {account_file(settings)}")
        if account is not None and settings.flower_basic_auth is None and not sys.stderr.isatty():
            tell(f"Flower's user and password are in {account_file(settings)}")
        process = FlowerProcess(settings, account, tell)
        process.start()
    except LabrelayError as error:
        tell(f"without Flower: {error}")
        return
    stack.callback(process.stop)


def _is_installed() -> bool:
    return importlib.util.find_spec("flower") is not None
