"""How exports, trails and plans look in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from labrelay.deadletters import troubles_of
from labrelay.outbox import Spooled
from labrelay.plans import Plan
from labrelay.priorities import Priority
from labrelay.results import DeliveryState, DeliveryStatus, ExportState, ExportStatus, Submission, TrailEntry
from labrelay.settings import EffectiveOption

if TYPE_CHECKING:
    from labrelay.doctor.findings import Finding
    from labrelay.inbox.memory import Remembered
    from labrelay.nexuslims import SweptSession

_COLOURS = {
    "delivered": "green",
    "skipped": "dim",
    "dead": "red",
    "failed": "red",
    "unknown": "magenta",
    "retrying": "yellow",
    "waiting": "yellow",
    "conflict": "red",
    "refused": "red",
    "spooled": "yellow",
}


def coloured(state: str) -> Text:
    """Return a state in its colour."""
    return Text(str(state), style=_COLOURS.get(str(state), ""))


def exports_table(exports: Sequence[ExportStatus], title: str | None = None) -> Table:
    """Return exports with one column per destination."""
    names = list(dict.fromkeys(d.destination for export in exports for d in export.deliveries))
    table = Table(title=title, title_justify="left")
    told = any(export.priority is not Priority.NORMAL for export in exports)
    for heading in ("session", "instrument", *(["priority"] if told else []), "state"):
        table.add_column(heading, overflow="fold")
    for name in names:
        table.add_column(name, overflow="fold")
    table.add_column("export id", no_wrap=True)
    for export in exports:
        by_name = {d.destination: d for d in export.deliveries}
        state = coloured("cancelling" if export.cancelling else export.state)
        cells = [_cell(by_name.get(name)) for name in names]
        priority = [str(export.priority)] if told else []
        table.add_row(export.session_identifier, export.instrument_pid, *priority, state, *cells, export.export_id)
    return table


def _cell(delivery: DeliveryStatus | None) -> Text:
    if delivery is None:
        return Text("-", style="dim")
    text = coloured(delivery.state)
    if delivery.state is DeliveryState.RETRYING:
        text.append(f" (attempt {delivery.attempts}: {delivery.error_kind})")
    return _marked(text, delivery)


def _marked(text: Text, delivery: DeliveryStatus) -> Text:
    """Say what a person must not overlook: an outcome that is not known, and a receipt that was not answered."""
    if delivery.in_doubt and delivery.state is not DeliveryState.SENDING:
        text.append(" (in doubt)", style="magenta")
    elif delivery.receipt is not None and delivery.receipt.adopted:
        text.append(" (adopted)")
    if delivery.receipt is not None and delivery.receipt.unlinked:
        text.append(f" (no link to {' and '.join(delivery.receipt.unlinked)} yet)", style="yellow")
    return text


def status_table(export: ExportStatus) -> Table:
    """Return one export with a row per destination."""
    priority = "" if export.priority is Priority.NORMAL else f" ({export.priority})"
    table = Table(title=f"{export.export_id}: {export.state}{priority}  {export.summary}", title_justify="left")
    if export.archived is not None:
        where = export.archived
        table.caption = Text(f"archived on {where.at:%Y-%m-%d} ({where.why}): {where.file} on {where.host}")
    for heading in ("destination", "state", "attempts", "record", "verified / error"):
        table.add_column(heading, overflow="fold")
    for delivery in export.deliveries:
        receipt = delivery.receipt
        record = (receipt.record_url or receipt.record_id or "") if receipt else ""
        detail = receipt.verified if receipt else delivery.error_message or delivery.reason or ""
        state = _marked(coloured(delivery.state), delivery)
        table.add_row(delivery.destination, state, str(delivery.attempts), Text(record), Text(detail))
    return table


def letters_table(letters: Sequence[ExportStatus]) -> Table:
    """Return dead letters with what went wrong at each destination."""
    table = Table()
    for heading in ("since (UTC)", "session", "instrument", "state", "what happened"):
        table.add_column(heading, overflow="fold")
    table.add_column("export id", no_wrap=True)
    for letter in letters:
        troubles = "\n".join(_trouble(delivery) for delivery in troubles_of(letter))
        table.add_row(
            f"{letter.updated:%Y-%m-%d %H:%M}",
            Text(letter.session_identifier),
            Text(letter.instrument_pid),
            coloured(letter.state),
            Text(letter.summary + ("\n" + troubles if troubles else "")),
            letter.export_id,
        )
    return table


def _trouble(delivery: DeliveryStatus) -> str:
    doubt = " (in doubt)" if delivery.in_doubt else ""
    why = delivery.error_message or delivery.reason or "its worker ended while sending"
    kind = f" {delivery.error_kind}:" if delivery.error_kind else ""
    return f"{delivery.destination}{doubt}:{kind} {why}"


def submissions_table(pairs: Iterable[tuple[str, Submission]]) -> Table:
    """Return what became of each submitted session."""
    table = Table()
    for heading in ("session", "outcome", "state", "revision"):
        table.add_column(heading, overflow="fold")
    table.add_column("export id", no_wrap=True)
    for session, submission in pairs:
        outcome, state = coloured(submission.outcome), coloured(submission.state)
        table.add_row(session, outcome, state, str(submission.revision), submission.export_id)
    return table


def outbox_table(entries: Sequence[Spooled]) -> Table:
    """Return what the outbox holds, oldest first."""
    table = Table()
    for heading in ("no", "session", "instrument", "state", "submitted (UTC)", "kB", "reason"):
        table.add_column(heading, overflow="fold")
    table.add_column("export id", no_wrap=True)
    for entry in entries:
        at, size = f"{entry.submitted:%Y-%m-%d %H:%M:%S}", f"{entry.bytes / 1000:.1f}"
        session, instrument, state = entry.session_identifier, entry.instrument_pid, coloured(entry.state)
        table.add_row(str(entry.number), session, instrument, state, at, size, Text(entry.reason), entry.export_id)
    return table


def remembered_table(records: Sequence[Remembered]) -> Table:
    """Return what a watched folder's records came to, oldest first."""
    table = Table()
    for heading in ("record", "outcome", "since (UTC)", "reason", "export ids"):
        table.add_column(heading, overflow="fold")
    for one in records:
        at = f"{datetime.fromtimestamp(one.at, UTC):%Y-%m-%d %H:%M:%S}"
        table.add_row(Text(one.record), coloured(one.outcome), at, Text(one.reason), "\n".join(one.export_ids))
    return table


