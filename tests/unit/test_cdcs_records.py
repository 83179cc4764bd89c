"""Which records CDCS takes, and under which titles: odd names, odd files, and refusals that say what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cdcs_parts import Cdcs, asked, nexus, receipt_of

from labrelay.errors import Rejected, Transient
from labrelay_worker.conformance.faults import Fault
from labrelay_worker.destinations.cdcs_kinship import titles_of

SHARED = Path(__file__).parents[3] / "shared" / "data"

ODD_STEMS = {
    "unicode": "2026 Å 電子顕微鏡 🔬",
    "250 characters": "x" * 250,
    "150 characters in 250 bytes": "é" * 100 + "a" * 50,
    "quotes": """it's "quoted" `here`""",
    "markup": "<b>&amp;<!-- <script>",
    "separators": "a\\..\\..\\b; rm -rf",
    "query": "a&title=b#c?d=%41+1",
    "outer spaces": "  name  ",
    "dots": "..",
    "a control character": "a\nb\tc\x7f",
    "bytes that are no text": os.fsdecode(b"r\xff\xfe"),
    "a regular expression": "^.*(a|b)[0-9]+$",
}


@pytest.mark.parametrize("stem", ODD_STEMS.values(), ids=ODD_STEMS.keys())
def test_a_record_with_an_odd_name_is_delivered_once_and_found_again(cdcs: Cdcs, stem: str) -> None:
    # Given two sessions whose files have this name
    contexts = [cdcs.session(number, stem=stem) for number in (1, 2)]

    # When both are delivered twice
    for context in (*contexts, *contexts):
        cdcs.send(context)

    # Then there are two records of two titles that the server takes as they are, and each is found
    titles = [record.title for record in cdcs.server.records]
    assert len(set(titles)) == len(titles) == 2
    assert all(title == title.strip() and 0 < len(title) <= 200 and title.isprintable() for title in titles)
    assert all(cdcs.find(context) is not None for context in contexts)


def test_a_title_is_the_stem_unless_the_server_would_not_take_it(make_context) -> None:
    def plain(stem: str) -> str:
        return titles_of(make_context(xml_file_path=f"/data/{stem}.xml")).plain

    own = titles_of(make_context()).own
    assert own.startswith("record-1 (")
    assert len(own) == len("record-1 (0123456789ab)")
    assert plain("2026-11-20_FEI-Titan_1") == "2026-11-20_FEI-Titan_1"
    assert plain(" a  b ") == "a  b"
    assert plain("x" * 200) == "x" * 200
    assert plain("..") == plain("   ") == "record"
    # A stem that must be cut would be another session's too, so it always names its session.
    assert plain("x" * 201) == "x" * 185 + own.removeprefix("record-1")


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (b"", r"line 1: Document is empty"),
        (b"hello", r"line 1: Start tag expected"),
        (b"<a>\n<b>\n</a>", r"line 3: Opening and ending tag mismatch: b line 2 and a.*build the record again"),
        (nexus().replace(b"Experiment", b"Other"), r"line 3: .*No matching global declaration|line 3: Element"),
        (
            nexus(inside="<user/>"),
            r"fit the schema of CDCS template \d+: line 5: .*user.*not expected.*another template",
        ),
        (nexus(inside="&x;"), r"line 5: Entity 'x' not defined"),
        (b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>', "declares a DTD"),
        (b'<?xml version="1.0" encoding="ISO-8859-1"?><a>\xe9</a>', "not encoded as UTF-8"),
        ("<a>Å</a>".encode("utf-16"), "not encoded as UTF-8.*save the record as UTF-8"),
        (b'<?xml version="1.0" encoding="ISO-8859-1"?><a>e</a>', "encoding is ISO-8859-1.*save the record as UTF-8"),
        (b"<a>\xff</a>", r"line 1: .*"),
    ],
)
def test_a_record_that_the_server_would_answer_500_to_is_refused_before_it_is_sent(
    cdcs: Cdcs, record: bytes, text: str
) -> None:
    with pytest.raises(Rejected, match=text):
        cdcs.send(cdcs.session(record=record))
    assert cdcs.server.records == []
    assert not [request for request in asked(cdcs) if request.startswith(("POST", "PATCH"))]


