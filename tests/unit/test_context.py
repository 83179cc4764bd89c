"""The export context: the wire contract between producers and workers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from labrelay.context import ExportContext
from labrelay.digests import digest
from labrelay.errors import InvalidInput
from labrelay.results import ExportResult, Receipt, utc_now
from labrelay.schema import FILE, schema_text

Build = Callable[..., ExportContext]

FULL: dict[str, Any] = {
    "schema": "labrelay.export_context/1",
    "xml_file_path": "/data/2026-11-20_FEI-Titan_Å.xml",
    "xml_size": 10,
    "xml_sha256": "a" * 64,
    "session_identifier": "https://nemo.example.org/api/usage_events/?id=1001",
    "instrument_pid": "FEI-Titan-TEM",
    "dt_from": "2026-11-20T10:00:00+01:00",
    "dt_to": "2026-11-20T11:00:00+01:00",
    "user": "åsa",
    "metadata": {"nothing": None, "list": [1, None, {"a": 0.1}], "text": "µm"},
    "activities": [
        {
            "start": "2026-11-20T10:00:00Z",
            "mode": "STEM",
            "files": ["/data/a.dm3", "/data/a.dm3"],
            "previews": [None, "/data/a.png"],
            "extra": {"signals": 2},
        }
    ],
    "reservation_event": {"experiment_title": "Title", "sample_elements": [["Fe", "O"], None]},
    "artifacts": [{"path": "/data/a.dm3", "size": 5, "sha256": "b" * 64, "media_type": "image/x-dm3"}],
}


def wire(**fields: Any) -> dict[str, Any]:
    return {k: v for k, v in (FULL | fields).items() if v is not ...}


def refused(document: Any) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        ExportContext.parse(document, source="given.json")
    return caught.value


# --- the wire form -------------------------------------------------------------------------------------


def test_the_wire_form_survives_a_round_trip() -> None:
    # Given a context with everything in it
    context = ExportContext.parse(FULL)
    # When it travels as JSON
    arrived = ExportContext.parse(context.to_json())
    # Then nothing is lost, empty places in lists and dictionaries included
    assert arrived == context
    assert arrived.metadata == FULL["metadata"]
    assert arrived.activities[0].previews == (None, Path("/data/a.png"))
    assert digest(arrived) == digest(context)


def test_the_wire_form_names_its_version() -> None:
    # Given any context, when it is written, then a later version can tell what it reads
    assert json.loads(ExportContext.parse(FULL).to_json())["schema"] == "labrelay.export_context/1"


def test_another_version_is_refused_by_name() -> None:
    # When a context of a later version comes, then the error says what is understood
    error = refused(wire(schema="labrelay.export_context/2"))
    assert error.field == "schema"
    assert "labrelay.export_context/1" in str(error)


def test_a_numbered_context_travels_as_any_other_whatever_results_come_to_it() -> None:
    # Given a context that a worker delivers, whose wire form was asked for
    context = ExportContext.parse(FULL).of_revision(2, {})
    context.to_json()
    # When results come to it, then it is written as one that has them from the start
    result = ExportResult(success=True, destination_name="cdcs", record_id="7")
    told = ExportContext.parse(FULL).with_results({"cdcs": result})
    assert context.with_results({"cdcs": result}).to_json() == told.to_json()
    # And a copy with other values is written with these
    assert json.loads(context.model_copy(update={"user": "eve"}).to_json())["user"] == "eve"


def test_what_only_the_ledger_knows_does_not_travel() -> None:
    # Given a context as the ledger numbers it
    receipt = Receipt(destination="cdcs", record_id="7", at=utc_now())
    context = ExportContext.parse(FULL).of_revision(3, {"cdcs": receipt})
    # When it is written, then revision and receipts stay in the ledger
    assert context.to_json() == ExportContext.parse(FULL).to_json()
    assert context.revision == 3
    assert context.previous_receipts == {"cdcs": receipt}
    assert context.delivery_key == f"{context.export_id}.3"


_TEXTS = st.text(st.characters(codec="utf-8"))
_NUMBERS = st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
_VALUES = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(_TEXTS, _VALUES, max_size=4))
def test_metadata_of_any_shape_survives(metadata: dict[str, Any]) -> None:
    context = ExportContext.parse(wire(metadata=metadata))
    arrived = ExportContext.parse(context.to_json())
    assert arrived.metadata == metadata
    assert digest(arrived) == digest(context)


# --- the published schema ------------------------------------------------------------------------------


def test_the_published_schema_is_that_of_the_code() -> None:
    # Given the file in the package, then it is what `python -m labrelay.schema > …` writes now
    published = files("labrelay.schema").joinpath(FILE).read_text(encoding="utf-8")
    assert published == schema_text()


def test_the_schema_is_printed_by_its_module() -> None:
    # When somebody asks for it, then it is on standard output
    printed = subprocess.run([sys.executable, "-m", "labrelay.schema"], capture_output=True, check=True)
    assert printed.stdout.decode() == schema_text()


def test_the_published_schema_accepts_what_the_code_accepts() -> None:
    # Given a sample, when a stranger checks it, then it is valid
    schema = json.loads(schema_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(FULL, schema)
    jsonschema.validate(json.loads(ExportContext.parse(FULL).to_json()), schema)


@pytest.mark.parametrize("change", [{"sesion_identifier": "x"}, {"session_identifier": ...}, {"xml_sha256": "short"}])
def test_the_published_schema_refuses_what_the_code_refuses(change: dict[str, Any]) -> None:
    # Given a mistake, when either checks it, then both refuse
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wire(**change), json.loads(schema_text()))
    refused(wire(**change))


# --- refusals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "field", "problem", "cure"),
    [
        ({"sesion": "x"}, "sesion", "unknown field", "correct its spelling"),
        ({"session_identifier": ...}, "session_identifier", "Field required", "Add it"),
        ({"session_identifier": ""}, "session_identifier", "at least 1 character", "schema"),
        ({"dt_from": "2026-11-20T10:00:00"}, "dt_from", "timezone", "Add the offset"),
        ({"dt_to": "2026-11-20T09:59:59+01:00"}, "dt_to", "lies before dt_from", "Correct it"),
        ({"dt_to": "yesterday"}, "dt_to", "valid datetime", "schema"),
        ({"xml_sha256": "short"}, "xml_sha256", "pattern", "schema"),
        ({"activities": [{"files": "a.dm3"}]}, "activities[0].files", "valid tuple", "schema"),
        ({"activities": [{}, {"star": 1}]}, "activities[1].star", "unknown field", "spelling"),
        ({"artifacts": [{"path": "/a", "role": "main"}]}, "artifacts[0].role", "'raw', 'preview'", "schema"),
    ],
)
def test_a_mistake_is_one_line_with_field_and_cure(
    change: dict[str, Any], field: str, problem: str, cure: str
) -> None:
    # When a context with one mistake is read, then the error names where, what and the way out
    error = refused(wire(**change))
    assert error.field == field
    assert problem in error.problem
    assert cure in error.cure
    assert "\n" not in str(error)


def test_several_mistakes_are_counted() -> None:
    # When a context has three mistakes, then the first is explained and the others announced
    assert "(and 2 more)" in str(
        refused({"xml_file_path": "/a", "dt_from": FULL["dt_from"], "dt_to": FULL["dt_to"], "a": 1})
    )


@pytest.mark.parametrize("document", ["{", "[]", "null", b"\xff\xfe{", '{"a": 1} {"b": 2}', ""])
def test_what_is_no_json_object_is_refused_by_its_source(document: str | bytes) -> None:
    # When something else is read, then the error names where it came from
    error = refused(document)
    assert error.field == "given.json"
    assert "\n" not in str(error)


@pytest.mark.parametrize("document", [FULL | {"user": "secret-\n-text" * 100, "x": 1}])
def test_an_error_does_not_repeat_the_input(document: dict[str, Any]) -> None:
    # When a mistake is explained, then foreign content is not part of the text
    assert "secret" not in str(refused(document))


# --- the object ----------------------------------------------------------------------------------------


def test_a_context_is_frozen() -> None:
    # Given a context, when somebody changes it, then that is refused
    with pytest.raises(ValidationError):
        ExportContext.parse(FULL).user = "somebody"


def test_the_export_id_depends_on_instrument_and_session_alone(make_context: Build) -> None:
    # Given contexts of one session with other content
    first = make_context()
    # Then they are one export
    assert make_context(user="x", metadata={"a": 1}, dt_to="2026-11-20T12:00:00+01:00").export_id == first.export_id
    # And another session or instrument is another one
    assert make_context(session_identifier="other").export_id != first.export_id
    assert make_context(instrument_pid="other").export_id != first.export_id


def test_the_export_id_is_the_same_everywhere_and_always() -> None:
    # Given the session of this page, then its id never changes: it is in ledgers by now
    context = ExportContext.parse(FULL)
    assert context.export_id == "285ac3d0-5880-57b6-bb50-88ea6f4b38fc"


def test_results_are_kept_by_destination(make_context: Build) -> None:
    # Given a context without results
    context = make_context()
    assert context.get_result("cdcs") is None
    assert not context.has_successful_export("cdcs")
    # When a destination failed and then succeeded
    context.add_result("cdcs", ExportResult(success=False, destination_name="cdcs", error_message="no"))
    assert not context.has_successful_export("cdcs")
    context.add_result("cdcs", ExportResult(success=True, destination_name="cdcs", record_id="7"))
    # Then the last word counts
    assert context.has_successful_export("cdcs")
    assert context.get_result("cdcs").record_id == "7"


def test_contexts_do_not_share_results(make_context: Build) -> None:
    # Given two contexts, when one gets a result, then the other has none
    first, second = make_context(), make_context()
    first.add_result("cdcs", ExportResult(success=True, destination_name="cdcs"))
    assert second.previous_results == {}


def test_a_result_has_a_time_with_its_zone() -> None:
    # Given a result as NexusLIMS makes it, when its time is read, then it is not naive
    assert ExportResult(success=True, destination_name="cdcs").timestamp.tzinfo is UTC
    with pytest.raises(ValidationError):
        ExportResult(success=True, destination_name="cdcs", timestamp=datetime(2026, 11, 20))  # noqa: DTZ001
