"""A producer on a host of its own: submits the sessions whose contexts lie in a folder, and says when it is done."""

import sys
from pathlib import Path

from labrelay.client import Client
from labrelay.context import ExportContext
from labrelay.settings import ProducerSettings, load_settings

_AT_ONCE = 50

if __name__ == "__main__":
    contexts = [ExportContext.parse(line) for line in Path(sys.argv[1]).read_text().splitlines()]
    with Client(load_settings(ProducerSettings)) as client:
        for start in range(0, len(contexts), _AT_ONCE):
            outcomes = {each.outcome for each in client.submit_many(contexts[start : start + _AT_ONCE])}
            assert outcomes == {"accepted"}, outcomes
    print("done")