def test_a_refused_revision_leaves_the_earlier_one_as_it_is(cdcs: Cdcs) -> None:
    receipt = receipt_of(cdcs.send(cdcs.session()))
    with pytest.raises(Rejected, match="line 5"):
        cdcs.send(cdcs.session(record=nexus(inside="<user/>")).of_revision(2, {}), receipt)
    assert cdcs.server.records[0].xml_content.encode() == nexus("Å 1")


def test_a_large_record_of_many_small_texts_is_delivered(cdcs: Cdcs) -> None:
    # Given a record of 12 MiB, none of whose texts is large
    notes = "<notes>" + "<p>Ångström</p>" * 800_000 + "</notes>"
    context = cdcs.session(record=nexus(inside=notes))
    assert context.xml_file_path.stat().st_size > 12 * 2**20

    # When it is delivered, then it is there to the last byte
    cdcs.send(context)
    assert cdcs.server.records[0].xml_content.encode() == context.xml_file_path.read_bytes()


def test_one_text_of_twelve_mebibytes_is_refused_with_the_cure(cdcs: Cdcs) -> None:
    record = nexus(inside=f"<notes>{'x' * 12 * 2**20}</notes>")
    with pytest.raises(Rejected, match="single text may have 10 MB: keep data in files"):
        cdcs.send(cdcs.session(record=record))
    assert asked(cdcs) == []


def test_a_record_above_the_limit_is_refused_before_it_is_read(cdcs: Cdcs) -> None:
    with pytest.raises(Rejected, match=r"has 6\.0 MiB; max_record_mib allows 5"):
        cdcs.send(cdcs.session(record=nexus(inside="x" * 6 * 2**20)), max_record_mib=5)
    assert asked(cdcs) == []


def test_a_missing_file_is_tried_again(cdcs: Cdcs) -> None:
    context = cdcs.session()
    context.xml_file_path.unlink()
    with pytest.raises(Transient, match="is its share mounted here"):
        cdcs.send(context)


def test_a_file_that_changed_since_it_was_submitted_is_not_sent(cdcs: Cdcs) -> None:
    context = cdcs.session(xml_sha256="0" * 64)
    with pytest.raises(Rejected, match="--replace"):
        cdcs.send(context)
    assert asked(cdcs) == []


def test_a_byte_order_mark_travels_along(cdcs: Cdcs) -> None:
    context = cdcs.session(record=b"\xef\xbb\xbf" + nexus())
    cdcs.send(context)
    assert cdcs.server.records[0].xml_content.encode() == context.xml_file_path.read_bytes()


def test_a_schema_that_cannot_be_used_here_leaves_the_check_to_the_server(
    cdcs: Cdcs, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a schema in several files
    schema = b"""<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema"><xs:include schemaLocation="x.xsd"/>"""
    schema += b"""<xs:element name="a" type="elsewhere"/></xs:schema>"""
    cdcs.server.faults.plan(Fault("status", status=200, path="/download/", body=schema.decode()))

    # When a record is delivered, then the worker says that only the server checks it
    cdcs.send(cdcs.session())
    assert "only the server checks records" in caplog.text
    assert len(cdcs.server.records) == 1


@pytest.mark.skipif(not SHARED.exists(), reason="the shared sessions are not here")
def test_real_records_pass_the_real_schema_and_arrive_byte_for_byte(cdcs: Cdcs) -> None:
    # Given the schema of NexusLIMS 2.8.0 and its records
    current = cdcs.server.template.versions[-1]
    cdcs.server.store.templates[current].xsd = (SHARED / "nexus-experiment.xsd").read_bytes()
    records = sorted((SHARED / "records").glob("*.xml"))

    # When they are delivered as they are, and with Windows' line ends
    for number, path in enumerate(records):
        data = path.read_bytes()
        cdcs.send(cdcs.session(number, data, stem=path.stem))
        cdcs.send(cdcs.session(100 + number, data.replace(b"\n", b"\r\n"), stem=f"{path.stem}-crlf"))

    # Then each is there to the byte
    sent = {path.read_bytes() for path in records}
    assert {record.xml_content.encode() for record in cdcs.server.records} == sent | {
        data.replace(b"\n", b"\r\n") for data in sent
    }
