"""`labrelay plan`: what would happen to a context."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from labrelay.cli_parts import as_json, console, first_of, open_client, print_json, selection
from labrelay.errors import LedgerUnavailable
from labrelay.names import ENTRY_POINTS_THIS_MACHINE
from labrelay.results import WorkerInfo
from labrelay.settings import ProducerSettings, load_settings


@click.command(short_help="Explain what would happen to a context.")
@click.argument("file", metavar="FILE")
@selection
@as_json
def plan(
    file: str,
    root: Path | None,
    session: str | None,
    strategy: str | None,
    destinations: list[str] | None,
    priority: str | None,
    as_json: bool,
) -> None:
    """Explain what would happen to a context: priority, order, waits and skips. Sends nothing."""
    from labrelay.inputs import read_contexts  # noqa: PLC0415
    from labrelay.manifest import make_manifest  # noqa: PLC0415
    from labrelay.plans import make_plan  # noqa: PLC0415
    from labrelay.priorities import parse_priority, priority_of, usual_priority  # noqa: PLC0415
    from labrelay.tables import plan_table  # noqa: PLC0415

    options = load_settings(ProducerSettings)
    asked = parse_priority(priority) if priority else None
    contexts = list(read_contexts(file, root=root, session=session, limit=options.max_context_bytes))
    for context in contexts:
        make_manifest(context, options)
    workers = _workers_or_this_machine()
    named = tuple(destinations or ())
    usual = usual_priority(len(contexts))
    soon = [asked or priority_of(context.instrument_pid, options.priorities, usual) for context in contexts]
    plans = [
        make_plan(context.instrument_pid, strategy, named, workers, priority)
        for context, priority in zip(contexts, soon, strict=True)
    ]
    if as_json:
        print_json(plans)
    else:
        for each in plans:
            console().print(plan_table(each))


def _workers_or_this_machine() -> Sequence[WorkerInfo]:
    """Return what the running workers serve; without any, what one with this machine's settings would."""
    try:
        with open_client() as client:
            workers = client.ledger.workers()
    except LedgerUnavailable:
        workers = []
    if not workers and (described := first_of(ENTRY_POINTS_THIS_MACHINE)) is not None:
        click.echo("labrelay: no worker is running; one with the settings of this machine would do this", err=True)
        workers = [described]
    return workers
