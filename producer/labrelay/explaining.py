"""What pydantic refuses of a context, on one line that names the field and the cure."""

from __future__ import annotations

from pydantic import ValidationError

from labrelay.errors import InvalidInput

_CURES = {
    "extra_forbidden": "Remove it or correct its spelling; the schema lists every field",
    "missing": "Add it",
    "timezone_aware": "Add the offset, e.g. 2026-11-21T10:00:00+01:00",
    "json_invalid": "Give one JSON object, or one per line in a .jsonl file",
}


def explain(error: ValidationError, source: str) -> InvalidInput:
    """Return the error that names the first refused field, what is wrong and the cure; `source` names the whole."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    problem = (
        "unknown field"
        if first["type"] == "extra_forbidden"
        else first["msg"].removeprefix("Value error, ").rstrip(".")
    )
    cure = _CURES.get(first["type"], "Correct it as the schema of labrelay.export_context/1 says")
    return InvalidInput(field or source, problem + more, cure)
