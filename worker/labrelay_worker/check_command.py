"""`labrelay check`: an audit of what was delivered, for people and for monitoring."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from labrelay.cli import as_json, print_json
from labrelay.deadletters import parse_since
from labrelay.results import ExportState

if TYPE_CHECKING:
    from labrelay_worker.auditing.report import AuditLine, AuditSummary
    from labrelay_worker.auditing.running import Audit

_ENDINGS = (signal.SIGINT, signal.SIGTERM)


@click.command("check", short_help="Ask whether what was delivered is still there and equal.")
@click.option("--since", metavar="TIME", help="Only what was delivered since: 2h, 3d, or an ISO date.")
@click.option("--destination", "destinations", multiple=True, metavar="NAME", help="Only these; may be repeated.")
@click.option("--state", type=click.Choice([str(state) for state in ExportState]), help="Only exports in this state.")
@click.option("--archived", is_flag=True, help="Exports that left Redis for this machine's archive, too.")
@click.option("--report", type=click.Path(path_type=Path, dir_okay=False), help="Append a JSON line a delivery.")
@click.option("--resume", is_flag=True, help="Go on with --report: do not ask again what it knows.")
@as_json
def check(
    since: str | None,
    destinations: tuple[str, ...],
    state: str | None,
    archived: bool,
    report: Path | None,
    resume: bool,
    as_json: bool,
) -> None:
    """Ask the destinations whether what was delivered is still there and equal. Changes nothing there.

    A line each: = there and equal, - missing, * different, ! could not be asked.

    Exit code 0: all equal. 1: something is missing or different. 3: something was not asked, because a destination
    or Redis is away or it was interrupted. 7: all equal, but for what cannot be asked at all. 2: bad input.
    """
    from labrelay.errors import InvalidInput  # noqa: PLC0415
    from labrelay_worker.auditing.delivered import DeliveredList, Wanted  # noqa: PLC0415
    from labrelay_worker.auditing.report import ReportFile  # noqa: PLC0415
    from labrelay_worker.auditing.running import Audit  # noqa: PLC0415
    from labrelay_worker.settings import load_worker_settings  # noqa: PLC0415

    if resume and report is None:
        raise InvalidInput("--resume", "there is no report to go on with", "Add --report FILE")
    settings = load_worker_settings()
    after: datetime | None = None
    if since:
        with DeliveredList(settings) as listed:
            after = parse_since(since, listed.now())
    wanted = Wanted(after, frozenset(destinations), ExportState(state) if state else None, archived)
    lines: list[AuditLine] = []
    with ExitStack() as stack:
        file = ReportFile(report, resume=resume) if report else None
        if file is not None:
            stack.callback(file.close)
        audit = Audit(
            settings,
            wanted,
            report=file,
            show=lines.append if as_json else _print_line,
            progress=_progress(stack, quiet=as_json or not sys.stderr.isatty()),
        )
        summary = asyncio.run(_interruptible(audit))
    if as_json:
        print_json({"summary": summary.model_dump(), "deliveries": [line.model_dump(mode="json") for line in lines]})
    else:
        _print_summary(summary, report)
    sys.exit(summary.exit_code)


async def _interruptible(audit: Audit) -> AuditSummary:
    loop = asyncio.get_running_loop()
    for number in _ENDINGS:
        loop.add_signal_handler(number, audit.stop)
    return await audit.run()


def _print_line(line: AuditLine) -> None:
    where = line.record_url or line.record_id or line.export_id
    click.echo(f"{line.mark} {line.destination or '(archived)'}  {line.session_identifier}  {where}  {line.said}")


def _print_summary(summary: AuditSummary, report: Path | None) -> None:
    parts = [
        f"{count} {word}"
        for count, word in (
            (summary.equal, "equal"),
            (summary.missing, "missing"),
            (summary.differs, "different"),
            (summary.unknown, "not known"),
        )
        if count
    ]
    said = [f"{summary.asked} deliveries: {', '.join(parts) or 'nothing to ask about'}"]
    if summary.cannot_be_asked:
        said.append(f"{summary.cannot_be_asked} of them cannot be asked about at all")
    if summary.taken_over:
        said.append(f"{summary.taken_over} were known from the report")
    if summary.archived_left_out:
        said.append(f"{summary.archived_left_out} archived exports were left out; --archived asks about those, too")
    if summary.interrupted:
        said.append("interrupted" + ("; --resume goes on" if report else "; with --report it could be resumed"))
    click.echo(f"labrelay: {'; '.join(said)}", err=True)


def _progress(stack: ExitStack, *, quiet: bool) -> Callable[[int, int], None]:
    if quiet:
        return lambda done, total: None
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import MofNCompleteColumn, Progress  # noqa: PLC0415

    bar = stack.enter_context(
        Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=Console(stderr=True))
    )
    task = bar.add_task("exports", total=None)
    return lambda done, total: bar.update(task, completed=done, total=total)
