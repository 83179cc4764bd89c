"""One delivery to CDCS and what it leaves there."""

from __future__ import annotations

import asyncio

import pytest
from cdcs_parts import ALICE, SUMMARY, Cdcs, asked, nexus, receipt_of
from tests.servers.cdcs import PUBLISHER, ROBOT
from tests.servers.cdcs_store import XSD

from labrelay.errors import Conflict, Misconfigured, Rejected, Transient


def test_a_record_is_published_byte_for_byte_under_its_file_stem(cdcs: Cdcs) -> None:
    # Given a record with CRLF line ends, a comment and characters beyond ASCII
    context = cdcs.session(stem="2026-11-20_FEI-Titan_1")

    # When it is delivered
    result = cdcs.send(context)

    # Then the server has these very characters, in the public workspace, and the result says how that is known
    (record,) = cdcs.server.records
    assert record.xml_content.encode() == context.xml_file_path.read_bytes()
    assert (record.title, record.workspace) == ("2026-11-20_FEI-Titan_1", cdcs.server.workspace.id)
    assert record.template == cdcs.server.template.versions[-1]
    assert (result.record_id, result.record_url) == (str(record.id), f"{cdcs.url}/data?id={record.id}")
    assert result.metadata["verified"] == f"read back: byte-identical, in workspace {record.workspace}"


def test_a_delivery_creates_and_publishes_in_one_request(cdcs: Cdcs) -> None:
    cdcs.send(cdcs.session())
    assert asked(cdcs) == [
        "GET /rest/template-version-manager/global/",
        "GET /rest/workspace/read_access/",
        "GET /pid/rest/settings/",
        "GET /rest/admin/data/",
        "GET /rest/admin/data/",
        f"GET /rest/template/{cdcs.server.template.versions[-1]}/download/",
        "POST /rest/data/",
        f"GET /rest/data/{cdcs.server.records[0].id}/",
    ]


def test_sending_again_makes_no_second_record(cdcs: Cdcs) -> None:
    context = cdcs.session()
    first, second = cdcs.send(context), cdcs.send(context)
    assert first.record_id == second.record_id
    assert len(cdcs.server.records) == 1
    assert cdcs.find(context) is not None


def test_nothing_is_found_before_anything_was_sent(cdcs: Cdcs) -> None:
    assert cdcs.find(cdcs.session()) is None


def test_a_new_revision_changes_the_record_in_place(cdcs: Cdcs) -> None:
    # Given a delivered record
    first = cdcs.send(cdcs.session())

    # When its next revision has other content
    context = cdcs.session(record=nexus("corrected")).of_revision(2, {"cdcs": receipt_of(first)})
    second = cdcs.send(context, receipt_of(first))

    # Then the same record holds it
    (record,) = cdcs.server.records
    assert second.record_id == first.record_id
    assert record.xml_content.encode() == nexus("corrected")
    assert cdcs.find(context) is not None


def test_a_new_revision_of_a_deleted_record_is_made_anew(cdcs: Cdcs) -> None:
    first = cdcs.send(cdcs.session())
    cdcs.server.store.records.clear()
    second = cdcs.send(cdcs.session(record=nexus("corrected")).of_revision(2, {}), receipt_of(first))
    assert second.record_id != first.record_id
    assert len(cdcs.server.records) == 1


def test_a_new_revision_under_another_file_name_takes_its_title_along(cdcs: Cdcs) -> None:
    first = cdcs.send(cdcs.session(stem="old"))
    cdcs.send(cdcs.session(stem="new").of_revision(2, {}), receipt_of(first))
    assert [record.title for record in cdcs.server.records] == ["new"]


def test_a_title_that_a_curator_chose_is_kept(cdcs: Cdcs) -> None:
    # Given a delivered record that somebody renamed at the server
    first = cdcs.send(cdcs.session())
    cdcs.server.records[0].title = "Nice images"

    # When the next revision comes
    context = cdcs.session(record=nexus("corrected")).of_revision(2, {"cdcs": receipt_of(first)})
    cdcs.send(context, receipt_of(first))

    # Then the title stays, and the record is found by what the receipt says
    assert [record.title for record in cdcs.server.records] == ["Nice images"]
    assert cdcs.find(context) is not None


