"""The outbox with a real Redis that is killed, frozen or full, and with killed producers: none lost, none twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager

import pytest

from labrelay.client import Client
from labrelay.results import ExportState

pytestmark = [pytest.mark.faults, pytest.mark.integration]

PROMISED = 3.0
MANY = 1000


@contextmanager
def frozen(lab):
    """Stop the embedded Redis of this lab in its tracks: it accepts connections and answers nothing."""
    pid = int((lab.redis.folder / "pid").read_text())
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def running(lab, code, *arguments):
    """Run Python code in a process of its own, which ends with the test."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=lab.environment, cwd=lab.folder, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def timed(call, *arguments, **options):
    """Return how long a call took, and what it answered."""
    began = time.monotonic()
    answer = call(*arguments, **options)
    return time.monotonic() - began, answer


def write_contexts(lab, count):
    """Write sessions to a file that other processes read; return their export ids."""
    contexts = [lab.session(number) for number in range(count)]
    (lab.folder / "contexts.jsonl").write_text("\n".join(context.to_json() for context in contexts))
    return [context.export_id for context in contexts]


def spool(lab, count):
    """Have a producer submit sessions while Redis is away, and bring it back; return their export ids."""
    ids = write_contexts(lab, count)
    lab.kill_redis()
    with running(lab, _SUBMIT) as process:
        process.communicate()
    lab.redis.start()
    return ids


def all_delivered_once(lab, client, ids):
    """Have a worker deliver everything; each export must arrive once, as its first revision."""
    lab.start_worker()
    for export_id in ids:
        status = client.wait(export_id, 100)
        assert (status.state, status.revision) == (ExportState.DELIVERED, 1)
    assert Counter(event["id"] for event in lab.events(event="accepted")) == dict.fromkeys(ids, 1)


@pytest.mark.timeout(240)
def test_a_thousand_sessions_submitted_without_redis_are_delivered_once_when_it_is_back(lab, capsys):
    # Given a Redis that was killed
    lab.recorder("one")
    contexts = [lab.session(number) for number in range(MANY)]
    lab.kill_redis()
    with Client(background_flush=False) as client:
        # When a thousand sessions are submitted, one by one
        longest, ids = 0.0, []
        for context in contexts:
            seconds, submission = timed(client.submit, context)
            assert submission.is_spooled
            longest, ids = max(longest, seconds), [*ids, submission.export_id]
        assert longest < PROMISED

        # When Redis is back and the outbox is flushed
        lab.redis.start()
        seconds, report = timed(client.flush)

        # Then a worker delivers each of them once
        assert (report.sent, report.left, report.conflicts) == (MANY, 0, 0)
        all_delivered_once(lab, client, ids)
        with capsys.disabled():
            print(
                f"\n  outbox: {MANY} submitted without Redis, {MANY} delivered once; longest submit "
                f"{longest * 1000:.0f} ms, flush {MANY / seconds:.0f} exports/s"
            )


def test_a_frozen_redis_holds_no_submit_longer_than_promised(lab, capsys):
    # Given clients with, with a kept, and without a connection to a Redis that is then frozen
    lab.recorder("one")
    contexts = [lab.session(number) for number in range(10)]
    with Client() as connected, Client() as keeping, Client() as fresh:
        ids = [connected.submit(contexts[0]).export_id]
        ids += [keeping.submit(context).export_id for context in contexts[7:9]]
        with frozen(lab):
            # When they submit one session, several, and one for a named destination
            calls = [
                timed(fresh.submit_many, [contexts[1]], destinations=["one"]),
                timed(connected.submit_many, contexts[2:6]),
                timed(connected.submit_many, [contexts[6]]),
                timed(keeping.submit_many, [contexts[9]]),
            ]
            # Then each call returns in time and everything is spooled
            assert max(seconds for seconds, _ in calls) < PROMISED
            assert {s.outcome for _, submissions in calls for s in submissions} == {"spooled"}
            ids += [s.export_id for _, submissions in calls for s in submissions]
            # And a client that spooled does not hang when it is closed
            seconds, _ = timed(fresh.close)
            assert seconds < PROMISED
        with capsys.disabled():
            print(f"\n  outbox: longest submit with a frozen Redis {max(s for s, _ in calls):.2f} s")

        # Then, thawed, all are sent by the background and delivered once
        lab.wait_until(lambda: not connected.outbox.entries(), 30, "the background flushes")
        all_delivered_once(lab, connected, ids)


def test_a_redis_that_freezes_between_the_ledger_and_the_wake_up_costs_a_warning(lab):
    # Given a Redis that freezes once it has accepted an export, before the wake-up is published
    lab.recorder("one")
    with Client() as client:
        ring = client._link.wake_ups.ring
        pid = int((lab.redis.folder / "pid").read_text())

        def freeze_first(count, wakes, **options):
            os.kill(pid, signal.SIGSTOP)
            ring(count, wakes, **options)

        client._link.wake_ups.ring = freeze_first
        try:
            # When a session is submitted
            seconds, submission = timed(client.submit, lab.session())
        finally:
            os.kill(pid, signal.SIGCONT)

        # Then it is accepted in time, with a warning, and delivered
        assert seconds < PROMISED
        assert submission.outcome == "accepted"
        assert "wake-up" in submission.warnings[0]
        all_delivered_once(lab, client, [submission.export_id])


