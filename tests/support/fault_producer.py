"""A producer to be killed: submits the contexts of a file one by one, and prints each id with what became of it."""

import sys
from pathlib import Path

from labrelay.client import Client
from labrelay.context import ExportContext
from labrelay.errors import LedgerUnavailable

with Client(background_flush=False) as client:
    for line in Path(sys.argv[1]).read_text().splitlines():
        context = ExportContext.parse(line)
        try:
            outcome = client.submit(context, "all", destinations=sys.argv[2:]).outcome
        except LedgerUnavailable:  # neither Redis nor the disk of the outbox is quick enough on a busy machine
            outcome = "refused"
        # In one piece, also where Python does not buffer: killed in the midst of it, it says nothing.
        print(f"{context.export_id} {outcome}\n", end="", flush=True)