# --- two sessions with files of one name ---------------------------------------------------------------


def test_two_sessions_with_the_same_file_name_never_overwrite_each_other(cdcs: Cdcs) -> None:
    # Given two sessions whose records have one name
    one, other = cdcs.session(1, stem="record"), cdcs.session(2, stem="record")

    # When both are delivered, again and again
    for context in (one, other, one, other):
        cdcs.send(context)

    # Then there are two records, each with its own content; the second title names its session
    first, second = cdcs.server.records
    assert (first.xml_content.encode(), second.xml_content.encode()) == (nexus("Å 1"), nexus("Å 2"))
    assert first.title == "record"
    assert second.title == f"record ({other.export_id.replace('-', '')[:12]})"
    assert cdcs.find(one).record_id == str(first.id)
    assert cdcs.find(other).record_id == str(second.id)


def test_revisions_of_sessions_with_the_same_file_name_stay_apart(cdcs: Cdcs) -> None:
    receipts = [receipt_of(cdcs.send(cdcs.session(number, stem="record"))) for number in (1, 2)]
    for number, receipt in zip((1, 2), receipts, strict=True):
        cdcs.send(cdcs.session(number, nexus(f"new {number}"), stem="record").of_revision(2, {}), receipt)
    assert [record.xml_content.encode() for record in cdcs.server.records] == [nexus("new 1"), nexus("new 2")]


def test_a_rebuilt_record_of_the_same_raw_files_is_changed_in_place(cdcs: Cdcs) -> None:
    # Given a record that NexusLIMS exported, and that was built anew since
    files = ("titan/a%20b.dm3", "titan/c.dm3")
    cdcs.send(cdcs.session(1, nexus("EELS", files=files, inside=f"{SUMMARY}<sample id='1'/>")))

    # When labrelay delivers the new one, without any receipt
    rebuilt = nexus("EELS", files=files, inside=f"{SUMMARY}<sample id='2'/>")
    cdcs.send(cdcs.session(1, rebuilt))

    # Then it is the same record
    (record,) = cdcs.server.records
    assert record.xml_content.encode() == rebuilt


def test_an_identifier_inside_the_record_tells_sessions_apart(cdcs: Cdcs) -> None:
    cdcs.send(cdcs.session(1, nexus("EELS", inside="<id>s-1</id>"), stem="record"))
    cdcs.send(cdcs.session(1, nexus("EELS 2", inside="<id>s-1</id>"), stem="record"))
    cdcs.send(cdcs.session(2, nexus("EELS 2", inside="<id>s-2</id>"), stem="record"))
    assert [record.xml_content.encode() for record in cdcs.server.records] == [
        nexus("EELS 2", inside="<id>s-1</id>"),
        nexus("EELS 2", inside="<id>s-2</id>"),
    ]


def test_a_later_revision_does_not_guess_whose_a_record_is(cdcs: Cdcs) -> None:
    # Given a record of this title of which nothing tells whether it is an earlier revision
    cdcs.send(cdcs.session(1, stem="record"))

    # When revision 2 of some session comes without a receipt, then a person is asked, and nothing is changed
    with pytest.raises(Conflict, match="whether it is an earlier revision"):
        cdcs.send(cdcs.session(2, stem="record").of_revision(2, {}))
    assert [record.xml_content.encode() for record in cdcs.server.records] == [nexus("Å 1")]


def test_a_plain_account_finds_its_record_among_many(cdcs: Cdcs) -> None:
    # Given more records of one title than a page holds
    store, publisher = cdcs.server.store, cdcs.server.store.users[4]
    for _ in range(12):
        store.insert(
            {"template": cdcs.server.template.versions[-1], "title": "record", "xml_content": "<a/>"}, publisher
        )
    context = cdcs.session(stem="record")

    # When a plain account delivers twice, then there is one more
    cdcs.send(context, token=PUBLISHER)
    cdcs.send(context, token=PUBLISHER)
    assert len(cdcs.server.records) == 13