def test_a_full_redis_spools_and_loses_nothing(lab):
    # Given a Redis without room
    lab.recorder("one")
    with Client(background_flush=False) as client:
        redis = client.ledger._redis
        redis.config_set("maxmemory", 1)

        # When a session is submitted, then it is spooled at once, and the reason is said
        seconds, first = timed(client.submit, lab.session(1))
        assert seconds < PROMISED
        assert first.is_spooled
        assert "memory is full" in first.warnings[0]

        # When there is room again, then the next submit takes it along
        redis.config_set("maxmemory", 0)
        second = client.submit(lab.session(2))
        assert second.outcome == "accepted"
        all_delivered_once(lab, client, [first.export_id, second.export_id])


_SUBMIT = """
import sys
from labrelay import Client, ExportContext
with Client(background_flush=False) as client:
    for line in open("contexts.jsonl"):
        submission = client.submit(ExportContext.parse(line))
        # In one piece, also where Python does not buffer: killed in the midst of it, it says nothing.
        print(f"{submission.export_id} {submission.outcome}\\n", end="", flush=True)
"""


@pytest.mark.parametrize("after", [1, 40])
def test_a_producer_killed_while_it_spools_loses_nothing_it_was_told(lab, after):
    # Given a producer without Redis that notes every export it was told of
    lab.recorder("one")
    write_contexts(lab, 200)
    lab.kill_redis()
    with running(lab, _SUBMIT) as process:
        told = [process.stdout.readline().split() for _ in range(after)]

        # When it is killed
        process.kill()
        told += [line.split() for line in process.communicate()[0].splitlines()]

    # Then whatever it was told of is delivered once when Redis is back, and at most one more
    assert {outcome for _, outcome in told} == {"spooled"}
    ids = [export_id for export_id, _ in told]
    lab.redis.start()
    with Client() as client:
        kept = [spooled.export_id for spooled in client.outbox.entries()]
        assert kept[: len(ids)] == ids
        assert len(kept) <= len(ids) + 1
        assert client.flush().sent == len(kept)
        all_delivered_once(lab, client, kept)


_FLUSH = """
import labrelay.outbox
labrelay.outbox._BATCH_ENTRIES = 10
from labrelay import Client
with Client(background_flush=False) as client:
    report = client.flush()
print(report.model_dump_json(), flush=True)
"""


_FLUSH_STEP_BY_STEP = """
import labrelay.outbox, sys
labrelay.outbox._BATCH_ENTRIES = 10
from labrelay import Client

def wait_to_be_told(done, total):
    print(done, total, flush=True)
    sys.stdin.readline()

with Client(background_flush=False) as client:
    client.flush(progress=wait_to_be_told)
"""


@pytest.mark.parametrize("after", [1, 7])
def test_a_producer_killed_while_it_flushes_sends_the_rest_later_and_nothing_twice(lab, after):
    # Given two hundred spooled sessions and a process that flushes them in small steps
    lab.recorder("one")
    ids = spool(lab, 200)
    with running(lab, _FLUSH_STEP_BY_STEP) as process:
        for _ in range(after):
            process.stdout.readline()
            print(file=process.stdin, flush=True)

        # When it is killed in the midst of one
        process.kill()
        process.communicate()

    # Then the rest waits, goes out with the next flush, and each is delivered once
    with Client(background_flush=False) as client:
        left = client.outbox.count()
        assert 0 < left < 200
        assert client.flush().left == 0
        all_delivered_once(lab, client, ids)


def test_two_processes_that_flush_at_once_send_each_export_once(lab):
    # Given spooled sessions
    lab.recorder("one")
    ids = spool(lab, 200)

    # When two processes flush them
    with running(lab, _FLUSH) as one, running(lab, _FLUSH) as other:
        reports = [json.loads(process.communicate(timeout=60)[0].splitlines()[-1]) for process in (one, other)]

    # Then between them they sent everything, once
    assert sum(report["sent"] for report in reports) == 200
    with Client() as client:
        assert client.outbox.entries() == []
        all_delivered_once(lab, client, ids)


def test_the_commands_spool_and_flush_as_the_library_does(lab):
    # Given a killed Redis and the installed command
    lab.recorder("one")
    ids = write_contexts(lab, 3)
    lab.kill_redis()

    def labrelay(*arguments):
        command = [sys.executable, "-c", "from labrelay.cli import main; main()", *arguments]
        return subprocess.run(
            command, env=lab.environment, cwd=lab.folder, capture_output=True, text=True, timeout=60, check=False
        )

    # When sessions are submitted and flushed too early, then the exit codes are those promised
    submitted = labrelay("submit", "contexts.jsonl")
    assert submitted.returncode == 0, submitted.stderr
    assert labrelay("outbox", "flush").returncode == 3

    # When Redis is back, then they are sent and delivered
    lab.redis.start()
    flushed = labrelay("outbox", "flush")
    assert (flushed.returncode, flushed.stdout.split(",")[0]) == (0, "sent 3")
    with Client() as client:
        all_delivered_once(lab, client, ids)


def test_a_damaged_outbox_is_set_aside_and_what_comes_after_it_is_delivered(lab):
    # Given an outbox that is damaged while Redis is away
    lab.recorder("one")
    contexts = [lab.session(1), lab.session(2)]
    lab.kill_redis()
    with Client(background_flush=False) as client:
        lost = client.submit(contexts[0])
        client.outbox.path.write_bytes(b"damaged" * 1000)

        # When another session is submitted, then the warning names the file that is kept
        submission = client.submit(contexts[1])
        (kept,) = client.outbox.files_set_aside()
        assert str(kept) in " ".join(submission.warnings)

        # Then, with Redis back, it is delivered, and submitting the lost one again is all it takes
        lab.redis.start()
        again = client.submit(contexts[0])
        assert again.export_id == lost.export_id
        all_delivered_once(lab, client, [submission.export_id, again.export_id])
