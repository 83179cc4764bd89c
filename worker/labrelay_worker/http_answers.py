"""What a server answered, and which error a status stands for. Pure."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import orjson

from labrelay.errors import (
    DeliveryError,
    Misconfigured,
    OutcomeUnknown,
    RateLimited,
    Rejected,
    Transient,
    Unavailable,
)

_ERROR_BODY = 300


@dataclass(frozen=True)
class Answer:
    """What a server answered.

    Parameters
    ----------
    status, headers
        As they came.
    body
        All of it; of a body that was to be hashed its beginning alone.
    sha256
        Of the whole body, where that was asked for.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    sha256: str = ""

    def json(self) -> dict[str, Any]:
        """Return the body as a JSON object, or an empty one."""
        try:
            value = orjson.loads(self.body)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}


def error_of(answer: Answer, *, safe: bool = False) -> DeliveryError | None:
    """Return the error a status stands for, or None for success (DESIGN section 7).

    Parameters
    ----------
    answer
        What the server answered.
    safe
        Whether the request changed nothing at the server, so that a failure of the server leaves no doubt.
    """
    status = answer.status
    if 200 <= status < 300:  # noqa: PLR2004  the success class of RFC 9110
        return None
    text = f"HTTP {status}: {answer.body[:_ERROR_BODY].decode(errors='replace').strip() or 'no explanation'}"
    wait = _retry_after(answer.headers.get("Retry-After"))
    if status in (429, 503):
        return (RateLimited if status == 429 else Unavailable)(text, retry_after=wait)  # noqa: PLR2004
    if 300 <= status < 400:  # noqa: PLR2004  often a login page: following it would lose the record
        return Misconfigured(f"HTTP {status}: the address redirects; give the one it leads to, or a token")
    if status in (401, 403):
        return Misconfigured(f"{text} (check token and rights)")
    if status >= 500:  # noqa: PLR2004  the server may have stored the record before it failed
        return Transient(text, retry_after=wait) if safe else OutcomeUnknown(text)
    return Transient(text, retry_after=wait) if status in (408, 425) else Rejected(text)


def _retry_after(value: str | None) -> float | None:
    if value is None:
        return None
    with suppress(ValueError):
        return max(0.0, float(value))
    with suppress(OverflowError, ValueError):  # reads like a date, and is none
        parsed = email.utils.parsedate_tz(value)
        return None if parsed is None else max(0.0, email.utils.mktime_tz(parsed) - time.time())
    return None
