"""CDCS servers that give PIDs: the only key that such a server enforces."""

from __future__ import annotations

import asyncio

import pytest
from cdcs_parts import SUMMARY, Cdcs, nexus, receipt_of

from labrelay.errors import Transient
from labrelay_worker.destinations.cdcs_record import RecordText


@pytest.fixture
def pids(cdcs: Cdcs) -> Cdcs:
    cdcs.server.pids.automatic = True
    return cdcs


def pid_of_record(cdcs: Cdcs, index: int = 0) -> str:
    return cdcs.server.records[index].root.get("pid", "")


def test_a_record_gets_the_pid_of_its_session_and_the_file_is_not_touched(pids: Cdcs) -> None:
    # Given a record without a pid
    context = pids.session()
    before = context.xml_file_path.read_bytes()

    # When it is delivered
    result = pids.send(context)

    # Then it has the pid of its session at the server, which rewrote the XML; the file is as it was
    assert pid_of_record(pids) == f"{pids.url}/pid/rest/local/cdcs/LR-{context.export_id}"
    assert result.metadata["pid"] == pid_of_record(pids)
    assert "the same XML, written anew by the server" in result.metadata["verified"]
    assert context.xml_file_path.read_bytes() == before
    assert pids.find(context) is not None


def test_a_pid_survives_revisions(pids: Cdcs) -> None:
    first = pids.send(pids.session())
    before = pid_of_record(pids)
    pids.send(pids.session(record=nexus("new")).of_revision(2, {}), receipt_of(first))
    assert pid_of_record(pids) == before
    assert len(pids.server.pids.taken) == 1


def test_a_pid_that_the_record_brings_itself_is_kept(pids: Cdcs) -> None:
    own = f"{pids.url}/pid/rest/local/cdcs/EXP-7"
    context = pids.session(record=nexus(root=f' pid="{own}"'))
    pids.send(context)
    pids.send(context)
    assert pid_of_record(pids) == own
    assert len(pids.server.records) == 1


def test_a_pid_that_the_server_gave_earlier_is_kept(pids: Cdcs) -> None:
    # Given a record that NexusLIMS exported, to which the server gave a pid of its own
    record = nexus("EELS", files=("titan/a.dm3",), inside=SUMMARY)
    pids.server.pids.server_uri = pids.url
    written, pid = pids.server.pids.written(record.decode(), None)
    fields = {"template": pids.server.template.versions[-1], "title": "record-1", "xml_content": written}
    stored = pids.server.store.insert(fields, pids.server.store.users[1])
    pids.server.pids.register(stored, pid)

    # When labrelay delivers the same session
    pids.send(pids.session(1, record))

    # Then it is the same record with the same pid
    assert pids.server.records == [stored]
    assert stored.root.get("pid") == pid


def test_a_record_with_the_pid_is_found_whatever_its_title(pids: Cdcs) -> None:
    context = pids.session()
    pids.send(context)
    pids.server.records[0].title = "Nice images"
    assert pids.find(context) is not None
    pids.send(context)
    assert len(pids.server.records) == 1


@pytest.mark.parametrize("races", [0, 1])
def test_a_lost_race_for_the_pid_is_settled_by_looking(pids: Cdcs, races: int) -> None:
    # Given two workers that share no lock, and a server that refuses the second one in either of two ways
    pids.server.pids.races = races
    context = pids.session()

    async def both() -> None:
        workers = [pids.destination(), pids.destination()]
        await asyncio.gather(*(worker.export(context) for worker in workers))
        await asyncio.gather(*(worker.close() for worker in workers))

    # When both deliver the same session at the same time, then there is one record
    asyncio.run(both())
    assert len(pids.server.records) == 1


def test_sessions_with_equal_records_have_each_their_own(pids: Cdcs) -> None:
    for number in (1, 2):
        pids.send(pids.session(number, nexus("the same"), stem="record"))
    assert [record.root.get("pid") for record in pids.server.records] == list(pids.server.pids.taken)
    assert len(pids.server.records) == 2


def test_a_server_with_another_name_than_its_address_needs_pid_prefix(pids: Cdcs) -> None:
    # Given a server that calls itself by another name
    pids.server.pids.server_uri = "https://cdcs.example.org"

    # When records bring pids of the address that is used, then the refusal names the option
    with pytest.raises(Transient, match="give pid_prefix"):
        pids.send(pids.session())

    # When the option is given, then it works
    pids.send(pids.session(), pid_prefix="https://cdcs.example.org/pid/rest/local/cdcs")
    assert pid_of_record(pids).startswith("https://cdcs.example.org/pid/rest/local/cdcs/LR-")


@pytest.mark.parametrize("installed", [True, False])
def test_without_automatic_pids_none_is_brought(cdcs: Cdcs, installed: bool) -> None:
    cdcs.server.pids.installed = installed
    cdcs.send(cdcs.session())
    assert cdcs.server.records[0].root.get("pid") is None


def test_a_look_up_that_lags_behind_is_made_good_by_the_title(pids: Cdcs) -> None:
    pids.server.query_lags = True
    context = pids.session()
    pids.send(context)
    pids.send(context)
    assert len(pids.server.records) == 1


@pytest.mark.parametrize(
    "head",
    [
        "",
        "\ufeff",
        '<?xml version="1.0"?>\r\n',
        "<!-- <Experiment> -->\n<?style a='<b>'?>\n",
        '<?xml version="1.0"?><!---->',
    ],
)
def test_a_pid_goes_into_the_start_tag_and_nothing_else_changes(head: str) -> None:
    record = RecordText(f'{head}<nx:Experiment xmlns:nx="u"\n a="1"/>', "r.xml").with_pid('u/"&LR')
    assert record.text == f"""{head}<nx:Experiment pid='u/"&amp;LR' xmlns:nx="u"\n a="1"/>"""
