"""A producer that dies in the midst of a submit of many: what the ledger has is delivered once."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter

import pytest

from labrelay.results import ExportState

pytestmark = [pytest.mark.faults, pytest.mark.integration]

MANY = 600

_DIES = """
import os, signal, sys
from labrelay import Client
from labrelay.inputs import read_contexts
from labrelay.sending import Sender

before_ring = int(sys.argv[1])
ring, rung = Sender.ring, []

def ring_or_die(self, *arguments):
    rung.append(True)
    if len(rung) == before_ring:
        os.kill(os.getpid(), signal.SIGKILL)
    return ring(self, *arguments)

Sender.ring = ring_or_die
with Client() as client:
    client.submit_many(read_contexts("contexts.jsonl", root=None, limit=2**30))
"""


@pytest.mark.parametrize("before_ring", [1, 2])
def test_a_producer_killed_between_ledger_and_bell_loses_nothing_that_the_ledger_has(lab, before_ring):
    # Given a worker, and a producer of many that is killed before it rings, for the first few or for the rest
    lab.recorder("one")
    lab.start_worker()
    contexts = [lab.session(number) for number in range(MANY)]
    (lab.folder / "contexts.jsonl").write_text("\n".join(context.to_json() for context in contexts))
    producer = subprocess.run(
        [sys.executable, "-c", _DIES, str(before_ring)], env=lab.environment, cwd=lab.folder, check=False, timeout=60
    )
    assert producer.returncode == -signal.SIGKILL

    with lab.client() as client:
        # When nobody rings any more
        known = [c.export_id for c in contexts if client.ledger.rows([c.export_id])[0]]
        # Then the first of them, or all, are in the ledger, and delivered once
        assert 0 < len(known) < MANY if before_ring == 1 else len(known) == MANY
        for export_id in known:
            assert client.wait(export_id, 60).state is ExportState.DELIVERED
        assert Counter(event["id"] for event in lab.events(event="accepted")) == dict.fromkeys(known, 1)

        # And submitting all of them again delivers what is missing
        outcomes = Counter(submission.outcome for submission in client.submit_many(contexts))
        assert outcomes == Counter({"duplicate": len(known), "accepted": MANY - len(known)}) - Counter()
        for context in contexts:
            assert client.wait(context.export_id, 60).state is ExportState.DELIVERED
    assert Counter(event["id"] for event in lab.events(event="accepted")) == dict.fromkeys(
        (context.export_id for context in contexts), 1
    )
