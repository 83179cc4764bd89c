"""A producer to be killed: submits the contexts of a file one by one, and prints each id once it is accepted."""

import sys
from pathlib import Path

from labrelay.client import Client
from labrelay.context import ExportContext

with Client(background_flush=False) as client:
    for line in Path(sys.argv[1]).read_text().splitlines():
        submission = client.submit(ExportContext.parse(line), "all", destinations=sys.argv[2:])
        print(submission.export_id, submission.outcome, flush=True)
