"""`labrelay nexuslims` and `labrelay settings --import-nexuslims`: for facilities that come from NexusLIMS."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from labrelay.cli_parts import as_json, console, destination_names, open_client, print_json
from labrelay.errors import LedgerUnavailable

_PATH = click.Path(path_type=Path)


@click.group()
def nexuslims() -> None:
    """Deliver what NexusLIMS built."""


@nexuslims.command(short_help="Submit the sessions that NexusLIMS left BUILT_NOT_EXPORTED.")
@click.argument("db", envvar="NX_DB_PATH", type=_PATH, metavar="DB")
@click.option("--write-back", is_flag=True, help="Write what is finished into upload_log and session_log.")
@click.option("--dry-run", is_flag=True, help="Say what would be submitted; change nothing.")
@click.option("--records", type=_PATH, help="Folder of the records; default: as NexusLIMS's settings say.")
@click.option("--env-file", type=_PATH, help="NexusLIMS's settings; default: .env here, under the environment.")
@click.option("--strategy", metavar="NAME", help="Default: NX_EXPORT_STRATEGY.")
@click.option("--destinations", callback=destination_names, metavar="A,B", help="Deliver to these only.")
@as_json
def sweep(
    db: Path,
    write_back: bool,
    dry_run: bool,
    records: Path | None,
    env_file: Path | None,
    strategy: str | None,
    destinations: list[str] | None,
    as_json: bool,
) -> None:
    """Submit the sessions that NexusLIMS left BUILT_NOT_EXPORTED, which it never tries again.

    DB is NexusLIMS's database (default: NX_DB_PATH). Running it again is harmless.

    Exit code 1: some sessions could not be submitted.
    """
    from labrelay.nexuslims.environment import nexuslims_settings  # noqa: PLC0415  it loads an XML parser
    from labrelay.nexuslims.sweeping import sweep as run  # noqa: PLC0415
    from labrelay.tables import sweep_table  # noqa: PLC0415

    with open_client() as client:
        report = run(
            db,
            write_back=write_back,
            dry_run=dry_run,
            records=records,
            strategy=strategy,
            destinations=destinations,
            settings=nexuslims_settings(env_file),
            client=client,
        )
    print_json(report) if as_json else console().print(sweep_table(report.sessions))
    if report.away:
        raise LedgerUnavailable(f"the sweep ended early, run it again: {report.away}")
    if report.refused:
        sys.exit(1)


def import_settings(env_file: Path | None, output: Path, *, force: bool, as_json: bool) -> None:
    """Write ``labrelay.toml`` from NexusLIMS's settings, and say what became of each."""
    from labrelay.nexuslims.environment import nexuslims_settings  # noqa: PLC0415
    from labrelay.nexuslims.importing import translate  # noqa: PLC0415
    from labrelay.nexuslims.writing import write  # noqa: PLC0415

    translation = translate(nexuslims_settings(env_file), output.absolute().parent)
    written = write(translation, output, force=force)
    if translation.secrets:
        translation.note("to do", f"set LABRELAY_SECRETS_DIR={written[-1].parent} for the workers")
    if as_json:
        notes = [{"kind": kind, "text": text} for kind, text in translation.notes]
        print_json({"written": [str(path) for path in written], "notes": notes})
        return
    for path in written:
        click.echo(f"written  {path}")
    for kind, text in translation.notes:
        click.echo(f"{kind:<8} {text}")
