"""Flower's own settings file: how tasks are shown, and the password taken from a secret's file.

Flower runs this file with `--conf`; it needs nothing but the standard library. What stands here is set over
the environment, what stands on the command line is set over this.
"""

import contextlib
import os
import re
from pathlib import Path
from typing import Any

_LONGEST = 4000  # a wake-up of 64 exports with how each of them ended
_SECRET = re.compile(
    r"(?i)((?:passw(?:or)?d|passphrase|secret|token|api[_-]?key|access[_-]?key|authorization)[\w-]{0,40}"
    r"['\"]?\s*[=:]\s*['\"]?(?:(?:bearer|basic)\s+)?)[^\s&;,'\")}\]]+"
)
_USERINFO = re.compile(r"(://)[^/\s@]{1,400}@")


def _readable(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    if len(text) > _LONGEST:
        text = text[:_LONGEST] + " …"
    return _USERINFO.sub(r"\1[redacted]@", _SECRET.sub(r"\1[redacted]", text))


def format_task(task: Any) -> Any:
    """Shorten what a task shows and mask what looks like a credential; never raises, whatever a task holds."""
    for name in ("args", "kwargs", "result", "exception", "traceback"):
        try:
            value = getattr(task, name, None)
            if value is not None:
                setattr(task, name, _readable(value))
        except Exception:  # noqa: BLE001  a task that cannot be shown must not take the page down
            with contextlib.suppress(Exception):
                setattr(task, name, "[not shown]")
    return task


# A secret's file keeps the password out of the process list and of `docker inspect`.
_auth_file = os.environ.get("FLOWER_BASIC_AUTH_FILE")
if _auth_file:
    basic_auth = Path(_auth_file).read_text(encoding="ascii").split()
    if not basic_auth or not all(re.fullmatch(r"[^:]+:.+", line) for line in basic_auth):
        raise SystemExit(f"{_auth_file}: Flower stays closed: write one user:password per line")
