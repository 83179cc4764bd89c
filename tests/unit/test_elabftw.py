"""What an export leaves in eLabFTW: one experiment that holds everything, found again, changed in place."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator

import pytest
from elab import CDCS_URL, Elab, elab_server, hosted, with_cdcs
from tests.servers.elabftw import ARCHIVED, DELETED
from tests.servers.elabftw_calls import ADMIN, KEYS, OTHER, READER

from labrelay.errors import Conflict, Misconfigured, Rejected, Transient, Unavailable
from labrelay_worker.destinations.account import OwnAccount
from labrelay_worker.destinations.elabftw_entry import KEPT_BELOW, KEY_FIELD

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def elab() -> Iterator[Elab]:
    with elab_server() as elab:
        yield elab


@pytest.fixture
def session(make_session):
    """Return a function that gives a session of a revision, with a record of any content."""

    def build(number: int = 1, *, revision: int = 1, record: bytes | None = None, **fields):
        context = make_session(number, **fields)
        if record is not None:
            context.xml_file_path.write_bytes(record)
        content = context.xml_file_path.read_bytes()
        known = {"xml_size": len(content), "xml_sha256": hashlib.sha256(content).hexdigest()}
        return context.model_copy(update=known).of_revision(revision, {})

    return build


@pytest.fixture
def with_previews(session, tmp_path):
    """Return a session with two previews."""
    paths = [tmp_path / f"image {n} ü.png" for n in (1, 2)]
    for number, path in enumerate(paths):
        path.write_bytes(PNG + bytes([number]) * 100)
    return session(activities=[{"files": [], "previews": [str(p) for p in paths]}])


# --- what is sent --------------------------------------------------------------------------------------


def test_an_experiment_holds_what_is_known_of_the_session(elab, session):
    # When a session is sent whose record is in CDCS
    receipt = elab.send(with_cdcs(session(user="anna", record=b"<a>\r\n\xc3\x85</a>\r\n")))

    # Then the experiment has title, text, tags, fields and the record, byte for byte
    entry = elab.only
    assert entry["title"] == "NexusLIMS Experiment - record-1"
    assert "<td>session-1</td>" in entry["body"]
    assert "2026-11-20T10:00:00+01:00" in entry["body"]
    assert f'<a href="{CDCS_URL.replace("&", "&amp;")}">' in entry["body"]
    assert entry["tags"] == "NexusLIMS|FEI-Titan-TEM|anna"
    assert entry["content_type"] == 1
    values = {k: (v["type"], v["value"]) for k, v in entry["metadata_decoded"]["extra_fields"].items()}
    assert (
        values.items()
        >= {
            "Session ID": ("text", "session-1"),
            "Instrument": ("text", "FEI-Titan-TEM"),
            "Start Time": ("datetime-local", "2026-11-20T10:00:00"),
            "End Time": ("datetime-local", "2026-11-20T11:00:00"),
            "UTC Offset": ("text", "+01:00"),
            "User": ("text", "anna"),
            "CDCS Record": ("url", CDCS_URL),
            "labrelay revision": ("number", "1"),
        }.items()
    )
    assert elab.server.content(1) == {"record-1.xml": b"<a>\r\n\xc3\x85</a>\r\n"}

    # And the receipt says where it is and how that is known
    assert (receipt.record_id, receipt.unlinked) == ("1", ())
    assert receipt.record_url == f"{elab.url}/experiments.php?mode=view&id=1"
    assert receipt.verified == "read back: revision 1, record-1.xml attached, same sha256"


def test_every_extra_field_is_in_a_group_that_exists(elab, session):
    elab.send(session())
    metadata = elab.only["metadata_decoded"]
    groups = {group["id"]: group["name"] for group in metadata["elabftw"]["extra_fields_groups"]}
    placed = {name: groups[field["group_id"]] for name, field in metadata["extra_fields"].items()}
    assert placed["Instrument"] == "Session"
    assert placed[KEY_FIELD] == "labrelay"


def test_category_and_status_are_set_and_tags_can_be_left_out(elab, session):
    elab.send(session(), category=2, status=1, tags=False, title_prefix="TEM: ")
    entry = elab.only
    assert (entry["category"], entry["status"], entry["tags"]) == (2, 1, None)
    assert entry["title"] == "TEM: record-1"


def test_previews_are_attached_where_that_is_wanted(elab, with_previews):
    elab.send(with_previews, attach_previews=True)
    content = elab.server.content(1)
    assert content["image 1 ü.png"] == PNG + b"\0" * 100
    assert len(content) == 3


def test_previews_larger_than_the_server_takes_stay_away(elab, with_previews, tmp_path):
    (tmp_path / "image 1 ü.png").write_bytes(b"x" * 20_000)
    elab.send(with_previews, attach_previews=True, max_upload="16KiB")
    assert elab.server.content(1).keys() == {"record-1.xml", "image 2 ü.png"}


def test_previews_that_are_not_wanted_need_not_be_there(elab, with_previews, tmp_path):
    (tmp_path / "image 1 ü.png").unlink()
    elab.send(with_previews)
    with pytest.raises(Transient, match="mounted"):
        elab.send(with_previews.of_revision(2, {}), attach_previews=True)


@pytest.mark.parametrize("suffix", ["", "/", "/api/v2", "/api/v2/"])
def test_the_url_may_end_as_people_copy_it(elab, session, suffix):
    receipt = elab.send(session(), url=f"{elab.url}{suffix}")
    assert receipt.record_url == f"{elab.url}/experiments.php?mode=view&id=1"


@pytest.mark.parametrize(
    "name",
    [
        "Ünïcode 日本 🧪.xml",
        f"{'long' * 60}.xml",
        'it\'s "quoted" & <b>bold<b> 100% ; a=b.xml',
        "back\\slash.xml",
        "line\nbreak.xml",
        "no suffix",
    ],
)
def test_odd_names_arrive_readable_and_are_found_again(elab, session, tmp_path, name):
    # Given a record with an odd name, of odd people on an odd instrument
    path = tmp_path / name
    path.write_bytes(b"<odd/>")
    odd = '<img src=x onerror=alert(1)> | \\ "it\'s" Ü日本' * 5
    context = session(user=odd, instrument_pid=odd, session_identifier=odd)
    known = {"xml_file_path": path, "xml_size": 6, "xml_sha256": hashlib.sha256(b"<odd/>").hexdigest()}
    context = context.model_copy(update=known)

    # When it is sent, and asked about by another worker
    elab.send(context)
    found = elab.find(context)

    # Then nothing of it became markup, and it is there once
    assert found is not None
    assert "<img" not in elab.only["body"]
    assert list(elab.server.content(1).values()) == [b"<odd/>"]
    assert elab.value("User") == odd
    elab.send(context)
    assert len(elab.server.experiments) == len(elab.server.uploads) == 1


def test_an_empty_record_is_a_record(elab, session):
    receipt = elab.send(session(record=b""))
    assert elab.server.content(1) == {"record-1.xml": b""}
    assert receipt.verified.endswith("same sha256")


def test_a_large_file_is_compared_without_the_servers_hash(elab, session):
    # Given a server that hashes no file this large
    elab.server.hash_below = 10
    receipt = elab.send(session())
    assert "hashes no file this large" in receipt.verified

    # When a new record of the same size replaces it, then it is not taken for the old one
    size = len(elab.server.content(1)["record-1.xml"])
    elab.send(session(record=b"y" * size, revision=2))
    assert elab.server.content(1) == {"record-1.xml": b"y" * size}


@pytest.mark.parametrize(("length", "words"), [(300, "and 200 more"), (800, "too many to stand here")])
def test_a_session_with_very_many_files_fits_into_the_text(elab, session, length, words):
    names = [f"/data/{'folder' * length}/{n}.raw" for n in range(1200)]
    elab.send(session(activities=[{"files": [*names, "/other"]}]))
    assert words.replace("200", "201") in elab.only["body"]


# --- what is not sent ----------------------------------------------------------------------------------


def test_a_record_larger_than_the_server_takes_is_refused_before_anything_is_sent(elab, session):
    with pytest.raises(Rejected, match="max_upload"):
        elab.send(session(record=b"x" * 20_000), max_upload="16KiB")
    assert elab.server.experiments == {}


@pytest.mark.parametrize("limit", ["max_request", "max_file"])
def test_a_server_that_takes_less_than_it_was_said_refuses_for_good(elab, session, limit):
    setattr(elab.server, limit, 1000)
    with pytest.raises(Rejected, match=r"max_upload|Error reading file"):
        elab.send(session(record=b"x" * 2000))


def test_a_record_that_changed_while_it_is_sent_does_not_arrive(elab, session):
    # Given a record that was changed after its size and hash were taken
    context = session(record=b"x" * 600_000)
    context.xml_file_path.write_bytes(b"y" * 600_000)

    # When it is sent without the worker's own check before
    async def send():
        destination = elab.destination()
        try:
            await destination.export(context)
        finally:
            await destination.close()

    # Then the reason is told, and no upload is there
    with pytest.raises(Rejected, match="--replace"):
        asyncio.run(send())
    assert elab.server.uploads == {}


def test_a_record_on_a_share_that_is_away_is_tried_again(elab, session):
    context = session()
    context.xml_file_path.unlink()
    with pytest.raises(Transient):
        elab.send(context)


def test_nobody_there_leaves_no_doubt(session):
    with elab_server() as elab:
        pass
    with pytest.raises(Unavailable):
        elab.send(session())


@pytest.mark.parametrize(
    ("key", "text"), [("9-unknown", "api_key"), (READER, "may write")], ids=["unknown", "read-only"]
)
def test_a_key_that_cannot_be_used_pauses_the_destination(elab, session, key, text):
    with pytest.raises(Misconfigured, match=text) as caught:
        elab.send(session(), api_key=key)
    assert key not in str(caught.value)
    assert elab.server.experiments == {}


def test_a_team_that_forbids_new_tags_pauses_the_destination_and_leaves_one_experiment(elab, session):
    # Given a team whose users may not create tags: the server refuses after it made the experiment
    elab.server.teams[1].user_create_tag = 0
    for _ in range(3):
        with pytest.raises(Misconfigured, match="tags = false"):
            elab.send(session())

    # When the team's settings are corrected, then that same experiment is completed
    elab.server.teams[1].user_create_tag = 1
    elab.send(session(user="anna"))
    assert elab.only["tags"] == "NexusLIMS|FEI-Titan-TEM|anna"
    assert len(elab.server.experiments) == 1


def test_a_team_that_enforces_templates_pauses_the_destination(elab, session):
    elab.server.teams[1].force_exp_tpl = 1
    with pytest.raises(Misconfigured, match="template"):
        elab.send(session())


def test_a_key_of_another_team_makes_nothing_there(elab, session):
    with pytest.raises(Misconfigured, match="team 2"):
        elab.send(session(), api_key=OTHER, team=1)
    assert elab.server.experiments == {}


# --- found again ---------------------------------------------------------------------------------------


def test_the_same_session_twice_is_one_experiment(elab, session):
    first, second = elab.send(session()), elab.send(session())
    assert first.record_id == second.record_id
    assert len(elab.server.uploads) == 1
    assert elab.only


def test_the_key_is_in_the_request_that_makes_the_experiment(elab, session):
    elab.server.max_file = 0  # so that nothing comes after it
    with pytest.raises(Rejected):
        elab.send(session())
    assert len(elab.value(KEY_FIELD)) == 32


def test_find_tells_whole_from_half_made_and_from_absent(elab, session):
    # Given nothing, then a half-made experiment, then a whole one
    context = session()
    assert elab.find(context) is None
    elab.server.max_file = 0
    with pytest.raises(Rejected):
        elab.send(context)
    assert elab.find(context) is None
    elab.server.max_file = 1000
    sent = elab.send(context)
    assert elab.find(context).record_id == sent.record_id

    # Then neither another revision nor another session is found
    assert elab.find(session(revision=2, record=b"<new/>")) is None
    assert elab.find(session(2)) is None


def test_two_destinations_on_one_server_do_not_take_each_others_experiments(elab, session):
    elab.send(session(), name="elab_team1")
    elab.send(session(), name="elab_team2")
    assert len(elab.server.alive()) == 2


def test_an_experiment_that_people_renamed_is_still_found(elab, session):
    elab.send(session())
    elab.server.experiments[1]["title"] = "My best day"
    assert elab.find(session()) is not None
    elab.send(session())
    assert elab.only["title"] == "My best day"


def test_a_copy_that_people_made_is_left_alone(elab, session):
    # Given an experiment and a copy of it
    elab.send(session())
    copy = elab.server.duplicate(1)

    # When a new revision comes, then it goes to the original
    elab.send(session(revision=2, record=b"<new/>"))
    assert elab.server.experiments[copy]["title"].endswith(" I")
    assert elab.server.content(copy) == {}


def test_a_wildcard_in_the_servers_search_is_no_match(elab, session):
    # Given an experiment whose key differs from ours in its case alone
    elab.send(session())
    field = elab.server.experiments[1]["metadata"]["extra_fields"][KEY_FIELD]
    field["value"] = field["value"].upper()
    assert field["value"] != field["value"].lower()
    # Then it is another one
    assert elab.find(session()) is None


def test_it_is_found_behind_many_pages(elab, session):
    # Given more entries that the search matches than fit into two pages
    elab.send(session())
    ours = elab.server.experiments[1]
    key = ours["metadata"]["extra_fields"][KEY_FIELD]["value"]
    for _ in range(120):
        elab.server._store(ours | {"metadata": {"extra_fields": {KEY_FIELD: {"value": key.upper()}}}})
    assert elab.find(session()).record_id == "1"


def test_a_deleted_experiment_is_not_there_and_is_made_anew(elab, session):
    elab.send(session())
    elab.server.experiments[1]["state"] = DELETED
    assert elab.find(session()) is None
    assert elab.send(session()).record_id == "2"


@pytest.mark.parametrize("what", ["locked", "archived"])
def test_an_experiment_that_cannot_be_changed_counts_while_whole_and_names_the_cure_otherwise(elab, session, what):
    # Given a whole experiment that was locked or archived
    elab.send(session())
    elab.server.experiments[1].update({"locked": 1} if what == "locked" else {"state": ARCHIVED})
    assert elab.find(session()) is not None
    assert elab.send(session()).record_id == "1"

    # When a new revision comes, then it says what to do
    with pytest.raises(Rejected, match=f"{what}; undo that"):
        elab.send(session(revision=2, record=b"<new/>"))
    assert len(elab.server.uploads) == 1


def test_eight_sessions_at_once_are_eight_experiments(elab, session):
    # Given eight sessions of one instrument, each sent by two workers that share an account
    account = OwnAccount()
    contexts = [session(number) for number in range(8)] * 2
    hosts = [hosted(elab.destination(), account) for _ in contexts]

    async def send_all():
        try:
            pairs = zip(hosts, contexts, strict=True)
            return await asyncio.gather(*(host.export(context, attempt=1) for host, context in pairs))
        finally:
            await asyncio.gather(*(host.close() for host in hosts))

    receipts = asyncio.run(send_all())

    # Then each is there once, whole
    assert len(elab.server.alive()) == len({receipt.record_id for receipt in receipts}) == 8
    assert all(len(entry["uploads"]) == 1 for entry in elab.server.alive())


# --- a new revision, in place --------------------------------------------------------------------------


def test_a_new_revision_changes_everything_in_place(elab, session):
    # When a session is delivered again with another user and record
    before = elab.send(session(user="anna"))
    after = elab.send(session(user="berta", record=b"<new/>").of_revision(2, {"elabftw": before}))

    # Then the same experiment says so, and the old record is among the archived files
    assert after.record_id == before.record_id == "1"
    entry = elab.only
    assert ("berta" in entry["body"], "anna" in entry["body"]) == (True, False)
    assert (elab.value("User"), elab.value("labrelay revision")) == ("berta", "2")
    assert elab.server.content(1) == {"record-1.xml": b"<new/>"}
    assert [upload["state"] for upload in elab.server.uploads.values()] == [ARCHIVED, 1]


def test_the_old_record_stays_until_the_new_one_is_there(elab, session):
    # Given a server that takes no more files
    elab.send(session())
    elab.server.max_file = 0
    # When a new revision comes, then the old one stays whole
    with pytest.raises(Rejected):
        elab.send(session(revision=2, record=b"<new/>"))
    assert len(elab.only["uploads"]) == 1
    assert elab.find(session()) is not None


def test_what_people_added_survives_a_new_revision(elab, session):
    # Given notes, a field, a group, a file and a status that people added
    first = elab.send(session())
    entry = elab.server.experiments[1]
    entry["body"] += "<p>My notes</p>"
    entry["metadata"]["extra_fields"]["Mood"] = {"type": "text", "value": "good", "group_id": 9}
    entry["metadata"]["elabftw"]["extra_fields_groups"].append({"id": 9, "name": "Mine"})
    entry["metadata"]["extra_fields"]["Instrument"]["description"] = "the big one"
    entry["status"] = 2
    elab.server._keep(entry, {"file": ("mine.txt", b"mine")}, next(iter(KEYS.values())))

    # When the next revision arrives
    elab.send(session(revision=2, record=b"<new/>").of_revision(2, {"elabftw": first}), status=1)

    # Then all of it is there, once
    entry = elab.only
    assert entry["body"].count("My notes") == 1
    assert entry["body"].count(KEPT_BELOW) == 1
    assert (elab.value("Mood"), entry["status"]) == ("good", 2)
    assert entry["metadata_decoded"]["extra_fields"]["Instrument"]["description"] == "the big one"
    assert {"id": 9, "name": "Mine"} in entry["metadata_decoded"]["elabftw"]["extra_fields_groups"]
    assert elab.server.content(1).keys() == {"record-1.xml", "mine.txt"}


def test_a_text_that_people_wrote_anew_is_kept_whole(elab, session):
    elab.send(session())
    elab.server.experiments[1]["body"] = "<p>All mine</p>"
    elab.send(session(revision=2, record=b"<new/>"))
    assert elab.only["body"].endswith("<p>All mine</p>")


def test_new_previews_replace_the_old_ones(elab, with_previews, tmp_path):
    elab.send(with_previews, attach_previews=True)
    (tmp_path / "image 1 ü.png").write_bytes(PNG + b"new")
    elab.send(with_previews.of_revision(2, {}), attach_previews=True)
    content = elab.server.content(1)
    assert (len(content), content["image 1 ü.png"]) == (3, PNG + b"new")


def test_a_revision_of_a_deleted_experiment_is_a_new_one(elab, session):
    first = elab.send(session())
    elab.server.experiments[1]["state"] = DELETED
    second = elab.send(session(revision=2).of_revision(2, {"elabftw": first}))
    assert second.record_id == "2"


def test_an_older_revision_does_not_overwrite_a_newer_one(elab, session):
    elab.send(session(revision=3, record=b"<new/>"))
    with pytest.raises(Conflict, match="revision 3"):
        elab.send(session(revision=2))
    assert elab.server.content(1) == {"record-1.xml": b"<new/>"}


# --- the link to CDCS ----------------------------------------------------------------------------------


def test_a_link_that_comes_later_is_added_to_text_and_fields_once(elab, session):
    # Given an experiment that went out before its record was in CDCS, with notes below
    receipt = elab.send(session())
    assert receipt.unlinked == ("cdcs",)
    elab.server.experiments[1]["body"] += "<p>My notes</p>"

    # When the link is added, three times
    for _ in range(3):
        linked = elab.link(with_cdcs(session()), receipt)

    # Then it is there once, the notes stay, and it was written once
    assert (linked.unlinked, linked.record_id) == ((), "1")
    assert elab.only["body"].count("https://cdcs.example.org/data") == 2  # address and text of one link
    assert "My notes" in elab.only["body"]
    assert elab.value("CDCS Record") == CDCS_URL
    assert sum(seen.method == "PATCH" for seen in elab.server.faults.seen) == 2
    assert elab.find(session()).unlinked == ()


def test_a_repository_without_an_address_is_not_waited_for(elab, session):
    receipt = elab.send(session())
    assert elab.link(with_cdcs(session(), url=""), receipt).unlinked == ()
    assert "CDCS Record" not in elab.only["metadata_decoded"]["extra_fields"]


def test_a_link_is_missed_although_it_is_known_by_now(elab, session):
    # Given an experiment made without its link, whose receipt was lost
    elab.send(session())
    # When another worker finds it after the record is there, then it says that the link is to be added
    assert elab.find(with_cdcs(session())).unlinked == ("cdcs",)


def test_a_new_revision_without_its_link_says_so(elab, session):
    elab.send(with_cdcs(session()))
    receipt = elab.send(session(revision=2, record=b"<new/>"))
    assert receipt.unlinked == ("cdcs",)
    assert CDCS_URL not in elab.only["body"]
    assert elab.link(with_cdcs(session(revision=2, record=b"<new/>")), receipt).unlinked == ()


@pytest.mark.parametrize("how", ["deleted", "locked"])
def test_an_experiment_that_cannot_get_a_link_says_why(elab, session, how):
    receipt = elab.send(session())
    elab.server.experiments[1].update({"state": DELETED} if how == "deleted" else {"locked": 1})
    with pytest.raises(Rejected, match=how):
        elab.link(with_cdcs(session()), receipt)


# --- at the end ----------------------------------------------------------------------------------------


def test_closing_twice_and_using_it_again_does_no_harm(elab, session):
    async def use():
        destination = elab.destination(api_key=ADMIN)
        await destination.export(session())
        await destination.close()
        await destination.close()
        await destination.export(session(2))
        await destination.close()

    asyncio.run(use())
    assert len(elab.server.alive()) == 2
