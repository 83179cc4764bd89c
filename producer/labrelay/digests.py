"""What is to be exported, as it is written: on the wire, and sorted for the digest that tells other content.

The digest is the sha256 of JSON as Python's own encoder writes it, sorted. Every ledger there is keeps such digests,
so not a byte may ever change; orjson writes the same bytes for all but a few numbers, at a tenth of the cost.
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
_PLAIN = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS
_SORTED = _PLAIN | orjson.OPT_SORT_KEYS
#: What may be a float. Each begins with a plain character, which makes the search as fast as that for a character.
_FRACTION, _EXPONENT = re.compile(rb"\.(?<=[0-9]\.)[0-9]"), re.compile(rb"e(?<=[0-9]e)[-+0-9]")
#: Floats that everybody writes alike; beyond, one writes 1e16 and another 1e+16.
_LEAST, _MOST = 1e-3, 1e12
#: What a submitter may fill freely is no business of pydantic's; earlier results are no content.
_NOT_MODELLED: dict[str, Any] = {
    "previous_results": True,
    "metadata": True,
    "activities": {"__all__": {"extra"}},
}
#: Media types are guessed, and another machine may guess otherwise.
_NO_CONTENT: dict[str, Any] = {"previous_results": True, "artifacts": {"__all__": {"media_type"}}}


def digest(context: ExportContext) -> str:
    """Return the sha256 of everything that is to be exported; see `Content.digest`."""
    return Content(context).digest()


class Content:
    """What is to be exported, looked at once for all the forms that it is written in."""

    __slots__ = ("_context", "_modelled")

    def __init__(self, context: ExportContext) -> None:
        self._context = context
        self._modelled: dict[str, Any] = context.__pydantic_serializer__.to_python(
            context, mode="json", by_alias=True, exclude=_NOT_MODELLED
        )

    def wire_form(self) -> str:
        """Return the wire form; where there is one there is a digest.

        Raises
        ------
        InvalidInput
            It holds what JSON cannot.
        """
        try:
            if not self._context.previous_results:
                return orjson.dumps(self._named(), option=_PLAIN).decode()
        except (TypeError, ValueError):  # a large integer, a date …
            pass
        try:
            text = self._context.to_json()
        except PydanticSerializationError as error:
            raise _no_json(error) from None
        # An integer too long for Python to read, or to write for the digest, is no problem for pydantic.
        self.digest()
        return text

    def digest(self) -> str:
        """Return the sha256 of everything that is to be exported.

        Raises
        ------
        InvalidInput
            It holds what JSON cannot.
        """
        try:
            content = self._quickly()
        except (TypeError, ValueError):  # a large integer, a date, a tiny number …
            content = self._by_the_book()
        return hashlib.sha256(content).hexdigest()

    def _named(self) -> dict[str, Any]:
        """Return the wire form's fields: those that have a value."""
        named = _with_values(self._modelled)
        named["metadata"], named["previous_results"] = self._context.metadata, {}
        if activities := self._context.activities:
            named["activities"] = [
                _with_values(written) | {"extra": activity.extra}
                for activity, written in zip(activities, self._modelled["activities"], strict=True)
            ]
        if self._context.artifacts:
            named["artifacts"] = [_with_values(artifact) for artifact in self._modelled["artifacts"]]
        if self._context.reservation_event is not None:
            named["reservation_event"] = _with_values(self._modelled["reservation_event"])
        return named

    def _by_the_book(self) -> bytes:
        try:
            content = self._context.model_dump(mode="json", by_alias=True, exclude=_NO_CONTENT)
            return json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
        except ValueError as error:
            raise _no_json(error) from None

    def _quickly(self) -> bytes:
        """Return the same bytes; raises `TypeError` or `ValueError` where orjson might write others."""
        content = {**self._modelled, "metadata": _plain(self._context.metadata)}
        if activities := self._context.activities:
            content["activities"] = [
                {**written, "extra": _plain(activity.extra)}
                for activity, written in zip(activities, content["activities"], strict=True)
            ]
        if self._context.artifacts:
            content["artifacts"] = [
                {name: value for name, value in artifact.items() if name != "media_type"}
                for artifact in content["artifacts"]
            ]
        return orjson.dumps(content, option=orjson.OPT_SORT_KEYS)


def _with_values(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _no_json(error: ValueError) -> InvalidInput:
    return InvalidInput(
        "metadata", f"holds what JSON cannot ({error})", "Give numbers, texts, lists and dictionaries"
    )


def _plain(value: dict[str, Any]) -> orjson.Fragment:
    written = orjson.dumps(value, option=_SORTED)
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
