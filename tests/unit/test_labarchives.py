"""What LabArchives gets of a session, and how it is found again, against a real HTTP server of this machine."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from labarchives_bench import CDCS, SECRETS, Bench, bench, with_cdcs

from labrelay.context import ExportContext
from labrelay.errors import Misconfigured, Rejected, Transient
from labrelay_worker.destinations.account import OwnAccount
from labrelay_worker.destinations.labarchives_page import LONGEST_NAME, clean_name, key_in

__all__ = ["bench"]

Build = Callable[..., ExportContext]
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture
def context(make_session: Build) -> ExportContext:
    return make_session(1, user="Ångström")


def with_previews(context: ExportContext, folder: Path, *contents: bytes) -> ExportContext:
    previews = []
    for number, content in enumerate(contents):
        previews.append(folder / f"preview {number}.png")
        previews[-1].write_bytes(content)
    files = [f"/data/image {number}.dm3" for number in range(len(contents))]
    activities = [{"files": files, "previews": [str(preview) for preview in previews]}]
    return ExportContext.parse({**context.model_dump(exclude={"schema_version"}), "activities": activities})


# --- what lands where ----------------------------------------------------------------------------------


def test_a_session_gets_a_page_below_its_instrument(bench: Bench, context: ExportContext) -> None:
    # When a session is delivered into an empty notebook
    receipt = bench.send(context)
    # Then folder, instrument and page are there, and the receipt says where
    assert bench.page["path"] == "NexusLIMS Records / FEI-Titan-TEM / 2026-11-20 — session-1"
    assert receipt.record_id == bench.text["eid"]
    assert receipt.metadata["tree_id"] == bench.page["tree_id"]
    assert receipt.metadata["attachment_eid"] == bench.record["eid"]
    assert receipt.record_url == f"{bench.url}/#/nb%2F1%2B%3D/3%2FTree%2BNode%3D"
    assert receipt.verified == "entry listed, attachment read back with the same checksum"


def test_the_record_is_attached_byte_for_byte(bench: Bench, context: ExportContext) -> None:
    # Given a record with CRLF and other bytes than text
    context.xml_file_path.write_bytes(b"<a>\r\n\xff\x00\xc3\x85</a>\r\n" * 100_000)
    # When it is delivered, then it is there as it was
    bench.send(context)
    assert base64.b64decode(bench.record["base64"]) == context.xml_file_path.read_bytes()
    assert bench.record["file_name"] == "record-1.xml"
    assert bench.record["caption"].startswith("NexusLIMS XML record ")


def test_the_entry_tells_the_session_and_shows_its_previews(
    bench: Bench, context: ExportContext, tmp_path: Path
) -> None:
    # Given a session with five previews, when it is delivered
    receipt = bench.send(with_previews(context, tmp_path, *[PNG] * 5))
    # Then they can be seen in the entry, four a row, beside facts and files
    html = bench.text["data"]
    assert html.count(f"data:image/png;base64,{base64.b64encode(PNG).decode()}") == 5
    for fact in ("session-1", "FEI-Titan-TEM", "Ångström", "2026-11-20T10:00:00+01:00", "image 4.dm3"):
        assert fact in html
    assert receipt.metadata["previews"] == 5


def test_previews_that_have_no_room_are_named(bench: Bench, context: ExportContext, tmp_path: Path) -> None:
    # Given room for one preview of two, when the session is delivered
    receipt = bench.send(with_previews(context, tmp_path, PNG, PNG + bytes(9000)), preview_bytes=1000)
    # Then the other one is named, and the entry stays small
    assert receipt.metadata["previews"] == 1
    assert "preview 1.png" in bench.text["data"]
    assert len(bench.text["data"]) < 4000


def test_the_entry_links_to_the_record_in_cdcs(bench: Bench, context: ExportContext) -> None:
    # When CDCS has the record already, then the entry leads there, and nothing is left to be linked
    receipt = bench.send(with_cdcs(context))
    assert f'href="{CDCS}"' in bench.text["data"]
    assert receipt.unlinked == ()


def test_markup_in_a_session_is_text(bench: Bench, make_session: Build) -> None:
    # Given names with markup in them, when the session is delivered
    evil = "<script>alert('1')</script>"
    bench.send(make_session(1, user=evil, session_identifier=f'"{evil}"', instrument_pid=f"a & {evil}"))
    # Then it is shown and not run
    assert "<script" not in bench.text["data"]
    assert "&lt;script&gt;" in bench.text["data"]
    assert bench.page["path"].startswith(f"NexusLIMS Records / a & {evil} / ")


@pytest.mark.parametrize(
    "name",
    [
        "Ö ß — 東京 🔬",
        "x" * 300,
        "quote ' \" `",
        "a/b\\..\\../c",
        "<b>&amp;</b>",
        "a\nb\tc\x00",
        "e\u0301 + %20 = ?&#",
    ],
)
def test_odd_names_are_found_again(bench: Bench, make_session: Build, name: str) -> None:
    # Given a session and an instrument with such a name, when it is delivered twice
    context = make_session(1, session_identifier=name, instrument_pid=f"i {name}")
    first, second = bench.send(context), bench.send(context)
    # Then the second finds what the first made
    assert first.record_id == second.record_id == bench.text["eid"]
    assert bench.page["path"].count("\n") == 0


def test_long_names_that_begin_alike_stay_apart(make_session: Build) -> None:
    # Given two long names that differ at their end, then so do those of their pages
    names = {clean_name("x" * 300 + end) for end in "ab"}
    assert len(names) == 2
    assert {len(name) for name in names} == {LONGEST_NAME}


def test_a_long_file_name_keeps_its_ending(bench: Bench, context: ExportContext) -> None:
    # Given a record with the longest name that a file may have, when it is delivered
    record = context.xml_file_path.rename(context.xml_file_path.with_name("r" * 251 + ".xml"))
    bench.send(context.model_copy(update={"xml_file_path": record}))
    # Then people can still open it
    assert bench.record["file_name"].endswith(".xml")


def test_an_empty_record_arrives_as_it_is(bench: Bench, context: ExportContext) -> None:
    # Given a record without content, when it is delivered, then so is the attachment
    context.xml_file_path.write_bytes(b"")
    bench.send(context)
    assert bench.record["size"] == 0


def test_a_shared_notebook_and_another_account_are_kept_apart(bench: Bench, context: ExportContext) -> None:
    # Given the same session for two accounts, when both deliver
    bench.send(context)
    bench.send(
        context, access_key_id="akid-two", access_password="pass/word+two==", user_id="uid+two/==", notebook_id="nb-2"
    )
    # Then each notebook has it once
    assert sorted(page["notebook"] for page in bench.server.pages) == ["nb-2", "nb/1+="]


# --- found again ---------------------------------------------------------------------------------------


def test_what_was_delivered_is_found(bench: Bench, context: ExportContext) -> None:
    # Given a delivered session, when its outcome is asked for, then it is the same
    sent, found = bench.send(context), bench.find(context)
    assert found is not None
    assert (found.record_id, found.record_url, found.metadata) == (sent.record_id, sent.record_url, sent.metadata)


def test_nothing_is_found_where_nothing_is_and_nothing_is_made(bench: Bench, context: ExportContext) -> None:
    # Given an empty notebook, when it is asked, then the answer is no
    assert bench.find(context) is None
    assert bench.server.state()["tree"] == []


def test_another_revision_is_not_this_one(bench: Bench, context: ExportContext) -> None:
    # Given a delivered session, when its next revision is asked for, then it is not there
    bench.send(context)
    assert bench.find(context.of_revision(2, {})) is None


@pytest.mark.parametrize("after", ["insert_node", "add_entry", "add_attachment"])
def test_a_half_made_page_is_not_found_but_completed(bench: Bench, context: ExportContext, after: str) -> None:
    # Given a session of which only a part arrived
    bench.send(context)
    entries = bench.server.store.entries
    kept = {"insert_node": 0, "add_entry": 1, "add_attachment": 2}[after]
    for eid in list(entries)[kept:]:
        del entries[eid]
    # When it is asked for, then it is there only if it is whole
    assert (bench.find(context) is not None) == (after == "add_attachment")
    # When it is sent again, then the same page is completed
    bench.send(context)
    assert bench.text
    assert bench.record


def test_an_attachment_that_was_damaged_is_not_found_but_replaced(bench: Bench, context: ExportContext) -> None:
    # Given an attachment of the right size with another content
    bench.send(context)
    stored = bench.server.store.entries[bench.record["eid"]]
    stored.content = bytes(len(stored.content))
    # When it is asked for, then it is not there, and sending again replaces it
    assert bench.find(context) is None
    bench.send(context)
    assert base64.b64decode(bench.record["base64"]) == context.xml_file_path.read_bytes()
    assert bench.record["version"] == 2


def test_of_pages_with_one_name_the_own_one_is_taken(bench: Bench, context: ExportContext) -> None:
    # Given a delivered session, and before it a page of the same name that somebody else made
    bench.send(context)
    own = bench.server.store.nodes.copy()
    page = bench.page
    bench.server.store.insert(page["notebook"], list(own)[1], "2026-11-20 — session-1", is_page=True)
    bench.server.store.nodes = dict(reversed(bench.server.store.nodes.items()))
    # When it is sent again, then nothing is added
    before = len(bench.server.store.entries)
    bench.send(context)
    assert len(bench.server.store.entries) == before == 2


def test_a_page_that_another_tool_made_gets_the_entry(bench: Bench, context: ExportContext) -> None:
    # Given a page of this name with somebody's text, when the session is delivered
    bench.send(context)
    for entry in bench.server.store.entries.values():
        entry.data = entry.caption = "a text of somebody"
    bench.send(context)
    # Then it is on that page, and the text is untouched
    assert len(bench.page["entries"]) == 4
    assert next(entry.data for entry in bench.server.store.entries.values()) == "a text of somebody"


def test_a_page_of_another_export_is_left_alone(bench: Bench, make_session: Build) -> None:
    # Given two sessions whose names differ in blanks alone, which a page's name does not show
    first, second = (make_session(1, session_identifier=f"a{blanks}b") for blanks in (" ", "  "))
    # When both are delivered, then each has a page of its own
    bench.send(first)
    bench.send(second)
    assert [page["path"].endswith("— a b") for page in bench.server.pages] == [True, True]
    assert [len(page["entries"]) for page in bench.server.pages] == [2, 2]


# --- a new revision, and links -------------------------------------------------------------------------


def test_a_new_revision_changes_page_entry_and_attachment_in_place(bench: Bench, context: ExportContext) -> None:
    # Given a delivered session whose record and day changed, on a page that somebody moved
    receipt = bench.send(context)
    bench.server.store.nodes[bench.page["tree_id"]].parent = "1/Tree+Node="
    context.xml_file_path.write_bytes(b"<new/>")
    changed = context.model_copy(update={"dt_from": context.dt_from.replace(day=19), "user": "somebody else"})
    # When the next revision is delivered
    after = bench.send(changed.of_revision(2, {"labarchives": receipt}))
    # Then the same page has it
    assert (after.record_id, after.metadata["tree_id"]) == (receipt.record_id, receipt.metadata["tree_id"])
    assert bench.page["path"] == "NexusLIMS Records / 2026-11-19 — session-1"
    assert "somebody else" in bench.text["data"]
    assert base64.b64decode(bench.record["base64"]) == b"<new/>"
    assert (bench.text["version"], bench.record["version"]) == (2, 2)


def test_a_page_that_was_renamed_keeps_its_name(bench: Bench, context: ExportContext) -> None:
    # Given a delivered session whose page got another name
    receipt = bench.send(context)
    bench.server.store.nodes[bench.page["tree_id"]].text = "the good one"
    # When the next revision is delivered, then it is there, under that name
    bench.send(context.of_revision(2, {"labarchives": receipt}))
    assert bench.page["path"].endswith("the good one")
    assert bench.text["version"] == 2


def test_a_page_that_was_taken_away_is_made_again(bench: Bench, context: ExportContext) -> None:
    # Given a receipt of a page that is gone
    receipt = bench.send(context)
    bench.server.store.nodes.popitem()
    bench.server.store.entries.clear()
    # When the next revision is delivered, then it has a page again
    bench.send(context.of_revision(2, {"labarchives": receipt}))
    assert bench.text


def test_an_entry_without_a_link_gets_it_later_and_once(bench: Bench, context: ExportContext) -> None:
    # Given a session that went out before CDCS had it
    receipt = bench.send(context)
    assert receipt.unlinked == ("cdcs",)
    # When the link is added twice
    linked = bench.link(with_cdcs(context), receipt)
    again = bench.link(with_cdcs(context), linked)
    # Then the entry has it, was changed once, and nothing else was
    assert (linked.unlinked, again.unlinked) == ((), ())
    assert bench.text["data"].count(f'href="{CDCS}"') == 1
    assert (bench.text["version"], bench.record["version"]) == (2, 1)
    assert linked.record_id == receipt.record_id


# --- what is refused before anything is sent ------------------------------------------------------------


def test_a_record_that_is_too_large_is_refused_before(bench: Bench, context: ExportContext) -> None:
    # Given an account that takes 10 bytes, when a session is sent
    bench.server.store.users[0].max_file_size = 10
    with pytest.raises(Rejected, match="files up to 10"):
        bench.send(context)
    # Then only the limit was asked for
    assert bench.asked == ["max_file_size"]


def test_the_limit_is_asked_for_once(bench: Bench, context: ExportContext) -> None:
    # Given one destination, when it delivers twice, then it remembers
    async def twice() -> None:
        destination = bench.destination()
        for _ in range(2):
            await destination.export(context)
        await destination.close()

    asyncio.run(twice())
    assert bench.asked.count("max_file_size") == 1


def test_a_changed_record_is_refused_before(bench: Bench, context: ExportContext) -> None:
    # Given a record that is not what was submitted, when it is sent, then nothing goes out
    with pytest.raises(Rejected, match="--replace"):
        bench.export(context.model_copy(update={"xml_sha256": "0" * 64}))
    assert bench.asked == []


def test_a_missing_record_is_awaited(bench: Bench, make_context: Build) -> None:
    # Given a record on a share that is away, when it is sent, then it is tried again later
    with pytest.raises(Transient, match="mounted"):
        bench.export(make_context())
    assert bench.asked == []


@pytest.mark.parametrize("notebook", ["", "0", " "])
def test_the_inbox_is_refused_with_the_reason(bench: Bench, notebook: str) -> None:
    # When no notebook is named, then the setting is refused, for the Inbox cannot be searched
    with pytest.raises(ValueError, match="Inbox cannot be searched"):
        bench.destination(notebook_id=notebook)


# --- many at once ---------------------------------------------------------------------------------------


def test_eight_sessions_at_once_make_one_folder_and_one_instrument(bench: Bench, make_session: Build) -> None:
    # Given eight sessions of one instrument and four destinations that share an account
    sessions = [make_session(number) for number in range(8)]
    account = OwnAccount()

    async def all_at_once() -> None:
        destinations = [bench.destination(account) for _ in range(4)]
        await asyncio.gather(*(destinations[number % 4].export(session) for number, session in enumerate(sessions)))
        await asyncio.gather(*(destination.close() for destination in destinations))

    # When all are delivered at once
    asyncio.run(all_at_once())
    # Then there is one folder, one instrument, and a page for each
    tree = bench.server.state()["tree"]
    assert [node["is_page"] for node in tree].count(False) == 2
    assert len({page["path"] for page in bench.server.pages}) == len(bench.server.pages) == 8


def test_one_session_eight_times_at_once_is_one_page(bench: Bench, context: ExportContext) -> None:
    # Given four destinations that share an account
    account = OwnAccount()

    async def all_at_once() -> set[str | None]:
        destinations = [bench.destination(account) for _ in range(4)]
        results = await asyncio.gather(*(destination.export(context) for destination in destinations * 2))
        await asyncio.gather(*(destination.close() for destination in destinations))
        return {result.record_id for result in results}

    # When each delivers the same session twice, then there is one of everything
    assert asyncio.run(all_at_once()) == {bench.text["eid"]}
    assert bench.record


# --- whether it could deliver ----------------------------------------------------------------------------


def test_a_good_configuration_is_confirmed_with_one_request(bench: Bench) -> None:
    # When all is right, then it says so
    assert bench.call(lambda host: host.validate_config()) == (True, None)
    assert bench.asked == ["get_tree_level"]


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("access_key_id", "nobody", "correct access_key_id"),
        ("access_password", "wrong", "correct access_password"),
        ("user_id", "uid+two/==", "check user_id"),
        ("notebook_id", "nb-9", "notebook_id: LabArchives error 4529"),
        ("notebook_id", "nb-2", "notebook_id: LabArchives error 4547"),
        ("url", "http://127.0.0.1:9/api", "no connection to 127.0.0.1:9"),
        ("url", "{url}/elsewhere", "correct url"),
        ("tls", {"ca_file": "/no/such.pem"}, "correct ca_file"),
    ],
)
def test_each_wrong_option_is_named(bench: Bench, option: str, value: Any, said: str) -> None:
    # When one option is wrong, then the text says which, and holds no secret
    value = value.replace("{url}", bench.url) if isinstance(value, str) else value
    valid, text = bench.call(lambda host: host.validate_config(), **{option: value})
    assert not valid
    assert said in (text or "")
    assert not any(secret in (text or "") for secret in SECRETS)


def test_a_folder_that_may_not_be_written_is_named(bench: Bench, context: ExportContext) -> None:
    # Given a notebook that is open for reading alone, with the folder in it
    bench.send(context, notebook_id="nb-3")
    reader = {"access_key_id": "akid-two", "access_password": "pass/word+two==", "user_id": "uid+two/=="}
    # When it is asked, then the right is missing
    valid, text = bench.call(lambda host: host.validate_config(), notebook_id="nb-3", **reader)
    assert not valid
    assert "may not write to 'NexusLIMS Records'" in (text or "")


def test_a_rejected_login_pauses_and_tells_no_secret(bench: Bench, context: ExportContext) -> None:
    # Given a server that repeats the user id and the signature in its error texts, when logins are wrong
    for option, value in (("user_id", "uid-nobody"), ("access_password", "wrong-password")):
        with pytest.raises(Misconfigured) as caught:
            bench.export(context, **{option: value})
        # Then neither is in the error
        assert value not in str(caught.value)
        assert not any(secret in str(caught.value) for secret in SECRETS)


def test_the_key_survives_what_an_editor_does_to_markup() -> None:
    # Given a key among tags and entities, then it is read
    key = "labrelay:6f0d4c36-5c5c-5a7e-9d0f-2f6f5b1c7a10.12.0123456789abcdef"
    assert str(key_in(f"<p>&nbsp;{key}</p>")) == key
    assert key_in("<p>labrelay:nothing</p>") is None
