"""The digest of a context: the same bytes for ever, whichever way they are made."""

from __future__ import annotations

import datetime
import enum
import hashlib
import json
import re
import uuid
from collections import OrderedDict, namedtuple
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labrelay.context import ExportContext
from labrelay.digests import Content, digest
from labrelay.errors import InvalidInput


class Colour(enum.StrEnum):
    RED = "red"


class Level(enum.Enum):
    LOW = 1e-9


class Text(str):
    __slots__ = ()


Point = namedtuple("Point", "x y")

PLAIN = {
    "xml_file_path": "/data/record.xml",
    "session_identifier": "s-1",
    "instrument_pid": "FEI",
    "dt_from": "2026-11-20T10:00:00+01:00",
    "dt_to": "2026-11-20T11:00:00+01:00",
    "metadata": {"b": 0.5, "a": [{"name": "x", "bytes": 7}]},
}
FULL = PLAIN | {
    "xml_file_path": "/data/räcord.xml",
    "dt_to": "2026-11-20T11:00:00.5Z",
    "user": None,
    "metadata": {
        "voltage": 3e5, "tiny": 1e-7, "huge": 1e16, "big": 2**70, "text": '1e5 \u2028 \x7f "µ"', "none": None,
        "list": [1, 1.0, -0.0, True],
    },
    "activities": [
        {"files": ["/data/a.dm3"], "previews": [None, "/data/a.png"], "extra": {"z": None, "a": 0.1}}
    ],
    "reservation_event": {"sample_name": [None, "gold"]},
    "artifacts": [{"path": "/data/a.dm3", "media_type": "image/x", "size": 3, "sha256": "0" * 64}],
}  # fmt: skip


def by_python(context: ExportContext) -> str:
    """Return the digest as the first release computed it."""
    content = context.model_dump(mode="json", by_alias=True)
    del content["previous_results"]
    for artifact in content["artifacts"]:
        del artifact["media_type"]
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("document", "recorded"),
    [
        (PLAIN, "58004eb2414b3d04486a097be5a00913c8d50770491bd36e5596f540e7434d0c"),
        (FULL, "ca8438ea509d0d22bd02d4113431aab4d30a249d505f5ec628eab155163b6d70"),
    ],
    ids=["plain", "full"],
)
def test_a_digest_of_the_first_release_is_still_the_digest(document: dict[str, Any], recorded: str) -> None:
    # Given what an older release has in its ledger, when it is submitted again, then it is recognised
    assert digest(ExportContext.parse(document)) == recorded


def test_the_usual_context_is_not_written_by_the_slow_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given metadata as pipelines write it
    monkeypatch.delattr(Content, "_by_the_book")
    # When it is digested, then the fast way is taken
    assert digest(ExportContext.parse(PLAIN)) == by_python(ExportContext.parse(PLAIN))


_NUMBERS = st.integers() | st.floats() | st.sampled_from([1e16, 1e-5, 1e15, 0.0001, -0.0, 2**63, 2**64, -(2**63) - 1])
_TEXTS = st.text(st.characters(codec="utf-8")) | st.sampled_from(["1e5", "0e-1", "\x7f\x00\x1f", "\u2028", "e4"])
_VALUES = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=8,
)
_FREE = st.dictionaries(_TEXTS, _VALUES, max_size=4)


@given(metadata=_FREE, extra=_FREE, user=st.none() | _TEXTS)
def test_any_content_has_the_digest_that_python_would_give_it(
    metadata: dict[str, Any], extra: dict[str, Any], user: str | None
) -> None:
    # Given any numbers and texts where a submitter may put them
    context = ExportContext.parse(FULL | {"metadata": metadata, "activities": [{"extra": extra}, {}], "user": user})
    # When it is digested, then no byte differs from sorted JSON of the standard library
    assert digest(context) == by_python(context)


@pytest.mark.parametrize(
    "value",
    [
        datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), datetime.date(2026, 1, 1), datetime.timedelta(1),
        uuid.UUID(int=7), Decimal("1.50"), Path("/a"), Colour.RED, Level.LOW, Text("x"), Point(1, 2.0),
        {1}, b"bytes", OrderedDict(b=1, a=2), {Text("k"): 1}, {1: "number as a key"}, float("nan"), float("-inf"),
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_json_by_itself_has_the_digest_that_it_always_had(value: Any) -> None:
    # Given an object that a pipeline left in its metadata
    context = ExportContext.parse(PLAIN | {"metadata": {"value": value, "listed": [value]}})
    # When it is digested, then it counts as what it looks like in JSON
    assert digest(context) == by_python(context)


def test_what_cannot_be_json_is_refused_by_name() -> None:
    # Given an object without any JSON, when it is digested, then the error names the field
    context = ExportContext.parse(PLAIN | {"metadata": {"value": object()}})
    with pytest.raises(InvalidInput, match="metadata: holds what JSON cannot"):
        digest(context)


@pytest.mark.parametrize(
    "value",
    [
        "\ud800", b"\xff", {"\ud800": 1}, {b"\xff": 1}, range(3), int, memoryview(b"a"), 1j, 10**400, 10**5000,
        Fraction(1, 2),
        {(1, 2): 3}, {None: 1, "None": 2}, {1, "a"}, bytearray(b"a"), re.compile("a"), Point,
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_has_a_wire_form_has_a_digest_and_nothing_else_is_accepted(value: Any) -> None:
    # Given anything, when its wire form is asked for, which is done before anything is accepted
    context = ExportContext.parse(PLAIN | {"metadata": {"value": value}})
    try:
        Content(context).wire_form()
    except InvalidInput:
        # Then it is refused, and nothing was accepted
        return
    # Or its digest can be left for later
    assert len(digest(context)) == 64


@given(metadata=_FREE, extra=_FREE, user=st.none() | _TEXTS)
def test_the_wire_form_made_for_many_says_what_the_context_says(
    metadata: dict[str, Any], extra: dict[str, Any], user: str | None
) -> None:
    # Given any content, with and without values where there may be none
    activities = [{"extra": extra, "previews": [None, "/data/a.png"]}, {"start": "2026-11-20T10:00:00Z"}]
    context = ExportContext.parse(FULL | {"metadata": metadata, "activities": activities, "user": user})
    # When it is written, then it reads as what pydantic writes
    assert json.loads(Content(context).wire_form()) == json.loads(context.to_json())


def test_what_was_delivered_before_is_on_the_wire() -> None:
    # Given a context with an earlier result, when it is written, then the result is in it
    result = {"success": True, "destination_name": "cdcs", "record_id": "7"}
    context = ExportContext.parse(PLAIN | {"previous_results": {"cdcs": result}})
    assert json.loads(Content(context).wire_form())["previous_results"]["cdcs"]["record_id"] == "7"
