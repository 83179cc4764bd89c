"""What an experiment should be, and how it is compared: from data to data."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labrelay_worker.destinations import elabftw_entry as entries
from labrelay_worker.destinations.elabftw_answers import Attachment, Entry, Upload


def wanted(context, **options):
    known = {"xml_size": 3, "xml_sha256": "ab" * 32}
    given_options = {"links_to": ("cdcs",), "title_prefix": "", "attach_previews": False, "max_upload": 10**6}
    return entries.wanted(context.model_copy(update=known), "elabftw", **given_options | options)


def entry(want, **fields):
    known = {"id": "1", "state": 1, "locked": False, "team": 1, "body": want.body, "tags": want.tags}
    return Entry(**known | {"metadata": want.metadata} | fields)


def upload(file: Attachment, number: int = 1, **fields) -> Upload:
    known = {"id": str(number), "name": file.name, "size": file.size, "sha256": file.sha256, "comment": file.comment}
    return Upload(**known | fields)


def test_the_key_is_that_of_the_session_and_the_destination(make_context):
    context = make_context()
    key = entries.key_of(context, "elabftw")
    assert len(key) == 32
    assert set(key) <= set("0123456789abcdef")
    assert entries.key_of(context.of_revision(2, {}), "elabftw") == key
    assert entries.key_of(context, "elab_team2") != key
    assert entries.key_of(make_context(2), "elabftw") != key


def test_a_session_over_the_change_of_the_clocks_keeps_both_offsets(make_context):
    want = wanted(make_context(dt_from="2026-10-25T01:30:00+02:00", dt_to="2026-10-25T02:30:00.5+01:00"))
    assert want.fields["UTC Offset"]["value"] == "+02:00, +01:00"
    assert want.fields["Start Time"]["value"] == "2026-10-25T01:30:00"
    assert want.fields["End Time"]["value"] == "2026-10-25T02:30:00"


def test_a_session_that_is_an_address_is_a_link(make_context):
    field = wanted(make_context(session_identifier="https://nemo/?id=1")).fields["Session ID"]
    assert (field["type"], field["value"]) == ("url", "https://nemo/?id=1")


def test_it_is_whole_with_its_revision_and_its_files(make_context):
    # Given an experiment as it was made
    want = wanted(make_context())
    made = entry(want)
    assert not entries.is_whole(made, want)

    # Then it is whole with the record, and not whole with more or other ones
    record = upload(want.record)
    whole = entry(want, uploads=(record,))
    assert entries.is_whole(whole, want)
    assert not entries.is_whole(entry(want, uploads=(record, upload(want.record, 2))), want)
    assert not entries.is_whole(entry(want, uploads=(upload(want.record, sha256="0" * 64),)), want)
    assert not entries.is_whole(entry(want, uploads=(upload(want.record, size=0),)), want)
    assert not entries.is_whole(whole, wanted(make_context().of_revision(2, {})))


def test_of_two_equal_uploads_the_older_stays_and_peoples_files_are_never_touched(make_context):
    want = wanted(make_context())
    theirs = upload(want.record, 3, name="notes.txt", comment="mine")
    both = entry(want, uploads=(upload(want.record, 1), upload(want.record, 2), theirs))
    assert [one.id for one in entries.superseded(both, want)] == ["2"]


def test_without_the_servers_hash_the_comment_tells_what_was_sent(make_context):
    want = wanted(make_context())
    assert upload(want.record, sha256=None).holds(want.record)
    assert not upload(want.record, sha256=None, comment=entries.RECORD_COMMENT).holds(want.record)


def test_merging_twice_changes_nothing_more(make_context):
    want = wanted(make_context())
    theirs = {"free": [1], "extra_fields": {"Mood": {"value": "good"}}, "elabftw": {"display_main_text": False}}
    once = entries.merged(theirs, want.fields)
    assert entries.merged(once, want.fields) == once
    assert (once["free"], once["elabftw"]["display_main_text"]) == ([1], False)
    assert once["extra_fields"]["Mood"] == {"value": "good"}


@pytest.mark.parametrize(
    "stored",
    [
        {"extra_fields": []},
        {"extra_fields": None, "elabftw": None},
        {"elabftw": {"extra_fields_groups": None}},
        {"elabftw": {"extra_fields_groups": ["x", {"id": "1", "name": "Odd"}]}},
        {"extra_fields": {"Instrument": "no object"}},
    ],
)
def test_metadata_that_people_broke_are_mended(make_context, stored):
    want = wanted(make_context())
    assert entries.value_of(entries.merged(stored, want.fields), "Instrument") == "FEI-Titan-TEM"


def test_notes_that_leave_no_room_drive_out_the_names_of_the_files(make_context):
    want = wanted(make_context(activities=[{"files": ["/data/a.raw"]}]))
    notes = "<p>" + "n" * (entries.LONGEST_BODY - len(want.short_body) - 30) + "</p>"
    body = entries.with_notes_of(f"{want.body}{notes}", want)
    assert body == f"{want.short_body}{notes}"


@given(st.lists(st.text(max_size=300), max_size=6))
def test_tags_are_such_that_the_server_keeps_them(tags):
    cleaned = entries.clean_tags(tags)
    assert all(tag.strip() == tag and 0 < len(tag) <= 255 and not set("\\|") & set(tag) for tag in cleaned)
    assert len({entries.folded(tag) for tag in cleaned}) == len(cleaned)


@given(st.text(max_size=200))
def test_what_people_wrote_below_the_line_survives_any_number_of_revisions(notes):
    want = entries.Wanted("", "", f"<hr><p>{entries.KEPT_BELOW}</p>", "", (), {}, {}, frozenset(), None, (), 1, ())
    once = entries.with_notes_of(f"<p>old</p><p>{entries.KEPT_BELOW}</p>{notes}", want)
    assert once == f"{want.body}{notes}"
    assert entries.with_notes_of(once, want) == once
