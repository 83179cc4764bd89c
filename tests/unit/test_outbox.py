"""The outbox's promises about what it holds: order, bounds, conflicts, and what a person can do."""

from __future__ import annotations

import os
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledgers import entry

from labrelay.errors import InvalidInput, NoSuchExport, OutboxFull, OutboxUnavailable
from labrelay.outbox import Outbox


@pytest.fixture
def outbox(tmp_path):
    return Outbox(tmp_path / "outbox" / "outbox.sqlite3", max_entries=100, max_bytes=100_000)


def put(outbox, *entries, replace=False):
    outbox.put(entries, replace=replace, submitted=time.time())


def contexts(outbox):
    return [waiting.entry.context for waiting in outbox.batch()]


def test_it_returns_what_was_put_in_whole_and_in_order(outbox):
    # Given entries with everything an entry may have
    first = entry("Å µ 試料", "{}").__class__(
        "id", "d", '{"a": "é\\u0000"}', "Å", "i", "best_effort", ("cdcs", "elab")
    )
    put(outbox, first, replace=True)
    put(outbox, entry("2"), entry("3"))

    # When the next batch is asked for, then it is all there, oldest first
    batch = outbox.batch()
    assert batch[0].entry == first
    assert batch[0].replace
    assert [waiting.entry.session for waiting in batch] == ["Å", "2", "3"]


def test_an_outbox_without_entries_has_no_file(outbox):
    # Given an outbox that was never used, then looking at it makes none
    assert (outbox.count(), outbox.batch(), outbox.entries()) == (0, [], [])
    assert not outbox.path.parent.exists()

    # When something was in it and has left
    put(outbox, entry())
    assert outbox.path.exists()
    outbox.settle([outbox.batch()[0].number], {})

    # Then nothing of it lingers on disk
    assert [path.name for path in outbox.path.parent.iterdir() if path.stat().st_size] == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_only_its_owner_can_read_it(outbox):
    # Given an outbox in use
    old = os.umask(0)
    try:
        put(outbox, entry())
    finally:
        os.umask(old)

    # Then neither the file nor its folder is open to others
    assert outbox.path.stat().st_mode & 0o777 == 0o600
    assert outbox.path.parent.stat().st_mode & 0o777 == 0o700


def test_the_same_submit_repeated_waits_once(outbox):
    # Given an entry that waits
    put(outbox, entry("1", "a"))

    # When it is put in again unchanged, then nothing is added; changed, it is
    put(outbox, entry("1", "a"))
    assert outbox.count() == 1
    put(outbox, entry("1", "b"), replace=True)
    put(outbox, entry("1", "a"), replace=True)
    assert outbox.count() == 3


def test_revisions_of_one_export_travel_in_separate_batches(outbox):
    # Given two revisions with another export between and behind them
    put(outbox, entry("1", "a"), entry("2", "a"))
    put(outbox, entry("1", "b"), replace=True)
    put(outbox, entry("3", "a"))

    # Then a batch ends before the second revision
    assert contexts(outbox) == ["a", "a"]
    outbox.settle([waiting.number for waiting in outbox.batch()], {})
    assert contexts(outbox) == ["b", "a"]


def test_a_full_outbox_says_the_cure_and_keeps_nothing_by_halves(outbox):
    # Given room for one more
    put(outbox, *[entry(str(number)) for number in range(99)])

    # When two are put in, then neither is kept
    with pytest.raises(OutboxFull, match="labrelay outbox flush") as caught:
        put(outbox, entry("a"), entry("b"))
    assert caught.value.exit_code == 3
    assert outbox.count() == 99
    put(outbox, entry("a"))
    assert outbox.count() == 100


