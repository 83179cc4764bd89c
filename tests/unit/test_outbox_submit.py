"""Submitting with a ledger that is away, silent or forgetful: what is spooled, sent, refused, and in which order."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledgers import MemoryLedger, MemoryLink, entry

from labrelay.errors import LedgerUnavailable, OutboxFull, OutboxUnavailable
from labrelay.flushing import BackgroundFlusher, FlushReport, flush, pause_before
from labrelay.outbox import Outbox
from labrelay.patience import Patience
from labrelay.results import ExportState
from labrelay.settings import ProducerSettings
from labrelay.submitting import Submitter


class Desk:
    """A submitter with its ledger and outbox, and a way to submit one session."""

    def __init__(self, home, *, background=False, **options):
        self.ledger = MemoryLedger()
        self.link = MemoryLink(self.ledger)
        self.settings = ProducerSettings(home=home, redis_url="redis://nowhere", **options)
        self.outbox = Outbox.of(self.settings)
        self.submitter = Submitter(self.link, self.outbox, self.settings, background_flush=background)

    def submit(self, session="s", content="a", *, replace=False, named=()):
        return self.submitter.submit([entry(session, content)], named, replace=replace)[0]


@pytest.fixture
def desk(tmp_path):
    desk = Desk(tmp_path, submit_seconds=0.3)
    yield desk
    desk.ledger.thaw.set()
    desk.submitter.close()


def test_with_redis_away_a_submit_is_spooled_and_a_later_one_sends_both_in_order(desk):
    # Given a ledger that is away
    desk.ledger.mode = "away"
    spooled = desk.submit("1", "first")
    assert (spooled.outcome, spooled.state, spooled.revision) == ("spooled", "spooled", 0)
    assert spooled.is_spooled
    assert str(desk.outbox.path) in spooled.warnings[0]

    # When it is back and another session is submitted
    desk.ledger.mode = "up"
    assert desk.submit("2", "second").outcome == "accepted"

    # Then the ledger received both, oldest first, both were rung for, and nothing waits
    assert desk.ledger.received == ["first", "second"]
    assert desk.link.woken == ["id-1", "id-2"]
    assert desk.outbox.entries() == []


def test_a_silent_redis_costs_a_bounded_time_and_the_following_submits_less(desk):
    # Given a ledger that takes calls and never answers
    desk.submitter._settings = desk.settings.model_copy(update={"submit_seconds": 1.5})
    desk.ledger.mode = "silent"

    # When sessions are submitted, one of them for named destinations
    times = []
    for session, named in (("1", ()), ("2", ("cdcs",)), ("3", ())):
        began = time.monotonic()
        assert desk.submit(session, named=named).outcome == "spooled"
        times.append(time.monotonic() - began)

    # Then the first waited for its 1.5 s, the others less
    assert times[0] >= 1.5
    assert max(times[1:]) < times[0]

    # When it thaws, then what it was sent before and is sent again is accepted once
    desk.ledger.mode = "up"
    desk.ledger.thaw.set()
    desk.submit("4")
    desk.submitter.flush(patience=5)
    assert {export_id: row.revision for export_id, row in desk.ledger.rows.items()} == {
        f"id-{n}": 1 for n in (1, 2, 3, 4)
    }


def test_a_lost_answer_is_a_duplicate_when_it_is_sent_again_and_is_rung_for(desk):
    # Given a ledger that took the entry and whose answer was lost
    desk.ledger.mode = "lost"
    assert desk.submit("1").outcome == "spooled"
    assert desk.link.woken == []

    # When the outbox is flushed
    desk.ledger.mode = "up"
    report = desk.submitter.flush()

    # Then it is one revision, and its worker is woken
    assert (report.sent, report.conflicts, report.left) == (1, 0, 0)
    assert desk.ledger.rows["id-1"].revision == 1
    assert desk.link.woken == ["id-1"]


def test_a_replacement_whose_answer_was_lost_is_not_made_twice(desk):
    # Given a dead export that is replaced, with a lost answer, and that died again since
    desk.submit("1", "a")
    desk.ledger.end("id-1", ExportState.DEAD, ago=60)
    desk.ledger.mode = "lost"
    assert desk.submit("1", "a", replace=True).outcome == "spooled"
    desk.ledger.end("id-1", ExportState.DEAD, ago=-1)

    # When the outbox is flushed, then no third revision is made
    desk.ledger.mode = "up"
    desk.submitter.flush()
    assert desk.ledger.rows["id-1"].revision == 2
    assert desk.outbox.entries() == []


def test_a_replacement_that_never_arrived_is_made(desk):
    # Given a dead export that is replaced while the ledger is away
    desk.submit("1", "a")
    desk.ledger.end("id-1", ExportState.DEAD, ago=60)
    desk.ledger.mode = "away"
    desk.submit("1", "a", replace=True)

    # When the outbox is flushed, then it is the second revision
    desk.ledger.mode = "up"
    desk.submitter.flush()
    assert desk.ledger.rows["id-1"].revision == 2


def test_a_conflict_in_the_outbox_is_kept_told_and_flushed_as_a_replacement_on_request(desk):
    # Given a spooled session that the ledger has with other content
    desk.submit("1", "a")
    desk.ledger.mode = "away"
    desk.submit("1", "b")
    desk.submit("2", "c")
    desk.ledger.mode = "up"

    # When a later submit flushes
    later = desk.submit("3")

    # Then those behind it were sent, it is kept with its reason, and the submitter is told
    assert desk.ledger.received == ["a", "b", "c", "a"]
    (kept,) = desk.outbox.entries()
    assert kept.state == "conflict"
    assert "other content" in kept.reason
    assert any("conflict" in warning for warning in later.warnings)

    # When a person lets it replace the first, then it does
    desk.outbox.replace_conflicts([], at=time.time())
    assert desk.submitter.flush().sent == 1
    assert desk.ledger.rows["id-1"].revision == 2


def test_a_new_revision_does_not_overtake_one_that_still_waits(desk, monkeypatch):
    # Given more waiting entries than a submit has time to flush
    desk.ledger.mode = "away"
    desk.submit("1", "a")
    desk.ledger.mode = "up"
    monkeypatch.setattr("labrelay.submitting._FLUSH_SECONDS", 0.0)

    # When the same session is submitted again with other content, and another session
    behind = desk.submit("1", "b", replace=True)
    other = desk.submit("2", "c")

    # Then the first queues behind its earlier revision, and the other one need not
    assert behind.outcome == "spooled"
    assert "earlier submission" in behind.warnings[0]
    assert other.outcome == "accepted"
    desk.submitter.flush()
    assert (desk.ledger.rows["id-1"].digest, desk.ledger.rows["id-1"].revision) == ("digest-b", 2)


def test_many_submits_with_redis_lost_on_the_way_are_accepted_or_spooled_each_once(desk, monkeypatch):
    # Given a ledger that goes away after the first chunk
    monkeypatch.setattr("labrelay.submitting._TOGETHER", 10)
    take = desk.ledger.submit

    def once(entries, *, replace):
        answers = take(entries, replace=replace)
        desk.ledger.mode = "away"
        return answers

    desk.ledger.submit = once

    # When thirty sessions are submitted
    submissions = desk.submitter.submit([entry(str(n)) for n in range(30)], (), replace=False)

    # Then ten are accepted, twenty wait, and the answers are in order
    assert [s.outcome for s in submissions] == ["accepted"] * 10 + ["spooled"] * 20
    assert [s.export_id for s in submissions] == [f"id-{n}" for n in range(30)]
    assert desk.outbox.count() == 20


def test_the_first_of_many_are_rung_for_before_the_rest_is_sent(desk, monkeypatch):
    # Given more sessions than a few wake-ups are good for
    sent = list[int]()
    submit = desk.ledger.submit
    monkeypatch.setattr(
        desk.ledger, "submit", lambda entries, **how: sent.append(len(entries)) or submit(entries, **how)
    )
    monkeypatch.setattr(desk.link.wake_ups, "ring", lambda count, _: sent.append(-count))
    # When they are submitted together
    many = [entry(str(number)) for number in range(1000)]
    outcomes = {submission.outcome for submission in desk.submitter.submit(many, (), replace=False)}
    # Then workers begin with a few of them meanwhile, and the order is kept
    assert outcomes == {"accepted"}
    assert sent == [128, -128, 872, -872]
    assert list(desk.ledger.rows) == [each.export_id for each in many]


def test_a_full_outbox_is_an_error_that_names_both_causes(tmp_path):
    # Given a ledger that is away and an outbox for one
    desk = Desk(tmp_path, outbox_max_entries=1)
    desk.ledger.mode = "away"
    desk.submit("1")

    # Then the second submit says why it cannot be kept
    with pytest.raises(OutboxFull, match=r"Redis is away \(off\).*LABRELAY_OUTBOX_MAX_ENTRIES"):
        desk.submit("2")


def test_an_outbox_that_cannot_be_read_does_not_hold_up_what_redis_takes(desk):
    # Given a ledger that is well, and an outbox that belongs to somebody else
    import sqlite3

    desk.outbox.path.parent.mkdir(parents=True)
    connection = sqlite3.connect(desk.outbox.path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()

    # Then the submit is accepted, with a warning
    submission = desk.submit()
    assert submission.outcome == "accepted"
    assert "another program" in submission.warnings[0]


def test_an_entry_that_redis_chokes_on_does_not_refuse_later_sessions(desk, monkeypatch):
    # Given an entry of long ago that fails in a way nobody foresaw
    desk.ledger.mode = "away"
    desk.submit("1")
    desk.ledger.mode = "up"
    monkeypatch.setattr(desk.submitter._sender, "send_again", lambda batch: 1 / 0)

    # Then another session is accepted, with a warning, and the entry stays
    submission = desk.submit("2")
    assert submission.outcome == "accepted"
    assert "labrelay outbox flush" in submission.warnings[0]
    assert desk.outbox.count() == 1


def test_a_neighbour_that_hangs_with_the_outbox_in_hand_does_not_hang_submits(tmp_path):
    # Given a silent ledger, and a process that holds the outbox and does nothing
    import sqlite3

    desk = Desk(tmp_path, submit_seconds=1)
    desk.ledger.mode = "away"
    desk.submit("1")
    desk.ledger.mode = "silent"
    gate = sqlite3.connect(desk.outbox.path.with_name("gate.lock"), isolation_level=None)
    gate.execute("BEGIN EXCLUSIVE")

    # Then a submit is refused while the other still has it
    with pytest.raises(OutboxUnavailable):
        desk.submit("2")
    gate.close()
    desk.ledger.thaw.set()


def test_a_slow_disk_under_the_outbox_is_no_silence_of_redis(desk, monkeypatch):
    # Given sessions that wait, a Redis that is back, and a disk that takes long to write down that they were sent
    desk.ledger.mode = "away"
    desk.submit("1")
    desk.submit("2", "old")
    desk.ledger.mode = "up"
    settle, free = desk.outbox.settle, threading.Event()
    monkeypatch.setattr(desk.outbox, "settle", lambda *settled: free.wait() and settle(*settled))

    # Then Redis takes another session meanwhile, and one that might overtake itself is kept behind
    assert desk.submit("3").outcome == "accepted"
    behind = desk.submit("2", "new")
    assert (behind.outcome, "away" in behind.warnings[-1]) == ("spooled", False)
    free.set()


def test_an_outbox_that_others_hold_is_named_and_not_redis(desk):
    # Given a ledger that is well, and a process that holds the outbox and does nothing
    import sqlite3

    desk.ledger.mode = "away"
    desk.submit("1")
    desk.ledger.mode = "up"
    gate = sqlite3.connect(desk.outbox.path.with_name("gate.lock"), isolation_level=None)
    gate.execute("BEGIN EXCLUSIVE")

    # Then a submit is refused, for nobody knows whether it would overtake; and Redis is not blamed
    with pytest.raises(OutboxUnavailable, match=r"others use it.*end that one, or try again") as caught:
        desk.submit("2")
    assert "Redis" not in str(caught.value)
    gate.close()


def test_switched_off_or_without_any_redis_ever_nothing_is_spooled(tmp_path):
    # Given the outbox off, then Redis away is an error as without it
    desk = Desk(tmp_path, outbox=False)
    desk.ledger.mode = "away"
    with pytest.raises(LedgerUnavailable):
        desk.submit()

    # Given no configured Redis and no embedded one that ever ran, then neither
    desk.submitter._settings = ProducerSettings(home=tmp_path)
    with pytest.raises(LedgerUnavailable):
        desk.submit()
    assert desk.outbox.entries() == []

    # Given an embedded one that has run before, then it is expected back
    (tmp_path / "redis").mkdir()
    assert desk.submit().outcome == "spooled"


def test_a_client_flushes_in_the_background_once_redis_is_back(tmp_path):
    # Given a client that spooled something
    desk = Desk(tmp_path, background=True)
    try:
        desk.ledger.mode = "away"
        desk.submit("1")

        # When Redis is back, then it arrives without another submit
        desk.ledger.mode = "up"
        deadline = time.monotonic() + 10
        while desk.outbox.entries() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert desk.ledger.received == ["a"]
    finally:
        desk.submitter.close()


def test_the_background_ends_when_nothing_waits_and_starts_again():
    # Given a background flusher that succeeds at once
    done = threading.Event()

    def flush_once(stop):
        done.set()
        return FlushReport()

    flusher = BackgroundFlusher(flush_once)
    for _ in range(2):
        # When it is started, then it flushes and its thread ends
        done.clear()
        flusher.start()
        thread = flusher._thread
        assert done.wait(5)
        thread.join(5)
        assert not thread.is_alive()
    flusher.stop()


def test_the_background_survives_errors_and_stops_when_told(caplog):
    # Given a flush that fails in ways nobody foresaw
    tried = threading.Event()

    def flush_once(stop):
        tried.set()
        raise ValueError("surprise")

    flusher = BackgroundFlusher(flush_once)
    flusher.start()
    thread = flusher._thread
    assert tried.wait(5)

    # When it is stopped, then it ends soon, and the error was logged
    flusher.stop()
    thread.join(5)
    assert not thread.is_alive()
    assert "labrelay outbox flush" in caplog.text


def test_two_flushers_at_once_send_each_entry_once(desk):
    # Given waiting entries and a flusher in the middle of its turn
    desk.ledger.mode = "away"
    desk.submit("1")
    desk.ledger.mode = "up"
    with desk.outbox.flush_turn(0) as mine:
        assert mine

        # When another one comes, then it says so instead of sending the same
        report = desk.submitter.flush()
        assert (report.busy, report.sent, report.left) == (True, 0, 1)
    assert desk.submitter.flush().sent == 1


def test_a_flush_interrupted_between_answer_and_settling_sends_again_harmlessly(desk):
    # Given a flush that dies after the ledger answered
    desk.ledger.mode = "away"
    desk.submit("1")
    desk.ledger.mode = "up"

    def dies(batch):
        desk.submitter._sender.send_again(batch)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        flush(desk.outbox, dies)

    # Then the entry is still there, and goes out as a duplicate
    assert desk.outbox.count() == 1
    assert desk.submitter.flush().sent == 1
    assert desk.ledger.rows["id-1"].revision == 1


@given(st.integers(0, 100))
def test_pauses_grow_and_are_bounded(failures):
    assert 0.5 <= pause_before(failures) <= pause_before(failures + 1) <= 15


def test_only_failures_use_up_patience():
    # Given a second of patience, when calls answer, then none of it is spent
    patience = Patience(1)
    for _ in range(3):
        assert patience.call(lambda: time.sleep(0.4) or "answer") == "answer"
    assert patience.spent == 0

    # When calls hang, then it is spent once, not once for each
    spent = []
    for _ in range(3):
        with pytest.raises(LedgerUnavailable, match="within 1 s"):
            patience.call(lambda: time.sleep(3))
        spent.append(patience.spent)
    assert spent[0] >= 1 > spent[2] - spent[0]


STEPS = st.lists(
    st.tuples(
        st.sampled_from("pq"),
        st.sampled_from("xyz"),
        st.booleans(),
        st.sampled_from(["up", "away", "lost"]),
    ),
    max_size=12,
)


@settings(deadline=None, max_examples=60)
@given(STEPS)
def test_outages_and_lost_answers_change_nothing_about_what_the_ledger_ends_up_with(tmp_path_factory, steps):
    # Given any submits through any outages
    desk = Desk(tmp_path_factory.mktemp("home"))
    reference = MemoryLedger()
    conflicts = 0
    for session, content, replace, mode in steps:
        desk.ledger.mode = mode
        desk.submit(session, content, replace=replace)
        (answer,) = reference.submit([entry(session, content)], replace=replace)
        conflicts += answer.outcome == "conflict"
    desk.ledger.mode = "up"

    # When Redis is back
    report = desk.submitter.flush()

    # Then the ledger holds exactly what it would hold without any outage
    assert report.left == 0
    held = {export_id: (row.digest, row.revision) for export_id, row in desk.ledger.rows.items()}
    assert held == {export_id: (row.digest, row.revision) for export_id, row in reference.rows.items()}
    assert desk.outbox.count("conflict") <= conflicts
