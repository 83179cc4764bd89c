"""`labrelay restored`: tell the ledger that it comes from a backup."""

from __future__ import annotations

import click

from labrelay.cli import as_json, print_json


@click.command("restored", short_help="After a restore of Redis: doubt what is unfinished.")
@as_json
def restored(as_json: bool) -> None:
    """Mark what is unfinished as doubtful, after Redis was restored from a backup and before workers start.

    Since the backup it may have been delivered: destinations are asked before anything is sent again, and what cannot
    be asked is parked for a person. Exit code 2: workers are running.
    """
    from labrelay_worker.restoring import doubt_unfinished  # noqa: PLC0415
    from labrelay_worker.settings import load_worker_settings  # noqa: PLC0415

    doubted = doubt_unfinished(load_worker_settings())
    if as_json:
        print_json(vars(doubted))
        return
    click.echo(
        f"{doubted.exports} unfinished exports: {doubted.deliveries} deliveries may have been made since the backup. "
        "Start the workers: destinations are asked first, and `labrelay dead list` shows what needs a person"
    )
