"""`labrelay settings`: what is in force, and where it came from."""

from __future__ import annotations

from pathlib import Path

import click

from labrelay.cli_parts import as_json, console, first_of, print_json
from labrelay.errors import InvalidInput
from labrelay.names import ENTRY_POINTS_SETTINGS
from labrelay.settings import ProducerSettings, effective_options, load_settings


@click.command(short_help="Show the settings in force, and where each came from.")
@click.option("--import-nexuslims", is_flag=True, help="Write labrelay.toml from NexusLIMS's NX_* settings instead.")
@click.option("--env-file", type=click.Path(path_type=Path), help="Import: NexusLIMS's .env; default: the one here.")
@click.option("--output", type=click.Path(path_type=Path), help="Import: file to write; default: labrelay.toml here.")
@click.option("--force", is_flag=True, help="Import: overwrite what is there.")
@as_json
def settings(import_nexuslims: bool, env_file: Path | None, output: Path | None, force: bool, as_json: bool) -> None:
    """Show the settings in force, where each came from, and what it means; secrets are masked."""
    if import_nexuslims:
        from labrelay.cli_nexuslims import import_settings  # noqa: PLC0415

        import_settings(env_file, output or Path("labrelay.toml"), force=force, as_json=as_json)
        return
    if env_file or output or force:
        raise InvalidInput(
            "settings", "--env-file, --output and --force belong to an import", "Add --import-nexuslims"
        )
    from labrelay.tables import settings_table  # noqa: PLC0415

    options = effective_options(_most_settings())
    print_json(options) if as_json else console().print(settings_table(options))


def _most_settings() -> ProducerSettings:
    return first_of(ENTRY_POINTS_SETTINGS) or load_settings(ProducerSettings)
