"""Lines of the log: for people or as JSON, each with the export and session it is about, none with a secret.

A pipeline that imports labrelay keeps its own logging; `ExportFilter` gives its lines the same two fields.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from contextlib import AbstractContextManager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

from labrelay.redaction import Redactor

LogFormat = Literal["console", "json"]

_about: ContextVar[tuple[str, str]] = ContextVar("labrelay_about", default=("", ""))
_OWN_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "export_id", "session", "color"}


class about(AbstractContextManager[None]):  # noqa: N801  read as a word: ``with about(...):``
    """Let every line logged meanwhile say which export it is about, in this task or thread and those it starts."""

    __slots__ = ("_named", "_token")

    def __init__(self, export_id: str, session: str) -> None:
        self._named = export_id, session

    def __enter__(self) -> None:
        self._token = _about.set(self._named)

    def __exit__(self, *_: object) -> None:
        _about.reset(self._token)


class ExportFilter(logging.Filter):
    """Lets every record pass, with the fields `export_id` and `session`; empty where there is none."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields."""
        if not hasattr(record, "export_id"):
            record.export_id, record.session = _about.get()
        return True


class _Formatter(logging.Formatter):
    def __init__(self, redact: Redactor) -> None:
        super().__init__()
        self._redact = redact

    def _clean(self, text: str) -> str:
        # Line by line, because the redactor shortens what is long and a traceback must stay whole.
        return self._redact(text) if "\n" not in text else "\n".join(map(self._redact, text.split("\n")))

    def _trace(self, record: logging.LogRecord) -> str:
        # What stands in `exc_text` was formatted before, maybe by a filter that took something out.
        text = record.exc_text or (self.formatException(record.exc_info) if record.exc_info else "")
        parts = [text] if text else []
        if record.stack_info:
            parts.append(self.formatStack(record.stack_info))
        return self._clean("\n".join(parts))


class ConsoleFormatter(_Formatter):
    """Time, level, logger, what it is about, message; a traceback follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        export_id, session = _fields(record)
        subject = f" [{self._clean(f'{session} {export_id}'.strip())}]" if export_id else ""
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        line = (
            f"{at}.{int(record.msecs):03d} {record.levelname:<7} {record.name}{subject}: "
            f"{self._clean(record.getMessage())}"
        )
        trace = self._trace(record)
        return f"{line}\n{trace}" if trace else line


class JsonFormatter(_Formatter):
    """One JSON object a line; texts and numbers that a caller gives by ``extra`` are among its fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        export_id, session = _fields(record)
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._clean(record.getMessage()),
        }
        if export_id:
            line |= {"export_id": export_id, "session": self._clean(session)}
        line |= {"process": record.process, "thread": record.threadName}
        if trace := self._trace(record):
            line["trace"] = trace
        for name in record.__dict__.keys() - _OWN_FIELDS - line.keys():
            value = record.__dict__[name]
            if isinstance(value, str):
                line[name] = self._clean(value)
            elif isinstance(value, bool | int | float):
                line[name] = value
        return json.dumps(line, ensure_ascii=False)


def configure(form: LogFormat, level: int | str, *, redact: Redactor | None = None, file: str | None = None) -> None:
    """Make this process's log: every logger's lines in one form, to standard error or a file.

    Parameters
    ----------
    form
        For people, or JSON.
    level
        Lines below it are not written.
    redact
        Takes secrets out of each line; without it, what looks like one is taken out.
    file
        Appended to, and opened anew when it was rotated away.
    """
    from logging.handlers import WatchedFileHandler  # noqa: PLC0415  a pipeline that imports labrelay needs none

    formatter = (JsonFormatter if form == "json" else ConsoleFormatter)(redact or Redactor())
    handler = WatchedFileHandler(file, encoding="utf-8") if file else logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    handler.addFilter(ExportFilter())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    logging.captureWarnings(True)
    root.setLevel(level.upper() if isinstance(level, str) else level)


def _fields(record: logging.LogRecord) -> tuple[str, str]:
    found = record.__dict__
    return str(found.get("export_id", "")), str(found.get("session", ""))
