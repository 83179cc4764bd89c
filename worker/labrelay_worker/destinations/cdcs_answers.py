"""What a CDCS server's answers mean: statuses and messages to errors typed by what to do.

CDCS answers 403 to a bad token as well as to a missing right, and 500 to XML that it refuses (measured on
core_main_app 2.18 and 2.23).
"""

from __future__ import annotations

import json
import re
from typing import Any

from labrelay.errors import DeliveryError, Misconfigured, OutcomeUnknown, Rejected, Transient
from labrelay_worker.http_answers import Answer, error_of

#: Answers of 403 that are about the token itself.
_CREDENTIALS = re.compile(r"credentials|invalid token|token header|user inactive", re.IGNORECASE)
#: Messages of 500 about what was sent: libxml2's and the REST framework's.
_DOCUMENT = re.compile(
    r"line \d+|Element '|Attribute '|Entity '|No matching global|parse error|Unsupported media type"
    r"|Start tag expected|Document is empty|not well.formed|namespace|invalid format|validation|Resource limit"
    r"|xmlSAX2|\bPID\b",
    re.IGNORECASE,
)
_RIGHTS = re.compile(r"enough rights|permission|not allowed|access denied", re.IGNORECASE)
_PID_TAKEN = re.compile(r"PID already defined|error occurred while assigning PID", re.IGNORECASE)
_SHOWN = 600


class MissingRight(Misconfigured):
    """The token is good, but its account may not do this."""


class NotThere(Rejected):
    """CDCS has no such record, user, template or workspace."""


class PidTaken(Transient):
    """CDCS has a record with this PID already, or is making it at this moment."""


class WorkspaceRefused(Rejected):
    """CDCS does not take the workspace along with a new record; nothing was created."""


def refusal(answer: Answer, doing: str, *, safe: bool = False) -> DeliveryError | None:
    """Return the error an answer stands for, or None for success.

    Parameters
    ----------
    answer
        What the server answered.
    doing
        What was asked for, for the error text, e.g. ``creating the record``.
    safe
        Whether the request changed nothing, so that a failure of the server leaves no doubt.
    """
    if 200 <= answer.status < 300:  # noqa: PLR2004  the success class of RFC 9110
        return None
    message = message_of(answer)
    text = f"{doing}: HTTP {answer.status}: {message or 'no explanation'}"
    error = _of_cdcs(answer.status, message, text, safe=safe)
    if error is None:
        error = error_of(answer, safe=safe) or Transient(text)
        error.args = (f"{doing}: {error}",)
    return error


def _of_cdcs(status: int, message: str, text: str, *, safe: bool) -> DeliveryError | None:
    """Return the error where CDCS means something of its own by a status."""
    match status:
        case 400 if '"workspace"' in message:
            error: DeliveryError = WorkspaceRefused(text)
        case 400 if '"template"' in message:
            error = NotThere(text)
        case 403 if _CREDENTIALS.search(message):
            error = Misconfigured(f"{text} (option token: give one that this server knows)")
        case 403:
            error = MissingRight(text)
        case 404 if message:
            error = NotThere(text)
        case 404:
            error = Misconfigured(f"{text}; is the option url the address of a CDCS?")
        case 413:
            cure = "The proxy before CDCS limits bodies: raise its limit, or make the record smaller"
            error = Rejected(f"{text}. {cure}")
        case 500 if message and not safe:
            error = _failure(message, text)
        case _:
            return None
    return error


def message_of(answer: Answer) -> str:
    """Return what a JSON answer explains, in ``message``, ``detail`` or field by field; empty for HTML."""
    fields = answer.json()
    told = fields.get("message", fields.get("detail", fields))
    if not told:
        return ""
    return (told if isinstance(told, str) else json.dumps(told, ensure_ascii=False))[:_SHOWN]


def as_json(answer: Answer, doing: str) -> Any:
    """Return the JSON of a successful answer.

    Raises
    ------
    Misconfigured
        It is none: a login page, for instance.
    """
    try:
        return json.loads(answer.body)
    except ValueError:
        raise Misconfigured(
            f"{doing}: HTTP {answer.status} without JSON; is the option url the address of a CDCS?"
        ) from None


def _failure(message: str, text: str) -> DeliveryError:
    if _PID_TAKEN.search(message):
        return PidTaken(
            f"{text}. If no record has this PID, the server calls itself by another address than url: give pid_prefix"
        )
    if _RIGHTS.search(message):
        return MissingRight(text)
    if _DOCUMENT.search(message):
        return Rejected(text)
    return OutcomeUnknown(text)  # a database that went away answers like this too
