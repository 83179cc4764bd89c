"""Takes a posted delivery apart: multipart with the record attached, or JSON with or without it."""

from __future__ import annotations

import base64
import email.policy
import json
from dataclasses import dataclass
from email.parser import BytesParser
from typing import Any
from urllib.parse import unquote


@dataclass(frozen=True)
class Posted:
    """What one request brought."""

    context: dict[str, Any]
    record_name: str | None = None
    record: bytes | None = None

    @property
    def session(self) -> str | None:
        """The session that the context says it is."""
        session = self.context.get("session_identifier")
        return session if isinstance(session, str) else None


def read_posted(content_type: str, body: bytes) -> Posted:
    """Return the parts of a request body.

    Parameters
    ----------
    content_type
        ``multipart/form-data`` with parts ``context`` and ``record``, or ``application/json``: a context, or an
        object of ``context`` and ``record`` with the record as base64.

    Raises
    ------
    ValueError
        The body is not what its type says; the text says why.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return _read_multipart(content_type, body)
    if kind == "application/json":
        return _read_json(body)
    msg = f"content type {kind or 'missing'}: send multipart/form-data or application/json"
    raise ValueError(msg)


def _read_multipart(content_type: str, body: bytes) -> Posted:
    # parsebytes, because the parser of files would turn every line end into a line feed
    head = f"Content-Type: {content_type}\r\n\r\n".encode("latin-1")
    message = BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    if message.defects:
        msg = f"broken multipart body: {type(message.defects[0]).__name__}"
        raise ValueError(msg)
    parts = {part.get_param("name", header="content-disposition"): part for part in message.iter_parts()}
    if "context" not in parts:
        msg = "multipart without a part named context"
        raise ValueError(msg)
    context = _object(_content(parts["context"]))
    if "record" not in parts:
        return Posted(context)
    name = parts["record"].get_filename()
    # clients percent-encode what does not fit a header; the name is shown to people and compared by tests
    return Posted(context, unquote(name) if name else None, _content(parts["record"]))


def _content(part: Any) -> bytes:
    return bytes(part.get_payload(decode=True) or b"")


def _read_json(body: bytes) -> Posted:
    document = _object(body)
    record = document.get("record")
    if not isinstance(record, dict):
        return Posted(document)
    content = base64.b64decode(str(record.get("base64", "")), validate=True)
    return Posted(_checked(document.get("context")), str(record.get("name", "")) or None, content)


def _object(text: bytes) -> dict[str, Any]:
    return _checked(json.loads(text))


def _checked(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        msg = "the context is not a JSON object"
        raise ValueError(msg)
    return value
