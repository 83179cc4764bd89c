"""`labrelay submit`: hand sessions over, and watch them arrive."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from labrelay.cli_parts import as_json, console, open_client, print_json, selection
from labrelay.errors import WaitTimeout
from labrelay.results import ExportState, ExportStatus
from labrelay.settings import ProducerSettings, load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from labrelay.client import Client

_REFRESH = 0.2


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE…")
@selection
@click.option("--replace", is_flag=True, help="Make a new revision of a session submitted before.")
@click.option("--wait", "wait_", is_flag=True, help="Wait until every export is finished, and show it.")
@click.option("--timeout", type=float, metavar="S", help="Give up waiting after S seconds (exit code 5).")
@as_json
def submit(  # noqa: PLR0917  click passes options by name
    files: tuple[str, ...],
    root: Path | None,
    session: str | None,
    strategy: str | None,
    destinations: list[str] | None,
    priority: str | None,
    replace: bool,
    wait_: bool,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Submit sessions for export.

    FILE is a context (JSON), several contexts (one a line), or a Nexus record (XML); - reads standard input.
    """
    from labrelay.inputs import read_contexts  # noqa: PLC0415
    from labrelay.priorities import parse_priority  # noqa: PLC0415
    from labrelay.strategies import parse_strategy  # noqa: PLC0415
    from labrelay.tables import submissions_table  # noqa: PLC0415

    if strategy:
        parse_strategy(strategy)
    if priority:
        parse_priority(priority)
    limit = load_settings(ProducerSettings).max_context_bytes
    contexts = [c for file in files for c in read_contexts(file, root=root, session=session, limit=limit)]
    refused = False
    with open_client(background_flush=wait_) as client:
        submissions = client.submit_many(
            contexts, strategy, destinations=destinations, replace=replace, priority=priority
        )
        conflicts = [s for s in submissions if s.outcome == "conflict"]
        for warning in dict.fromkeys(w for s in submissions for w in s.warnings):
            click.echo(f"labrelay: {warning}", err=True)
        if not wait_:
            if as_json:
                print_json(submissions)
            else:
                sessions = [c.session_identifier for c in contexts]
                console().print(submissions_table(zip(sessions, submissions, strict=True)))
        else:
            ids = [s.export_id for s in submissions if s.outcome != "conflict"]
            late = [s.export_id for s in submissions if s.is_spooled]
            refused = _watch(client, ids, late, timeout=timeout, as_json=as_json)
    if conflicts or refused:
        sys.exit(6)


def _watch(client: Client, ids: Sequence[str], late: Sequence[str], *, timeout: float | None, as_json: bool) -> bool:
    """Show exports until they are finished; exit code 1 unless all are delivered, 5 when time is up.

    Returns whether the ledger refused any of those that came late, out of the outbox.
    """
    from rich.live import Live  # noqa: PLC0415

    from labrelay.tables import exports_table  # noqa: PLC0415

    deadline = None if timeout is None else time.monotonic() + timeout
    quiet = as_json or not sys.stdout.isatty()
    exports: list[ExportStatus] = []
    refused: dict[str, str] = {}
    with Live(console=console(), auto_refresh=False, transient=False) if not quiet else _nothing() as live:
        while True:
            # What the outbox holds has no status yet, and goes on by itself as well.
            spooled = client.spooled(ids)
            # The status of one that was refused is that of what was submitted before it.
            refused = client.refused(late) if late else {}
            followed = [export_id for export_id in ids if export_id not in spooled and export_id not in refused]
            exports = [client.status(export_id) for export_id in followed]
            if live is not None:
                live.update(exports_table(exports), refresh=True)
            unfinished = [*spooled, *(export.export_id for export in exports if not export.state.is_final)]
            if not unfinished or (deadline is not None and time.monotonic() >= deadline):
                break
            time.sleep(_REFRESH)
    if as_json:
        print_json(exports)
    elif quiet:
        console().print(exports_table(exports))
    for why in refused.values():
        click.echo(f"labrelay: {why}", err=True)
    if unfinished:
        raise WaitTimeout(f"{len(unfinished)} of {len(ids)} exports are not finished after {timeout:g} s; they go on")
    if any(export.state is not ExportState.DELIVERED for export in exports):
        sys.exit(1)
    return bool(refused)


@contextmanager
def _nothing() -> Iterator[None]:
    yield None