# --- the workspace ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_body", ["ignored", "refused"])
def test_where_the_workspace_cannot_come_along_it_is_assigned_afterwards(cdcs: Cdcs, in_body: str) -> None:
    cdcs.server.workspace_in_body = in_body
    cdcs.send(cdcs.session())
    (record,) = cdcs.server.records
    assert record.workspace == cdcs.server.workspace.id


def test_a_record_that_nobody_can_see_is_no_success(cdcs: Cdcs) -> None:
    # Given an account that may not publish, at a server that ignores the workspace of a new record
    cdcs.server.workspace_in_body = "ignored"
    context = cdcs.session()

    # When it delivers, then that is an error which says what is missing
    with pytest.raises(Misconfigured, match=r"may not publish into workspace 'Global Public Workspace'.*superuser"):
        cdcs.send(context, token=ROBOT)
    assert cdcs.find(context, token=ROBOT) is None

    # When it gets the right, then the same record is completed
    cdcs.server.store.users[3].may_publish = True
    cdcs.send(context, token=ROBOT)
    (record,) = cdcs.server.records
    assert record.workspace == cdcs.server.workspace.id


def test_an_account_that_may_not_publish_leaves_nothing_behind(cdcs: Cdcs) -> None:
    with pytest.raises(Misconfigured, match="may not publish"):
        cdcs.send(cdcs.session(), token=ROBOT)
    assert cdcs.server.records == []


def test_an_empty_workspace_keeps_records_private(cdcs: Cdcs) -> None:
    result = cdcs.send(cdcs.session(), workspace="", token=ROBOT)
    assert cdcs.server.records[0].workspace is None
    assert result.metadata["verified"].endswith("private")


@pytest.mark.parametrize("by", ["title", "id"])
def test_a_workspace_is_chosen_by_title_or_id(cdcs: Cdcs, by: str) -> None:
    private = cdcs.server.private_workspace
    cdcs.send(cdcs.session(), workspace=private.title if by == "title" else private.id)
    assert cdcs.server.records[0].workspace == private.id


def test_a_record_that_a_curator_moved_stays_where_it_is(cdcs: Cdcs) -> None:
    context = cdcs.session()
    cdcs.send(context)
    cdcs.server.records[0].workspace = cdcs.server.private_workspace.id
    cdcs.send(context)
    assert cdcs.server.records[0].workspace == cdcs.server.private_workspace.id


# --- the template ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["title", "id"])
def test_a_template_is_chosen_by_title_or_id_whatever_the_order(cdcs: Cdcs, by: str) -> None:
    current = cdcs.server.template.versions[-1]
    for number in range(3):  # the server lists them in another order every time
        cdcs.send(cdcs.session(number), **({} if by == "title" else {"template": current}))
    assert {record.template for record in cdcs.server.records} == {current}


def test_the_only_usable_template_needs_no_name(cdcs: Cdcs) -> None:
    cdcs.server.other_template.is_disabled = True
    cdcs.send(cdcs.session(), template=None)
    assert len(cdcs.server.records) == 1


def test_a_new_template_version_takes_new_records_and_old_ones_keep_theirs(cdcs: Cdcs) -> None:
    # Given a record under the current version
    server = cdcs.server
    old = server.template.versions[-1]
    first = cdcs.send(cdcs.session(1))

    # When a new version comes that demands an id
    xsd = server.store.templates[old].xsd.replace(
        b'name="id" type="xs:token" minOccurs="0"', b'name="id" type="xs:token"'
    )
    new = server.store.add_version(server.template, xsd)

    # Then the next revision is held against the version of its record, and a new record against the new one
    cdcs.send(cdcs.session(1, nexus("corrected")).of_revision(2, {}), receipt_of(first))
    with pytest.raises(Rejected, match=rf"does not fit the schema of CDCS template {new.id}: line 4: .*summary|id"):
        cdcs.send(cdcs.session(2))
    cdcs.send(cdcs.session(2, nexus(inside="<id>s</id>")))
    assert [record.template for record in server.records] == [old, new.id]