def test_bytes_are_bounded_too(outbox):
    # Given an outbox of 100 kB, when 200 kB are put in, then it refuses, and still takes what fits
    with pytest.raises(OutboxFull, match="LABRELAY_OUTBOX_MAX_BYTES"):
        put(outbox, entry("1", size=200_000))
    put(outbox, entry("2", size=50_000))
    with pytest.raises(OutboxFull):
        put(outbox, entry("3", size=50_000))
    assert [spooled.session_identifier for spooled in outbox.entries()] == ["2"]


def test_a_conflict_is_kept_and_blocks_nothing(outbox):
    # Given two entries, of which the ledger refuses the first
    put(outbox, entry("1"), entry("2"))
    first, second = outbox.batch()
    outbox.settle([], {first.number: "submitted before with other content"})

    # Then only the second is still to be sent, and the first is listed with its reason
    assert outbox.batch() == [second]
    assert [(e.state, e.reason) for e in outbox.entries()] == [
        ("conflict", "submitted before with other content"),
        ("waiting", ""),
    ]


def test_a_person_can_drop_a_conflict_or_send_it_as_a_new_revision(outbox):
    # Given two conflicts
    put(outbox, entry("1"), entry("2"))
    first, second = outbox.batch()
    outbox.settle([], {first.number: "no", second.number: "no"})

    # When one is dropped by its number and the other replaces by its export id
    assert outbox.drop([str(first.number)]) == 1
    assert outbox.replace_conflicts(["id-2"], at=time.time()) == 1

    # Then that one goes out next, as a replacement
    (waiting,) = outbox.batch()
    assert (waiting.entry.session, waiting.replace) == ("2", True)


def test_what_was_never_sent_is_not_dropped_by_mistake(outbox):
    # Given an entry that waits, when it is dropped like a conflict, then it is refused with the cure
    put(outbox, entry("1"))
    with pytest.raises(InvalidInput, match="--waiting"):
        outbox.drop(["id-1"])
    assert outbox.count() == 1

    # When it is meant, then it is gone; and what is not there is named
    assert outbox.drop(["id-1"], waiting=True) == 1
    with pytest.raises(NoSuchExport):
        outbox.drop(["id-1"])


def test_a_batch_is_bounded_in_bytes(tmp_path):
    # Given entries of 3 MB each
    outbox = Outbox(tmp_path / "outbox.sqlite3")
    put(outbox, *[entry(str(number), size=3_000_000) for number in range(4)])

    # Then a batch takes two of them, and one larger than any batch still travels, alone
    assert len(outbox.batch()) == 2
    outbox.drop([f"id-{number}" for number in range(4)], waiting=True)
    put(outbox, entry("large", size=20_000_000), entry("small"))
    assert [waiting.entry.session for waiting in outbox.batch()] == ["large"]


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.booleans()), max_size=12))
def test_whatever_is_put_in_comes_out_once_and_in_order(tmp_path_factory, submits):
    # Given any sequence of submits
    outbox = Outbox(tmp_path_factory.mktemp("outbox") / "outbox.sqlite3")
    expected = []
    for session, content, replace in submits:
        put(outbox, entry(session, content), replace=replace)
        last = next((e for e in reversed(expected) if e[0] == session), None)
        if last != (session, content, replace):
            expected.append((session, content, replace))

    # When it is emptied batch by batch
    seen = []
    while batch := outbox.batch():
        assert len({waiting.entry.export_id for waiting in batch}) == len(batch)
        seen += [(w.entry.session, w.entry.context, w.replace) for w in batch]
        outbox.settle([waiting.number for waiting in batch], {})

    # Then it is that sequence without immediate repetitions
    assert seen == expected


def test_an_outbox_of_a_newer_labrelay_is_left_alone(outbox):
    # Given a file whose format this version does not know
    import sqlite3

    put(outbox, entry("1"))
    connection = sqlite3.connect(outbox.path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()

    # When it is used, then it is refused by name, and not set aside
    with pytest.raises(OutboxUnavailable, match="newer labrelay"):
        put(outbox, entry("2"))
    assert outbox.path.exists()
    assert outbox.files_set_aside() == []
