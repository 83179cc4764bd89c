"""Lines of the log: their two forms, what they are about, and what must not be in them."""

from __future__ import annotations

import json
import logging
import sys
import threading
from contextvars import copy_context

from labrelay.logs import ConsoleFormatter, ExportFilter, JsonFormatter, about
from labrelay.redaction import MASK, Redactor


def record(message: str, *arguments: object, **extra: object) -> logging.LogRecord:
    made = logging.getLogger("some.plugin").makeRecord(
        "some.plugin", logging.WARNING, __file__, 1, message, arguments, None, extra=extra
    )
    ExportFilter().filter(made)
    return made


def test_a_json_line_says_what_it_is_about_and_keeps_simple_extra_fields():
    with about("id-1", "session-1"):
        line = json.loads(
            JsonFormatter(Redactor()).format(record("%d files", 3, size=5, data={"a": 1}, where="here"))
        )
    assert line["message"] == "3 files"
    assert (line["export_id"], line["session"]) == ("id-1", "session-1")
    assert (line["size"], line["where"]) == (5, "here")
    assert "data" not in line


def test_a_line_about_no_export_has_no_empty_fields():
    assert "export_id" not in json.loads(JsonFormatter(Redactor()).format(record("started")))
    assert ConsoleFormatter(Redactor()).format(record("started")).endswith("WARNING some.plugin: started")


def test_what_a_thread_says_is_about_the_export_that_started_it():
    # Given a record made in a thread that began with the context of its maker
    made = []
    with about("id-2", "session-2"):
        thread = threading.Thread(target=copy_context().run, args=(lambda: made.append(record("from within")),))
    thread.start()
    thread.join()
    # Then it says so, though nobody else does any more
    assert made[0].export_id == "id-2"
    assert record("from without").export_id == ""


def test_secrets_are_masked_in_messages_extra_fields_and_each_line_of_a_long_traceback():
    # Given a known secret, and a traceback longer than the redactor lets one text be
    secret = "hidden-value-1"
    try:
        raise ValueError("\n".join(f"row {number} {secret}" for number in range(500)))
    except ValueError:
        made = record("failed with %s", secret, header=f"x {secret}")
        made.exc_info = sys.exc_info()
    for formatter in (JsonFormatter, ConsoleFormatter):
        line = formatter(Redactor([secret])).format(made)
        # Then it is gone, and the last line is still there
        assert secret not in line
        assert f"row 499 {MASK}" in line


def test_what_looks_like_a_credential_is_masked_without_being_known():
    line = ConsoleFormatter(Redactor()).format(record("GET https://anna:pw-12345@host/ token=abcdef123456"))
    assert "pw-12345" not in line
    assert "abcdef123456" not in line
