"""Judge what a class of the seed did: from its requests and its answer to a typed error. Pure but for `deliver`.

What these rules buy is in ``docs/nexuslims.md``, weakness by weakness.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from labrelay.context import ExportContext
from labrelay.errors import DeliveryError, Misconfigured, OutcomeUnknown, RateLimited, Transient, Unavailable
from labrelay.redaction import is_secret_name
from labrelay_worker.destinations.base import Limits
from labrelay_worker.http_answers import error_of
from labrelay_worker.watching import Effect, Exchange, watching

if TYPE_CHECKING:
    from labrelay.redaction import Redactor

#: For all workers together, of NexusLIMS 2.8.0's classes: two that look for a folder or a user before they make it
#: would make several side by side; and LabArchives allows one call a second: an export makes five, which takes four
#: seconds and their latency, and the next one's first is to come a second later.
_LIMITS = MappingProxyType(
    {
        "nexusLIMS.exporters.destinations.cdcs": Limits(concurrent=1),
        "nexusLIMS.exporters.destinations.labarchives": Limits(concurrent=1, per_second=1 / 6),
    }
)
#: Names that `is_secret_name` does not know: LabArchives' uid acts for a person.
_SECRET_TOO = frozenset({"NX_LABARCHIVES_USER_ID"})
#: Of the shell, which means folders by them: masked, no path could be read any more.
_FOLDERS = ("PWD", "OLDPWD")
_SHORTEST_SECRET = 8
_SUCCESSES = range(200, 300)
_REDIRECTS = range(300, 400)
_BUSY = 503


def deliver(
    export: Callable[[ExportContext], Any], context: ExportContext, *, seconds: float, redact: Redactor
) -> Any:
    """Call the ``export`` of a class that cannot be asked, and return its result.

    Raises
    ------
    DeliveryError
        What it did is not a delivery; `OutcomeUnknown` unless its requests show that nothing was made.
    BaseException
        Whatever it raised, when none of its requests was seen.
    """
    with watching(seconds, redact) as watch:
        try:
            result = export(context)
        except DeliveryError:
            raise
        except Exception as error:
            if not watch.exchanges:
                raise
            raise failure(watch.exchanges, f"{type(error).__name__}: {error}") from None
    success = getattr(result, "success", None)
    if success and (partial := refused_at_last(watch.exchanges)) is not None:
        raise OutcomeUnknown(
            f"it reported success, but {partial}: the record is there and not complete. Look at the destination,"
            " then replay with --assume delivered"
        )
    told = getattr(result, "metadata", None) or {}
    if success is False and watch.exchanges and "error_kind" not in told:
        raise failure(watch.exchanges, _last_line(str(getattr(result, "error_message", None) or "it failed")))
    return result


def refused_at_last(exchanges: Sequence[Exchange]) -> Exchange | None:
    """Return the last request that was to make something, if it did not."""
    making = [exchange for exchange in exchanges if exchange.effect is Effect.MAKES]
    return making[-1] if making and not _succeeded(making[-1]) else None


def failure(exchanges: Sequence[Exchange], text: str) -> DeliveryError:
    """Return the error of a call that failed, typed by what its requests show.

    Parameters
    ----------
    exchanges
        Its requests in order; at least one.
    text
        What the class says of it.
    """
    making = [exchange for exchange in exchanges if exchange.effect is Effect.MAKES]
    if made := [exchange for exchange in making if _succeeded(exchange)]:
        return OutcomeUnknown(f"{text} (before that, {made[-1]}: part of the record may be there)")
    if lost := [exchange for exchange in making if _may_have_made(exchange)]:
        return OutcomeUnknown(f"{text} ({lost[-1]}: the record may be there)")
    error = _nothing_made(exchanges[-1])
    error.args = (f"{text} ({exchanges[-1]})",)
    return error


def default_limits(destination: object) -> Limits | None:
    """Return how often a known class of NexusLIMS may run, over all workers."""
    return _LIMITS.get(type(destination).__module__)


def secrets_it_may_read(env_file: Path = Path(".env")) -> Iterable[str]:
    """Return secret-looking values of the environment and of ``.env``: such a class reads its settings by itself."""
    from dotenv import dotenv_values  # noqa: PLC0415  comes with pydantic-settings

    found = {**dotenv_values(env_file), **os.environ}
    return [
        value
        for name, value in found.items()
        if value
        and len(value) >= _SHORTEST_SECRET
        and (is_secret_name(name) or name in _SECRET_TOO)
        and name not in _FOLDERS
    ]


def _nothing_made(last: Exchange) -> DeliveryError:
    """Return the kind of error that the last request of a call stands for, when the call made nothing."""
    if last.answer is None:
        return Unavailable()
    error = error_of(last.answer)
    if error is None:
        return Transient()  # the server was content and the class was not
    if last.effect is Effect.MAKES or isinstance(error, RateLimited | Unavailable | Misconfigured):
        return error
    # A look-up that is refused says nothing of the record.
    return Unavailable() if isinstance(error, OutcomeUnknown | Transient) else Misconfigured()


def _succeeded(exchange: Exchange) -> bool:
    return exchange.answer is not None and exchange.answer.status in _SUCCESSES


def _may_have_made(exchange: Exchange) -> bool:
    if exchange.answer is None:
        return exchange.sent
    if exchange.answer.status == _BUSY:
        # A proxy says so of an answer it did not wait for; a server that is busy names a time.
        return "Retry-After" not in exchange.answer.headers
    return exchange.answer.status not in _REDIRECTS and isinstance(error_of(exchange.answer), OutcomeUnknown)


def _last_line(text: str) -> str:
    """Return what went wrong of a text that may be a whole traceback."""
    if not text.startswith("Traceback"):
        return text
    return next((line for line in reversed(text.splitlines()) if line and not line.startswith(" ")), text)
