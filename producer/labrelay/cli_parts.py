"""What the commands share: a client, and how they print."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console

from labrelay import logs
from labrelay.settings import ProducerSettings, load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel

    from labrelay.client import Client

Command = TypeVar("Command", bound=Callable[..., Any])

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


@contextmanager
def open_client(*, background_flush: bool = False) -> Iterator[Client]:
    """Yield a client; its log stays silent unless a level is set, because the commands print what it answers."""
    from labrelay.client import Client  # noqa: PLC0415  `labrelay --help` need not load it

    settings = load_settings(ProducerSettings)
    if settings.log_level is not None:
        logs.configure(settings.log_format, settings.log_level)
    logging.getLogger("labrelay").addHandler(logging.NullHandler())
    with Client(background_flush=background_flush) as client:
        yield client


def print_json(value: BaseModel | Sequence[BaseModel] | dict[str, Any]) -> None:
    """Print a model, several, or a dictionary as JSON."""
    if isinstance(value, dict):
        data: Any = value
    elif isinstance(value, Sequence):
        data = [item.model_dump(mode="json") for item in value]
    else:
        data = value.model_dump(mode="json")
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))


def console(*, stderr: bool = False) -> Console:
    """Return where tables go; wide enough for ids when the output is a file."""
    return Console(width=None if sys.stdout.isatty() else 160, highlight=False, stderr=stderr)


def destination_names(_: click.Context, __: click.Parameter, value: str | None) -> list[str] | None:
    """Split the value of ``--destinations``."""
    return [name.strip() for name in value.split(",") if name.strip()] if value else None


def selection(command: Command) -> Command:
    """Add the options that say which contexts are meant, and where they go."""
    for option in (
        click.option(
            "--priority", metavar="NAME", help="urgent, normal or bulk; default: bulk for several sessions."
        ),
        click.option("--destinations", callback=destination_names, metavar="A,B", help="Deliver to these only."),
        click.option("--strategy", metavar="NAME", help="all, first_success or best_effort."),
        click.option("--session", metavar="S", help="Session identifier of a Nexus record."),
        click.option("--root", type=click.Path(path_type=Path), help="Folder that relative paths start from."),
    ):
        command = option(command)
    return command


def first_of(group: str) -> Any:
    """Call what an installed worker package offers under an entry point group, or return None."""
    for entry in entry_points(group=group):
        return entry.load()()
    return None
