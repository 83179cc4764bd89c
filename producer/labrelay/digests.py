"""The digest of what is to be exported: by it a repeated submit is told from one with other content.

It is the sha256 of JSON as Python's own encoder writes it, sorted. Every ledger there is keeps such digests, so not a
byte may ever change; orjson writes the same bytes for all but a few numbers, at a tenth of the cost.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import orjson
from pydantic_core import PydanticSerializationError

from labrelay.context import ExportContext
from labrelay.errors import InvalidInput

#: Nothing that orjson knows and Python's encoder does not is let through.
_PLAIN = (
    orjson.OPT_SORT_KEYS
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)
#: What may be a float. Each begins with a plain character, which makes the search as fast as that for a character.
_FRACTION, _EXPONENT = re.compile(rb"\.(?<=[0-9]\.)[0-9]"), re.compile(rb"e(?<=[0-9]e)[-+0-9]")
#: Floats that everybody writes alike; beyond, one writes 1e16 and another 1e+16.
_LEAST, _MOST = 1e-3, 1e12
#: Earlier results are no content. Media types are guessed, and another machine may guess otherwise.
_NO_CONTENT: dict[str, Any] = {"previous_results": True, "artifacts": {"__all__": {"media_type"}}}
#: What a submitter may fill freely, beside that.
_FREE: dict[str, Any] = {"metadata": True, "activities": {"__all__": {"extra"}}}


def digest(context: ExportContext) -> str:
    """Return the sha256 of everything that is to be exported.

    Raises
    ------
    InvalidInput
        It holds what JSON cannot.
    """
    try:
        content = _quickly(context)
    except (TypeError, ValueError):  # a large integer, a date, a tiny number …
        content = _by_the_book(context)
    return hashlib.sha256(content).hexdigest()


def _by_the_book(context: ExportContext) -> bytes:
    try:
        content = context.model_dump(mode="json", by_alias=True, exclude=_NO_CONTENT)
    except PydanticSerializationError as error:
        raise InvalidInput(
            "metadata", f"holds what JSON cannot ({error})", "Give numbers, texts, lists and dictionaries"
        ) from None
    return json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def _quickly(context: ExportContext) -> bytes:
    """Return the same bytes; raises `TypeError` or `ValueError` where orjson might write others."""
    content = context.model_dump(mode="json", by_alias=True, exclude=_NO_CONTENT | _FREE)
    content["metadata"] = _plain(context.metadata)
    for activity, written in zip(context.activities, content["activities"], strict=True):
        written["extra"] = _plain(activity.extra)
    return orjson.dumps(content, option=orjson.OPT_SORT_KEYS)


def _plain(value: dict[str, Any]) -> orjson.Fragment:
    written = orjson.dumps(value, option=_PLAIN)
    if (_FRACTION.search(written) or _EXPONENT.search(written)) and not _is_written_alike(value):
        msg = "a number that Python may write otherwise"
        raise ValueError(msg)
    return orjson.Fragment(written)


def _is_written_alike(value: object) -> bool:
    if isinstance(value, float):
        return value == 0 or _LEAST <= abs(value) < _MOST
    if isinstance(value, dict):
        return all(map(_is_written_alike, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_is_written_alike, value))
    return value is None or type(value) in (str, int, bool)
