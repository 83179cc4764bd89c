"""The log of a worker: Celery's lines, labrelay's and every plugin's in one form, without the secrets it knows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from labrelay import logs
from labrelay.errors import LabrelayError
from labrelay.redaction import Redactor, is_secret_name
from labrelay_worker.guests import secrets_it_may_read
from labrelay_worker.settings import WorkerSettings


def configure(settings: WorkerSettings, level: int | str, file: str | None = None) -> None:
    """Make the log of this process.

    Parameters
    ----------
    settings
        Say in which form, and hold secrets that no line may show.
    level
        Lines below it are not written.
    file
        Instead of standard error.
    """
    redact = Redactor(known_secrets(settings))
    logs.configure(settings.log_format, level, redact=redact, file=file)


def known_secrets(settings: WorkerSettings) -> Iterator[str]:
    """Yield every secret of the settings and of the environment."""
    yield from secrets_it_may_read()
    for tables in (settings.destinations, settings.backends):
        yield from _secrets(tables)
    try:
        password = urlsplit(settings.resolve_redis_url()).password
    except (LabrelayError, ValueError):
        return
    if password:
        yield from {password, unquote(password)}


def _secrets(table: Mapping[str, Any], *, hidden: bool = False) -> Iterator[str]:
    for name, value in table.items():
        secret = hidden or is_secret_name(name) or name == "headers"
        if isinstance(value, Mapping):
            yield from _secrets(value, hidden=secret)
        elif secret and isinstance(value, str):
            yield value