def test_the_schema_is_fetched_once_for_many_records(cdcs: Cdcs) -> None:
    async def many() -> None:
        made = cdcs.destination()
        for number in range(5):
            await made.export(cdcs.session(number))
        await made.close()

    asyncio.run(many())
    assert len([one for one in asked(cdcs) if one.endswith("/download/")]) == 1
    assert len([one for one in asked(cdcs) if "template-version-manager" in one]) == 1
    assert len(cdcs.server.records) == 5


def test_a_template_that_vanished_is_chosen_anew(cdcs: Cdcs) -> None:
    async def twice() -> None:
        made = cdcs.destination()
        await made.export(cdcs.session(1))

        # Given a worker that remembers a template which was replaced by another of its title
        store = cdcs.server.store
        gone = store.managers.pop(cdcs.server.template.id)
        for version in gone.versions:
            del store.templates[version]
        store.add_template(gone.title, XSD)

        # When it sends the next record, then the first attempt fails for now and the second finds the new one
        with pytest.raises(Transient, match="read anew"):
            await made.export(cdcs.session(2))
        await made.export(cdcs.session(2))
        await made.close()

    asyncio.run(twice())
    assert len(cdcs.server.records) == 2


# --- the owner ---------------------------------------------------------------------------------------------


def test_a_record_goes_to_the_account_of_whoever_reserved(cdcs: Cdcs) -> None:
    # Given a reservation of somebody without an account
    context = cdcs.session(reservation_event=ALICE)

    # When it is delivered twice, and once more as a revision
    result = cdcs.send(context, assign_owner=True)
    cdcs.send(context, assign_owner=True)
    cdcs.send(cdcs.session(record=nexus("new"), reservation_event=ALICE), receipt_of(result), assign_owner=True)

    # Then there is one account, which owns the one record, and the record is still found
    (alice,) = [user for user in cdcs.server.store.users.values() if user.username == "alice"]
    (record,) = cdcs.server.records
    assert (record.user_id, alice.email) == (str(alice.id), "alice@example.org")
    assert cdcs.find(cdcs.session(record=nexus("new"), reservation_event=ALICE), assign_owner=True) is not None


def test_an_account_is_found_by_e_mail_if_only_one_has_it(cdcs: Cdcs) -> None:
    known = cdcs.server.store.add_user("a.liddell", email="Alice@Example.org")
    cdcs.send(cdcs.session(1, reservation_event=ALICE), assign_owner=True)
    cdcs.server.store.add_user("another", email="alice@example.org")
    cdcs.send(cdcs.session(2, reservation_event=ALICE), assign_owner=True)
    owners = [cdcs.server.store.users[int(record.user_id)].username for record in cdcs.server.records]
    assert owners == [known.username, "alice"]


def test_without_a_reservation_the_record_stays_with_the_uploader(cdcs: Cdcs) -> None:
    context = cdcs.session()
    cdcs.send(context, assign_owner=True)
    assert cdcs.server.records[0].user_id == "1"
    assert cdcs.find(context, assign_owner=True) is not None


@pytest.mark.parametrize("token", ["staff-token", "robot-token"])
def test_owners_need_a_superuser_and_nothing_is_left_behind(cdcs: Cdcs, token: str) -> None:
    context = cdcs.session(reservation_event=ALICE)
    with pytest.raises(Misconfigured, match="superuser"):
        cdcs.send(context, assign_owner=True, token=token)
    assert cdcs.server.records == []
    assert len(cdcs.server.store.users) == 4


def test_a_name_that_cannot_be_a_username_is_refused_before_anything_is_made(cdcs: Cdcs) -> None:
    context = cdcs.session(reservation_event={"username": "Alice Liddell!"})
    with pytest.raises(Rejected, match=r"reservation_event\.username 'Alice Liddell!'"):
        cdcs.send(context, assign_owner=True)
    assert cdcs.server.records == []
