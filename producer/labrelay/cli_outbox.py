"""`labrelay outbox`: what was submitted while Redis was away, and what the ledger refused of it since."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from labrelay.cli_parts import as_json, console, open_client, print_json
from labrelay.errors import InvalidInput, LedgerUnavailable
from labrelay.outbox import Outbox
from labrelay.settings import ProducerSettings, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable


@click.group()
def outbox() -> None:
    """Show and send what was submitted while Redis was away."""


def _outbox() -> Outbox:
    return Outbox.of(load_settings(ProducerSettings))


@outbox.command("list", short_help="List what waits to be sent, and conflicts.")
@as_json
def list_(as_json: bool) -> None:
    """List what waits to be sent, and conflicts that a person must decide."""
    from labrelay.tables import outbox_table  # noqa: PLC0415

    kept = _outbox()
    entries = kept.entries()
    print_json(entries) if as_json else console().print(outbox_table(entries))
    for path in kept.files_set_aside():
        click.echo(f"labrelay: a damaged outbox is kept as {path}", err=True)


@outbox.command()
@as_json
def path(as_json: bool) -> None:
    """Print where the outbox is, and the damaged ones that were kept."""
    kept = _outbox()
    if as_json:
        print_json({"path": str(kept.path), "damaged": [str(path) for path in kept.files_set_aside()]})
        return
    click.echo(str(kept.path))
    for damaged in kept.files_set_aside():
        click.echo(str(damaged))


@outbox.command()
@click.argument("ids", nargs=-1, metavar="[ID…]")
@click.option("--replace", is_flag=True, help="Send conflicts, too, as new revisions: those named by ID, or all.")
@as_json
def flush(ids: tuple[str, ...], replace: bool, as_json: bool) -> None:
    """Send what waits, oldest first.

    Exit code 3: Redis is away, and the rest still waits. Exit code 6: conflicts are kept for a person.
    """
    if ids and not replace:
        raise InvalidInput(
            "ID", "names a conflict to send", "Add --replace, or name none: what waits is sent in order"
        )
    with ExitStack() as stack:
        client = stack.enter_context(open_client())
        if replace:
            client.replace_conflicts(ids)
        report = client.flush(progress=_progress(stack, quiet=as_json or not sys.stderr.isatty()))
    conflicts = client.outbox.count("conflict")
    for notice in client.outbox.take_notices():
        click.echo(f"labrelay: {notice}", err=True)
    if as_json:
        print_json(report)
    else:
        click.echo(f"sent {report.sent}, still waiting {report.left}, conflicts {conflicts}")
    if report.away:
        raise LedgerUnavailable(f"Redis is away ({report.away}): start it and flush again; {report.left} still wait")
    if report.busy:
        raise LedgerUnavailable(f"another process is flushing and does not end; {report.left} still wait")
    if conflicts:
        click.echo("labrelay: `labrelay outbox list` explains each conflict; drop it, or flush --replace", err=True)
        sys.exit(6)


def _progress(stack: ExitStack, *, quiet: bool) -> Callable[[int, int], None] | None:
    if quiet:
        return None
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import MofNCompleteColumn, Progress  # noqa: PLC0415

    bar = stack.enter_context(
        Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=Console(stderr=True))
    )
    task = bar.add_task("sending", total=None)
    return lambda done, total: bar.update(task, completed=done, total=total)


@outbox.command(short_help="Remove conflicts for good.")
@click.argument("ids", nargs=-1, required=True, metavar="ID…")
@click.option("--waiting", is_flag=True, help="Give up entries that were never sent, too.")
@as_json
def drop(ids: tuple[str, ...], waiting: bool, as_json: bool) -> None:
    """Remove conflicts for good; ID is a number or an export id of `labrelay outbox list`."""
    dropped = _outbox().drop(ids, waiting=waiting)
    print_json({"dropped": dropped}) if as_json else click.echo(f"dropped {dropped}")


COMMANDS: dict[str, click.Command] = {"outbox": outbox}
