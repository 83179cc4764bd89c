"""Whose a record is that CDCS has under the same title: decided by what is in it, and never guessed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cdcs_parts import SUMMARY, nexus

from labrelay.context import ExportContext
from labrelay.errors import Conflict
from labrelay_worker.destinations.cdcs_kinship import (
    Kinship,
    StoredRecord,
    Titles,
    free_title,
    kinship,
    pid_of,
)
from labrelay_worker.destinations.cdcs_record import RecordText

TITLES = Titles("record", "record (0123456789ab)")
PID = "https://h/pid/rest/local/cdcs/LR-1"
FILES = ("a.dm3", "b.dm3")
LATER = SUMMARY.replace("10:00", "14:00")


def judge(stored: bytes | str, record: bytes, *, title: str = "record", own_pid: str = "") -> Kinship:
    text = stored.decode() if isinstance(stored, bytes) else stored
    found = StoredRecord("1", "1", "", "1", title, text)
    return kinship(found, RecordText(record.decode(), "r.xml", own_pid=own_pid), TITLES, "LR-1")


@pytest.mark.parametrize(
    ("stored", "record", "whose"),
    [
        (nexus("a"), nexus("a"), Kinship.SAME),
        (nexus("a", root=f' pid="{PID}"'), nexus("b"), Kinship.SAME),
        (nexus("a", root=' pid="https://h/pid/rest/local/cdcs/LR-2"'), nexus("a"), Kinship.OTHER),
        (nexus("a", root=' pid="https://h/pid/rest/local/cdcs/ABCD"'), nexus("a"), Kinship.SAME),
        (nexus("a", inside="<id>1</id>"), nexus("b", inside="<id>1</id>"), Kinship.SAME),
        (nexus("a", inside="<id>1</id>"), nexus("a", inside="<id>2</id>"), Kinship.OTHER),
        (nexus("a", files=FILES, inside=SUMMARY), nexus("a", files=FILES[:1], inside=SUMMARY), Kinship.SAME),
        (nexus("a", files=FILES[:1], inside=SUMMARY), nexus("a", files=FILES[1:], inside=SUMMARY), Kinship.OTHER),
        (nexus("a", files=FILES, inside=SUMMARY), nexus("a", files=FILES, inside=LATER), Kinship.UNSURE),
        (nexus("a", inside=SUMMARY), nexus("a", inside=LATER), Kinship.OTHER),
        (nexus("a", files=FILES, inside=SUMMARY), nexus("b", files=FILES, inside=SUMMARY), Kinship.UNSURE),
        (nexus("a", files=FILES), nexus("a", files=FILES, inside="<notes/>"), Kinship.UNSURE),
        (nexus("a", inside=SUMMARY), nexus("b", inside=SUMMARY), Kinship.UNSURE),
        (nexus("a"), nexus("b"), Kinship.UNSURE),
        ("no XML", nexus("a"), Kinship.UNSURE),
        ("", nexus("a"), Kinship.UNSURE),
    ],
)
def test_a_record_is_known_by_what_is_in_it(stored: bytes | str, record: bytes, whose: Kinship) -> None:
    assert judge(stored, record) is whose


def test_a_title_that_names_the_session_is_proof() -> None:
    assert judge("no XML", nexus(), title=TITLES.own) is Kinship.SAME


def test_a_pid_that_both_bring_decides() -> None:
    own, other = 'urn:x"'.strip('"'), "urn:y"
    assert judge(nexus("a", root=f' pid="{own}"'), nexus("b"), own_pid=own) is Kinship.SAME
    assert judge(nexus("a", root=f' pid="{other}"'), nexus("a"), own_pid=own) is Kinship.OTHER


@pytest.mark.parametrize(
    ("revision", "occupants", "title"),
    [
        (1, [], "record"),
        (2, [], "record"),
        (1, [Kinship.OTHER], TITLES.own),
        (1, [Kinship.UNSURE], TITLES.own),
        (2, [Kinship.OTHER], TITLES.own),
        (2, [Kinship.OTHER, Kinship.UNSURE], None),
    ],
)
def test_a_new_record_takes_a_free_title_or_none(
    make_context: Callable[..., ExportContext], revision: int, occupants: list[Kinship], title: str | None
) -> None:
    context = make_context().of_revision(revision, {})
    stored = [
        (StoredRecord(str(number), "1", "", "1", "record", ""), whose) for number, whose in enumerate(occupants)
    ]
    if title is None:
        with pytest.raises(Conflict, match=r"'record' \(id 1\).*Delete or rename it there, then replay"):
            free_title(stored, TITLES, context)
    else:
        assert free_title(stored, TITLES, context) == title


def test_the_pid_of_a_session_is_the_same_for_every_revision_and_no_number(
    make_context: Callable[..., ExportContext],
) -> None:
    context = make_context()
    assert pid_of(context) == pid_of(context.of_revision(9, {})) == f"LR-{context.export_id}"


@pytest.mark.parametrize(
    ("stored", "how"),
    [
        (nexus("a"), "byte-identical"),
        (nexus("a").replace(b"\r\n", b"\n"), "the same XML, written anew by the server"),
        (nexus("a").replace(b"xmlns=", b"xmlns:x=").replace(b"<title", b"<x:title").replace(b"</", b"</x:")
         .replace(b"<Exp", b"<x:Exp"), "the same XML, written anew by the server"),
        (nexus("a", root=' pid="given-by-the-server"'), "the same XML, written anew by the server"),
        (nexus("b"), ""),
        (nexus("a", inside="<notes/>"), ""),
        (nexus("a", root=' other="1"'), ""),
        (b"<broken>", ""),
    ],
)  # fmt: skip
def test_what_is_stored_is_compared_by_content_where_the_server_writes_it_anew(stored: bytes, how: str) -> None:
    assert RecordText(nexus("a").decode(), "r.xml").is_held_by(stored.decode()) == how


def test_a_pid_that_was_sent_must_be_there() -> None:
    sent = RecordText(nexus("a").decode(), "r.xml").with_pid(PID)
    assert sent.is_held_by(sent.text) == "byte-identical"
    assert sent.is_held_by(nexus("a", root=f' pid="{PID}"').decode())
    assert not sent.is_held_by(nexus("a", root=' pid="another"').decode())
    assert not sent.is_held_by(nexus("a").decode())
