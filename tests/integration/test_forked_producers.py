"""A pipeline that forks: parent and child go on submitting, and neither takes an answer of the other's."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(sys.platform == "win32", reason="nothing forks there"),
]

_FORKS = """
import os
from labrelay import Client
from labrelay.inputs import read_contexts

contexts = list(read_contexts("contexts.jsonl", root=None, limit=2**30))
with Client(background_flush=False) as client:
    for context in contexts[:2]:
        client.submit(context)  # its connection is kept from now on
    child = os.fork()
    for context in contexts[2::2] if child else contexts[3::2]:
        submission = client.submit(context)
        assert submission.outcome == "accepted", submission
        assert submission.export_id == context.export_id
    if child == 0:
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


def test_a_client_that_lives_on_in_a_child_gets_its_own_connection(lab):
    # Given a client whose connection is in use when its process forks
    contexts = [lab.session(number) for number in range(42)]
    (lab.folder / "contexts.jsonl").write_text("\n".join(context.to_json() for context in contexts))
    # When parent and child submit at the same time
    done = subprocess.run(
        [sys.executable, "-c", _FORKS], env=lab.environment, cwd=lab.folder, check=False, timeout=60,
        capture_output=True, text=True,
    )  # fmt: skip
    # Then each got its own answers, and the ledger has everything
    assert done.returncode == 0, done.stderr
    with lab.client() as client:
        assert all(client.ledger.rows([context.export_id for context in contexts]))
