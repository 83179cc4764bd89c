"""`labrelay status`, `list`, `trail` and `cancel`: how exports stand."""

from __future__ import annotations

import click

from labrelay.cli_parts import as_json, console, open_client, print_json
from labrelay.errors import InvalidInput
from labrelay.results import ExportState


@click.command(short_help="Show how an export stands, or how many are in each state.")
@click.argument("export_id", required=False, metavar="[ID]")
@click.option("--session", metavar="S", help="Every export of this session instead of one by id.")
@as_json
def status(export_id: str | None, session: str | None, as_json: bool) -> None:
    """Show how an export stands; without ID, how many are in each state."""
    from labrelay.tables import counts_line, exports_table, status_table  # noqa: PLC0415

    with open_client() as client:
        if session is not None:
            exports = [client.status(found) for found in client.ledger.ids_of_session(session)]
            if not exports:
                raise InvalidInput("--session", f"no export of {session!r}", "`labrelay list` shows what there is")
            print_json(exports) if as_json else console().print(exports_table(exports))
        elif export_id is not None:
            export = client.status(export_id)
            print_json(export) if as_json else console().print(status_table(export))
        else:
            counts = client.ledger.counts()
            print_json({str(k): v for k, v in counts.items()}) if as_json else console().print(counts_line(counts))


@click.command("list")
@click.option("--state", type=click.Choice([str(state) for state in ExportState]), help="Only exports in this state.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="At most so many, the latest changes first.",
)
@click.option("--before", metavar="T", help="Only those last changed before 30m, 2h, 3d ago, or an ISO date.")
@as_json
def list_(state: str | None, limit: int, before: str | None, as_json: bool) -> None:
    """List exports."""
    from labrelay.deadletters import parse_since  # noqa: PLC0415
    from labrelay.tables import exports_table  # noqa: PLC0415

    with open_client() as client:
        latest = parse_since(before, client.dead_letters.now(), option="--before") if before else None
        exports = client.ledger.recent(ExportState(state) if state else None, limit=limit, before=latest)
    print_json(exports) if as_json else console().print(exports_table(exports))


@click.command()
@click.argument("export_id", metavar="ID")
@as_json
def trail(export_id: str, as_json: bool) -> None:
    """Show everything that happened to an export."""
    from labrelay.tables import trail_table  # noqa: PLC0415

    with open_client() as client:
        entries = client.trail(export_id)
    print_json(entries) if as_json else console().print(trail_table(entries))


@click.command(short_help="Cancel an export; a running call is finished first.")
@click.argument("export_id", metavar="ID")
@as_json
def cancel(export_id: str, as_json: bool) -> None:
    """Cancel an export; a running destination call is finished first."""
    with open_client() as client:
        answer = client.cancel(export_id)
    print_json({"export_id": export_id, "answer": answer}) if as_json else click.echo(f"{export_id}: {answer}")
    if answer not in ("cancelled", "cancelling"):
        click.echo(f"labrelay: it was {answer} already, nothing was changed", err=True)


COMMANDS: dict[str, click.Command] = {"status": status, "list": list_, "trail": trail, "cancel": cancel}
