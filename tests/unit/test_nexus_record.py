"""Reading Nexus records: what they say, and what is refused with which words."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from labrelay.context import ExportContext
from labrelay.errors import InvalidInput
from labrelay.nexus_record import read_nexus_record

_SHARED_RECORDS = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "records"
_NAMESPACE = "https://data.nist.gov/od/dm/nexus/experiment/v1.0"

_SUMMARY = """
  <summary ref="https://nemo.example.org/event/7">
    <experimenter>Zoë
      Müller</experimenter>
    <experimenter>Second Person</experimenter>
    <instrument>unnamed</instrument>
    <instrument pid="TITAN-1">FEI Titan</instrument>
    <reservationStart>2021-08-02T10:00:00-06:00</reservationStart>
    <reservationEnd>2021-08-02T18:00:00-06:00</reservationEnd>
    <motivation> 5 µm or 5 Å? </motivation>
  </summary>"""
_NO_TIMES = '<summary><instrument pid="TITAN-1"/></summary>'


def _activity(*datasets: tuple[str, str | None], start: str = "2021-08-02T11:00:00-06:00") -> str:
    text = "".join(
        f"<dataset><name>x</name><location>{location}</location>"
        + ("" if preview is None else f"<preview>{preview}</preview>")
        + "<meta name='a'>1</meta></dataset>"
        for location, preview in datasets
    )
    return f"<acquisitionActivity seqno='0'><startTime>{start}</startTime>{text}</acquisitionActivity>"


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., Path]:
    def write(content: str | bytes, name: str = "2021-08-02_TITAN_7.xml", *, whole: bool = False) -> Path:
        if isinstance(content, str) and not whole:
            content = f'<Experiment xmlns="{_NAMESPACE}">{content}</Experiment>'
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def _read(
    path: Path, *, instrument_root: Path | None = Path("/data"), preview_root: Path | None = None
) -> ExportContext:
    return ExportContext.from_nexus_record(path, instrument_root=instrument_root, preview_root=preview_root)


def _refusal(
    path: Path, *, instrument_root: Path | None = Path("/data"), preview_root: Path | None = None
) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        _read(path, instrument_root=instrument_root, preview_root=preview_root)
    assert "\n" not in str(caught.value)
    assert caught.value.cure
    return caught.value


def test_a_record_says_instrument_times_user_and_reservation(record: Callable[..., Path]) -> None:
    # Given a record with all that its schema allows to know
    path = record(
        "<title>Gold\n   on carbon</title>"
        + _SUMMARY
        + "<sample ref='s-1'><name>Au</name><description>film</description></sample><sample/>"
        + "<project><name>Catalysts</name><group>642</group><project_id>p-1</project_id></project>"
    )
    # When it is read without a session identifier
    context = _read(path)
    # Then the context says the same, the record is absolute and its stem names the session
    assert context.xml_file_path == path.absolute()
    assert context.session_identifier == "2021-08-02_TITAN_7"
    assert context.instrument_pid == "TITAN-1"
    assert context.dt_from == datetime.fromisoformat("2021-08-02T10:00:00-06:00")
    assert context.dt_to.isoformat() == "2021-08-02T18:00:00-06:00"
    assert context.user == "Zoë Müller"
    event = context.reservation_event
    assert event is not None
    assert (event.experiment_title, event.experiment_purpose) == ("Gold on carbon", "5 µm or 5 Å?")
    assert (event.sample_name, event.sample_pid) == (("Au", None), ("s-1", None))
    assert (event.project_name, event.project_id, event.group) == (("Catalysts",), ("p-1",), "642")
    assert event.url == "https://nemo.example.org/event/7"
    # And a full name is not mistaken for an account
    assert (event.user_full_name, event.username) == ("Zoë Müller", None)


def test_files_keep_order_and_repeats_and_previews_stay_parallel(record: Callable[..., Path]) -> None:
    # Given a file of two signals, a blank in a name, a file without a preview and one with a preview on the web
    path = record(
        _SUMMARY
        + _activity(("/T/b%20%C2%B5.dm3", "/T/b0.png"), ("/T/b%20%C2%B5.dm3", "/T/b1.png"), ("T/a.dm3", None))
        + _activity(("/T/c.dm3", "https://previews.example.org/c.png"))
    )
    # When it is read with both roots
    first, second = _read(path, preview_root=Path("/previews")).activities
    # Then locations are decoded, joined and left in document order
    root, previews = Path("/data").absolute(), Path("/previews").absolute()
    assert first.files == (str(root / "T/b µ.dm3"), str(root / "T/b µ.dm3"), str(root / "T/a.dm3"))
    assert first.previews == (previews / "T/b0.png", previews / "T/b1.png", None)
    assert second.files == (str(root / "T/c.dm3"),)
    assert second.previews == (None,)
    assert first.start == datetime.fromisoformat("2021-08-02T11:00:00-06:00")


def test_without_a_preview_root_no_previews_are_named(record: Callable[..., Path]) -> None:
    # Given a record with a preview
    path = record(_SUMMARY + _activity(("/T/a.dm3", "/T/a.png")))
    # When it is read without a preview root, then it names none
    assert _read(path).activities[0].previews == ()


def test_times_fall_back_to_the_activities(record: Callable[..., Path]) -> None:
    # Given a record without a reservation
    path = record(
        _NO_TIMES + _activity(start="2021-08-02T12:00:00Z") + _activity(start="2021-08-02T11:00:00.123456789Z")
    )
    # When it is read
    context = _read(path)
    # Then the session lasts from the first start to the last
    assert context.dt_from == datetime.fromisoformat("2021-08-02T11:00:00.123456+00:00")
    assert context.dt_to == datetime.fromisoformat("2021-08-02T12:00:00+00:00")


def test_unknown_elements_prefixes_line_ends_and_encodings_do_not_matter(record: Callable[..., Path]) -> None:
    # Given a record in UTF-16 with CRLF, prefixes and elements of other namespaces
    inner = _SUMMARY.replace("<", "<nx:").replace("<nx:/", "</nx:").replace("\n", "\r\n")
    text = (
        f'<?xml version="1.0" encoding="UTF-16"?>\r\n<nx:Experiment xmlns:nx="{_NAMESPACE}" xmlns:o="urn:other">'
        f"<o:title>no</o:title><nx:future><nx:title>no</nx:title></nx:future>{inner}</nx:Experiment>"
    )
    path = record(text.encode("utf-16"))
    # When it is read
    context = _read(path)
    # Then what is known is found and nothing else
    assert context.user == "Zoë Müller"
    assert context.reservation_event is not None
    assert context.reservation_event.experiment_title is None


def test_the_dictionary_is_what_the_context_accepts(record: Callable[..., Path]) -> None:
    # Given a record
    path = record(_SUMMARY + _activity(("/T/a.dm3", None)))
    # When it is read as a dictionary, with an identifier
    fields = read_nexus_record(path, session_identifier="s", instrument_root=Path("data"), preview_root=None)
    # Then the context accepts it, and a relative root has become absolute
    context = ExportContext.model_validate(fields)
    assert context.session_identifier == "s"
    assert Path(context.activities[0].files[0]) == Path("data").absolute() / "T/a.dm3"


_WHOLE_FILES = {
    "empty": (b"", "the file is empty"),
    "blank": (b" \n ", "not XML (no element found: line 2"),
    "text": (b"hello", "not XML (syntax error: line 1"),
    "cut off": (f'<Experiment xmlns="{_NAMESPACE}">\n<title>'.encode(), "not XML (no element found: line 2"),
    "binary": (b"\x89PNG\r\n\x1a\n", "not XML"),
    "unknown encoding": (b'<?xml version="1.0" encoding="klingon"?><a/>', "not readable XML"),
    "unsupported encoding": (b'<?xml version="1.0" encoding="utf-32"?><a/>', "not readable XML"),
    "other root": (b"<html><body/></html>", "its root element is html"),
    "other namespace": (b'<Experiment xmlns="urn:x"/>', "its root element is {urn:x}Experiment"),
    "nested": (f'<Experiment xmlns="{_NAMESPACE}">'.encode() + b"<a>" * 500_000, "nested deeper than 100"),
    "bomb": (
        b'<!DOCTYPE a [<!ENTITY x "lol"><!ENTITY y "&x;&x;&x;&x;">]><Experiment>&y;</Experiment>',
        "refused: it declares a DTD",
    ),
    "external": (b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', "refused: it declares a DTD"),
    "undeclared entity": (
        f'<Experiment xmlns="{_NAMESPACE}">&x;</Experiment>'.encode(),
        "not XML (undefined entity",
    ),
}


@pytest.mark.parametrize("case", _WHOLE_FILES)
def test_a_file_that_is_no_record_is_refused_by_name(record: Callable[..., Path], case: str) -> None:
    # Given a file that is not a Nexus record
    content, words = _WHOLE_FILES[case]
    path = record(content)
    # When it is read
    error = _refusal(path)
    # Then the file is named and so is the reason
    assert error.field == str(path)
    assert words in error.problem


def test_a_file_larger_than_64_mib_is_refused(record: Callable[..., Path]) -> None:
    # Given a sparse file that is larger
    path = record(f'<Experiment xmlns="{_NAMESPACE}"/>', whole=True)
    with path.open("ab") as file:
        file.write(b" " * (65 * 2**20))
    # When it is read, then its size is the reason
    assert "larger than 64 MiB" in _refusal(path).problem


def test_a_missing_file_and_a_folder_are_refused_by_name(tmp_path: Path) -> None:
    # Given a path without a file and one of a folder
    # When they are read, then each reason is its own
    assert "no such file" in _refusal(tmp_path / "none.xml").problem
    assert "is a folder" in _refusal(tmp_path).problem


_ELEMENTS = {
    "naive start": (
        _SUMMARY.replace("10:00:00-06:00", "10:00:00"),
        "summary/reservationStart",
        "has no time zone",
        "Add the offset",
    ),
    "naive activity": (
        _SUMMARY + _activity() + _activity(start="2021-08-02T11:00:00"),
        "acquisitionActivity[2]/startTime",
        "has no time zone",
        "Add the offset",
    ),
    "no time": (
        _SUMMARY.replace("2021-08-02T18:00:00-06:00", "after\nlunch"),
        "summary/reservationEnd",
        "is not a time",
        "Write it like",
    ),
    "no pid": (_SUMMARY.replace('pid="TITAN-1"', 'pid=" "'), "summary/instrument@pid", "missing", "Add"),
    "no summary": (_activity(), "summary/instrument@pid", "missing", "Add"),
    "no times": (_NO_TIMES, "summary/reservationStart", "missing", "Add"),
    "no location": (
        _SUMMARY + _activity(("", None)),
        "acquisitionActivity[1]/dataset[1]/location",
        "missing",
        "Add",
    ),
    "escape": (
        _SUMMARY + _activity(("/a", None), ("../../etc/passwd", None)),
        "acquisitionActivity[1]/dataset[2]/location",
        "leads out of its root",
        "relative to the root",
    ),
    "encoded escape": (
        _SUMMARY + _activity(("%2e%2e%2f%2e%2e/etc/passwd", None)),
        "acquisitionActivity[1]/dataset[1]/location",
        "leads out of its root",
        "relative to the root",
    ),
    "preview escape": (
        _SUMMARY + _activity(("/a", "a/../../b.png")),
        "acquisitionActivity[1]/dataset[1]/preview",
        "leads out of its root",
        "relative to the root",
    ),
}


@pytest.mark.parametrize("case", _ELEMENTS)
def test_an_element_at_fault_is_named_with_its_cure(record: Callable[..., Path], case: str) -> None:
    # Given a record with one fault
    content, element, problem, cure = _ELEMENTS[case]
    path = record(content)
    # When it is read
    error = _refusal(path, preview_root=Path("/previews"))
    # Then record and element, fault and cure are said
    assert error.field == f"{path.name}: {element}"
    assert problem in error.problem
    assert cure in error.cure


def test_files_without_an_instrument_root_ask_for_it(record: Callable[..., Path]) -> None:
    # Given a record that names a file
    path = record(_SUMMARY + _activity(("/T/a.dm3", None)))
    # When it is read without the root of its files
    error = _refusal(path, instrument_root=None)
    # Then that is what is asked for
    assert error.field == "instrument_root"
    assert "--root" in error.cure


def test_a_record_without_files_needs_no_root(record: Callable[..., Path]) -> None:
    # Given a record that names no file, when it is read without a root, then it is fine
    assert _read(record(_SUMMARY + _activity()), instrument_root=None).activities[0].files == ()


@pytest.mark.skipif(not _SHARED_RECORDS.is_dir(), reason="the real records lie beside the repository")
def test_real_records_are_read_as_their_pipeline_meant_them() -> None:
    # Given the real record of a session with eight images
    path = _SHARED_RECORDS / "2019-07-24_JEOL-JEM-TEM_202.xml"
    # When it is read
    context = _read(path, preview_root=Path("/previews"))
    # Then it says what the pipeline knew
    assert context.instrument_pid == "JEOL-JEM-TEM"
    assert context.dt_to.isoformat() == "2019-07-24T15:00:00-05:00"
    assert len(context.activities[0].files) == len(context.activities[0].previews) == 8
    assert Path(context.activities[0].files[0]).name == "image_7.dm3"
