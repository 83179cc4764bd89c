"""How Flower shows a task: its exports one below the other, as they stand now, with links and without secrets."""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from labrelay.redaction import redact
from labrelay.results import ExportState
from labrelay_worker.telling import SEPARATOR

#: Celery's words have colours and filters in Flower; labrelay's own stand in the result.
CELERY_STATES: Mapping[ExportState, str] = {
    ExportState.DEAD: "FAILURE",
    ExportState.UNKNOWN: "FAILURE",
    ExportState.WAITING: "RETRY",
    ExportState.QUEUED: "RETRY",
    ExportState.RUNNING: "STARTED",
    ExportState.CANCELLED: "REVOKED",
    ExportState.DELIVERED: "SUCCESS",
}
_WORST_FIRST = ("FAILURE", "RETRY", "STARTED", "REVOKED", "SUCCESS")
_EXPORT_ID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
_SHOWN_AS_THEY_ARE = ("args", "kwargs", "exception", "traceback")
#: A task may hold anything; what `redact` looks at in one go is bounded.
_LONGEST_LINE, _LONGEST = 2000, 40_000

#: Instrument, strategy and export id end every told text; they share a line.
_WHOSE = 3

#: Answers for each export how it stands in the ledger now (`telling.tell_status`), None where that is not known.
Lookup = Callable[[str], str | None]


def format_task(task: Any, standing: Lookup) -> Any:
    """Return the task as people read it; never raises, whatever a task holds.

    Parameters
    ----------
    task
        A copy of Celery's task, whose attributes may be set.
    standing
        Asks the ledger.
    """
    try:
        _show_exports(task, standing)
    except Exception:  # noqa: BLE001  a task that cannot be shown must not take the page down
        _set(task, "result", "[not shown]")
    for name in _SHOWN_AS_THEY_ARE:
        value = getattr(task, name, None)
        if value is not None:
            try:
                _set(task, name, _masked(value if isinstance(value, str) else repr(value)))
            except Exception:  # noqa: BLE001
                _set(task, name, "[not shown]")
    return task


def parse_told(text: str | None) -> dict[str, str] | None:
    """Return what a task told of its exports, by session; None: it is something else, or cut off."""
    try:
        told = ast.literal_eval(text or "")
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    if not isinstance(told, dict) or not all(isinstance(part, str) for pair in told.items() for part in pair):
        return None
    return told


def state_of(text: str) -> ExportState | None:
    """Return the state that a told text begins with."""
    try:
        return ExportState(text.partition(":")[0])
    except ValueError:
        return None


def _show_exports(task: Any, standing: Lookup) -> None:
    said = next((text for name in ("result", "exception") if (text := getattr(task, name, None))), None)
    told = parse_told(said)
    if told is None:
        if getattr(task, "result", None) is not None:
            _set(task, "result", _masked(str(task.result)))
        return
    now = {session: _present(session, text, standing) for session, text in told.items()}
    lines = [_block(session, text, now[session]) for session, text in told.items()]
    _set(task, "result", _masked("\n".join(lines)))
    _set(task, "exception", None)
    _set(task, "traceback", None)
    states = {CELERY_STATES[state] for text in now.values() if (state := state_of(text)) is not None}
    if states:
        _set(task, "state", next(word for word in _WORST_FIRST if word in states))


def _present(session: str, text: str, standing: Lookup) -> str:
    """Return the text as it is now: what was delivered or cancelled stays so, all else may have gone on."""
    if state_of(text) in (ExportState.DELIVERED, ExportState.CANCELLED):
        return text
    found = _EXPORT_ID.findall(text) or _EXPORT_ID.findall(session)
    present = standing(found[-1]) if found else None
    # Unchanged, the task's own words say more: which strategy was in force.
    return text if present is None or _head(present) == _head(text) else present


def _block(session: str, text: str, present: str) -> str:
    head, *details = present.split(SEPARATOR)
    if state_of(text) is not None and text is not present:
        head += f" (when this task ended: {_head(text)})"
    places, whose = details[:-_WHOSE], details[-_WHOSE:]
    lines = [f"{session}: {head}", *(f"{SEPARATOR.strip()} {place}" for place in places), SEPARATOR.join(whose)]
    return "\n".join(line for line in lines if line)


def _head(text: str) -> str:
    return text.split(SEPARATOR, maxsplit=1)[0]


def _masked(text: str) -> str:
    cut = text[:_LONGEST] + (" …" if len(text) > _LONGEST else "")
    return "\n".join(redact(line[:_LONGEST_LINE]) for line in cut.split("\n"))


def _set(task: Any, name: str, value: str | None) -> None:
    with contextlib.suppress(Exception):
        setattr(task, name, value)
