"""`labrelay`: the commands of the producer side; those of the worker side join through entry points.

Exit codes: 0 done; 1 an export was not delivered, or an unexpected failure; 2 bad input; 3 Redis or worker away, or
the outbox full; 4 no such export; 5 still running after --timeout; 6 conflict with an earlier submission; 7 of
`check`: all equal, but for what cannot be asked, and of `doctor`: warnings alone; 78 a worker cannot start.
"""

from __future__ import annotations

import sys
from importlib.metadata import entry_points, version
from typing import Any

import click

from labrelay.cli_parts import as_json, console, print_json
from labrelay.errors import LabrelayError
from labrelay.names import ENTRY_POINTS_COMMANDS

#: Commands that join through entry points print as these do.
__all__ = ["as_json", "console", "main", "print_json"]


class CommandGroup(click.Group):
    """Adds the commands of installed packages, and turns errors into one line and an exit code."""

    def _joined(self) -> dict[str, click.Command]:
        # `labrelay --version` need not load them.
        from labrelay.cli_dead import dead  # noqa: PLC0415
        from labrelay.cli_doctor import doctor  # noqa: PLC0415
        from labrelay.cli_metrics import metrics  # noqa: PLC0415
        from labrelay.cli_nexuslims import nexuslims  # noqa: PLC0415
        from labrelay.cli_outbox import COMMANDS as OF_THE_OUTBOX  # noqa: PLC0415
        from labrelay.cli_plan import plan  # noqa: PLC0415
        from labrelay.cli_settings import settings  # noqa: PLC0415
        from labrelay.cli_status import COMMANDS as OF_EXPORTS  # noqa: PLC0415
        from labrelay.cli_submit import submit  # noqa: PLC0415
        from labrelay.cli_watch import watch  # noqa: PLC0415

        found: dict[str, click.Command] = {
            "dead": dead,
            "doctor": doctor,
            "metrics": metrics,
            "nexuslims": nexuslims,
            "plan": plan,
            "settings": settings,
            "submit": submit,
            "watch": watch,
            **OF_EXPORTS,
            **OF_THE_OUTBOX,
        }
        for entry in entry_points(group=ENTRY_POINTS_COMMANDS):
            found.update(entry.load())
        return found

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return every command's name."""
        return sorted({*super().list_commands(ctx), *self._joined()})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Return a command by name."""
        return super().get_command(ctx, name) or self._joined().get(name)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; a `LabrelayError` becomes one line on standard error."""
        try:
            return super().invoke(ctx)
        except LabrelayError as error:
            one_line = " ".join(str(error).split())
            click.echo(f"labrelay: {one_line}", err=True)
            sys.exit(error.exit_code)


@click.group(cls=CommandGroup, help="Deliver finished instrument sessions: none lost, none twice.")
@click.version_option(version("labrelay"), prog_name="labrelay")
def main() -> None:
    """Entry point."""