def trail_table(entries: Sequence[TrailEntry]) -> Table:
    """Return the steps of one export."""
    table = Table()
    for heading in ("time (UTC)", "event", "destination", "worker", "detail"):
        table.add_column(heading, overflow="fold")
    for entry in entries:
        at = f"{entry.at:%Y-%m-%d %H:%M:%S}.{entry.at.microsecond // 1000:03d}"
        table.add_row(at, coloured(entry.event), entry.destination or "", entry.worker, Text(entry.detail))
    return table


def counts_line(counts: dict[ExportState, int]) -> Text:
    """Return how many exports are in each state."""
    return Text("  ").join([Text(f"{state}: {count}") for state, count in counts.items()])


def plan_table(plan: Plan) -> Table:
    """Return what would happen, in order."""
    title = f"strategy {plan.strategy}; taken as {plan.priority}; destinations: {plan.because}"
    table = Table(title=title, title_justify="left")
    for heading in ("", "destination", "type", "priority", "what happens"):
        table.add_column(heading, overflow="fold")
    for step in plan.steps:
        mark = Text("✓", style="green") if step.runs else Text("-", style="dim")
        table.add_row(mark, step.destination, step.type, str(step.priority), Text(step.explanation))
    return table


def settings_table(options: Sequence[EffectiveOption]) -> Table:
    """Return the options in force with where each came from."""
    table = Table()
    for heading in ("option", "value", "source", "meaning"):
        table.add_column(heading, overflow="fold")
    for option in options:
        table.add_row(option.name, Text(option.value), Text(option.source), Text(option.help))
    return table


def findings_table(findings: Sequence[Finding]) -> Table:
    """Return what `labrelay doctor` found."""
    table = Table()
    for heading in ("", "what", "problem", "repair", "code"):
        table.add_column(heading, overflow="fold")
    for one in findings:
        severity = Text(str(one.severity), style=_SEVERITIES[one.severity])
        table.add_row(severity, Text(one.subject), Text(one.problem), Text(one.repair), Text(one.code))
    return table


_SEVERITIES = {"error": "red", "warning": "yellow", "note": "dim"}


def sweep_table(sessions: Sequence[SweptSession]) -> Table:
    """Return what a sweep did, session by session."""
    table = Table(title=f"{len(sessions)} sessions", title_justify="left")
    for heading in ("session", "instrument", "outcome", "state", "written back", "reason"):
        table.add_column(heading, overflow="fold")
    table.add_column("export id", no_wrap=True)
    for one in sessions:
        name, instrument = one.session_identifier, one.instrument_pid
        outcome, state, written = coloured(one.outcome), coloured(one.state), str(one.written or "")
        table.add_row(name, instrument, outcome, state, written, one.reason, one.export_id)
    return table
