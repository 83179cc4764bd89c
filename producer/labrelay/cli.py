"""`labrelay`: the commands of the producer side; those of the worker side join through entry points.

Exit codes: 0 done; 1 an export was not delivered, or an unexpected failure; 2 bad input; 3 Redis or worker away, or
the outbox full; 4 no such export; 5 still running after --timeout; 6 conflict with an earlier submission; 7 of
`check`: all equal, but for what cannot be asked, and of `doctor`: warnings alone; 78 a worker cannot start.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console

from labrelay import logs
from labrelay.errors import InvalidInput, LabrelayError, LedgerUnavailable, WaitTimeout
from labrelay.names import ENTRY_POINTS_COMMANDS, ENTRY_POINTS_SETTINGS, ENTRY_POINTS_THIS_MACHINE
from labrelay.results import ExportState, ExportStatus, WorkerInfo
from labrelay.settings import ProducerSettings, effective_options, load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel

    from labrelay.client import Client

_REFRESH = 0.2
Command = TypeVar("Command", bound=Callable[..., Any])

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


class CommandGroup(click.Group):
    """Adds the commands of installed packages, and turns errors into one line and an exit code."""

    def _joined(self) -> dict[str, click.Command]:
        # They use what this module defines.
        from labrelay.cli_dead import dead  # noqa: PLC0415
        from labrelay.cli_doctor import doctor  # noqa: PLC0415
        from labrelay.cli_metrics import metrics  # noqa: PLC0415
        from labrelay.cli_nexuslims import nexuslims  # noqa: PLC0415
        from labrelay.cli_outbox import COMMANDS  # noqa: PLC0415
        from labrelay.cli_watch import watch  # noqa: PLC0415

        found: dict[str, click.Command] = {
            "dead": dead,
            "doctor": doctor,
            "metrics": metrics,
            "nexuslims": nexuslims,
            "watch": watch,
            **COMMANDS,
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


def _selection(command: Command) -> Command:
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


@main.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE…")
@_selection
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
            _watch(client, ids, timeout=timeout, as_json=as_json)
    if conflicts:
        sys.exit(6)


def _watch(client: Client, ids: Sequence[str], *, timeout: float | None, as_json: bool) -> None:
    """Show exports until they are finished; exit code 1 unless all are delivered, 5 when time is up."""
    from rich.live import Live  # noqa: PLC0415

    from labrelay.tables import exports_table  # noqa: PLC0415

    deadline = None if timeout is None else time.monotonic() + timeout
    quiet = as_json or not sys.stdout.isatty()
    exports: list[ExportStatus] = []
    with Live(console=console(), auto_refresh=False, transient=False) if not quiet else _nothing() as live:
        while True:
            # What the outbox holds has no status yet, and goes on by itself as well.
            spooled = client.spooled(ids)
            exports = [client.status(export_id) for export_id in ids if export_id not in spooled]
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
    if unfinished:
        raise WaitTimeout(f"{len(unfinished)} of {len(ids)} exports are not finished after {timeout:g} s; they go on")
    if any(export.state is not ExportState.DELIVERED for export in exports):
        sys.exit(1)


@contextmanager
def _nothing() -> Iterator[None]:
    yield None


@main.command()
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


@main.command("list")
@click.option("--state", type=click.Choice([str(state) for state in ExportState]), help="Only exports in this state.")
@click.option("--limit", default=50, show_default=True, help="At most so many, the latest changes first.")
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


@main.command()
@click.argument("export_id", metavar="ID")
@as_json
def trail(export_id: str, as_json: bool) -> None:
    """Show everything that happened to an export."""
    from labrelay.tables import trail_table  # noqa: PLC0415

    with open_client() as client:
        entries = client.trail(export_id)
    print_json(entries) if as_json else console().print(trail_table(entries))


@main.command()
@click.argument("export_id", metavar="ID")
@as_json
def cancel(export_id: str, as_json: bool) -> None:
    """Cancel an export; a running destination call is finished first."""
    with open_client() as client:
        answer = client.cancel(export_id)
    print_json({"export_id": export_id, "answer": answer}) if as_json else click.echo(f"{export_id}: {answer}")
    if answer not in ("cancelled", "cancelling"):
        click.echo(f"labrelay: it was {answer} already, nothing was changed", err=True)


@main.command()
@click.argument("file", metavar="FILE")
@_selection
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


@main.command()
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


def first_of(group: str) -> Any:
    """Call what an installed worker package offers under an entry point group, or return None."""
    for entry in entry_points(group=group):
        return entry.load()()
    return None
