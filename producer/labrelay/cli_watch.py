"""`labrelay watch`: submit the records that a pipeline writes into a folder."""

from __future__ import annotations

import signal
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from labrelay.cli_parts import as_json, console, destination_names, open_client, print_json
from labrelay.errors import InvalidInput, LedgerUnavailable
from labrelay.settings import ProducerSettings, load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from labrelay.inbox.memory import Memory
    from labrelay.inbox.watching import FolderWatch, WatchEvent

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0


@click.command("watch", short_help="Submit records as they become complete in a folder.")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--pattern", "patterns", multiple=True, metavar="GLOB", help="Record names; default: *.xml and *.json.")
@click.option("--settle", default=5.0, show_default=True, type=click.FloatRange(min=0), metavar="S",
              help="Seconds for which a record and its files must not change.")  # fmt: skip
@click.option("--root", type=click.Path(path_type=Path), help="Folder that relative paths start from; default: DIR.")
@click.option("--strategy", metavar="NAME", help="all, first_success or best_effort.")
@click.option(
    "--priority", metavar="NAME", help="urgent, normal or bulk; default: bulk for records of several sessions."
)
@click.option("--destinations", callback=destination_names, metavar="A,B", help="Deliver to these only.")
@click.option("--replace", is_flag=True, help="Make a new revision of a record that changes after it was submitted.")
@click.option("--once", is_flag=True, help="Submit what is complete now, then end.")
@click.option("--list", "list_", is_flag=True, help="Show what is remembered of DIR, and end.")
@as_json
def watch(  # noqa: PLR0917  click passes options by name
    folder: Path,
    patterns: tuple[str, ...],
    settle: float,
    root: Path | None,
    strategy: str | None,
    priority: str | None,
    destinations: list[str] | None,
    replace: bool,
    once: bool,
    list_: bool,
    as_json: bool,
) -> None:
    """Submit records as they become complete in DIR and below, until SIGTERM or Ctrl-C.

    A record is complete when neither it nor a file that it names has changed for the settling time. One that cannot
    be submitted is told once, and tried again when it or its files change. Restarting is harmless.

    Exit code with --once: 1 if records are refused or not complete, 3 if they could not be handed over.
    """
    from labrelay.inbox.looking import DEFAULT_PATTERNS  # noqa: PLC0415
    from labrelay.inbox.memory import Memory  # noqa: PLC0415
    from labrelay.inbox.watching import FolderWatch, WatchOptions  # noqa: PLC0415
    from labrelay.priorities import parse_priority  # noqa: PLC0415
    from labrelay.strategies import parse_strategy  # noqa: PLC0415

    if strategy:
        parse_strategy(strategy)
    if priority:
        parse_priority(priority)
    if not folder.is_dir():
        raise InvalidInput("DIR", f"{folder} is no folder", "Name the folder that records are written into")
    folder = folder.absolute()
    memory = Memory(load_settings(ProducerSettings).home / "watch.sqlite", folder)
    if list_:
        _list(memory, as_json)
        return
    options = WatchOptions(
        root=(root or folder).absolute(),
        patterns=patterns or DEFAULT_PATTERNS,
        settle=settle,
        strategy=strategy,
        priority=priority,
        destinations=tuple(destinations or ()),
        replace=replace,
    )
    with _stop_on_signals() as stop, open_client(background_flush=not once) as client:
        tell = _print_json if as_json else _print
        watched = FolderWatch(folder, client, memory, options, tell=tell)
        pause = min(max(settle / 4, _SHORTEST_PAUSE), _LONGEST_PAUSE)
        ends = time.monotonic() + settle + 3 * pause if once else None
        while True:
            began = time.monotonic()
            watched.look(stop.is_set)
            is_done = ends is not None and (not watched.pending or time.monotonic() >= ends)
            # A slow share is not looked at more than half of the time.
            if is_done or stop.wait(max(pause, time.monotonic() - began)):
                break
        memory.close()
        if once:
            _end_once(watched)


def _end_once(watched: FolderWatch) -> None:
    if watched.is_kept_waiting:
        raise LedgerUnavailable(f"{len(watched.pending)} records could not be handed over: run it again")
    for refused in watched.refused:
        click.echo(f"labrelay: {refused.record} is refused: {refused.reason}", err=True)
    for record in watched.pending:
        click.echo(f"labrelay: {record} is still being written; run it again", err=True)
    if watched.pending or watched.refused:
        sys.exit(1)


@contextmanager
def _stop_on_signals() -> Iterator[threading.Event]:
    """Yield an event that SIGTERM and Ctrl-C set: what is being submitted is finished first."""
    stop = threading.Event()
    before = {n: signal.signal(n, lambda *_: stop.set()) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print(event: WatchEvent) -> None:
    parts = [event.event, event.record, event.outcome, " ".join(event.export_ids), event.said]
    click.echo("  ".join(part for part in parts if part))


def _print_json(event: WatchEvent) -> None:
    click.echo(event.model_dump_json(exclude_defaults=True))


def _list(memory: Memory, as_json: bool) -> None:
    from labrelay.tables import remembered_table  # noqa: PLC0415

    records = sorted(memory.all().values(), key=lambda one: one.at)
    memory.close()
    print_json(records) if as_json else console().print(remembered_table(records))
