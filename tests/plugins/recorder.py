"""A destination for tests: writes down what is done to it, one JSON line per event, in a file of its own."""

import json
import os
import time
from pathlib import Path

from labrelay.context import ExportContext
from labrelay.errors import Rejected, Transient
from labrelay.results import ExportResult, Receipt
from labrelay_worker.destinations.base import Destination, Options


class RecorderOptions(Options):
    """What a test wants of it."""

    log: Path
    hold_while: Path | None = None  # an export lasts as long as this file exists
    fail_while: Path | None = None
    kill_once_in: Path | None = None  # kill the process at the first export of each session
    kill_while: Path | None = None  # kill the process at every export as long as this file exists
    refuse_while: Path | None = None
    find_in_log: bool = False
    idempotent: bool = False
    seconds: float = 0.0  # that every export takes
    record_url: str | None = None  # the address it gives to what it accepted


class BlindDestination(Destination):
    """Cannot be asked. Blocking on purpose: it runs in a thread, as most people's plugins will."""

    name = "blind"
    Options = RecorderOptions

    def __init__(self, name: str, options: RecorderOptions) -> None:
        super().__init__(name, options)
        self.idempotent = options.idempotent
        self._write("made")

    def export(self, context: ExportContext) -> ExportResult:
        self._write("export", context)
        if self.options.kill_once_in is not None:
            self._kill_once(self.options.kill_once_in / context.export_id)
        if self.options.kill_while is not None and self.options.kill_while.exists():
            os.kill(os.getpid(), 9)
        time.sleep(self.options.seconds)
        while self.options.hold_while is not None and self.options.hold_while.exists():
            time.sleep(0.01)
        if self.options.fail_while is not None and self.options.fail_while.exists():
            raise Transient("told to fail")
        if self.options.refuse_while is not None and self.options.refuse_while.exists():
            raise Rejected("told to refuse")
        self._write("accepted", context)
        return self.succeeded(context.export_id, self.options.record_url, verified="written down")

    def close(self) -> None:
        self._write("closed")

    def _kill_once(self, marker: Path) -> None:
        try:
            marker.touch(exist_ok=False)
        except FileExistsError:
            return
        os.kill(os.getpid(), 9)

    def _write(self, event: str, context: ExportContext | None = None) -> None:
        line = {"event": event, "name": self.name, "pid": os.getpid(), "id": context and context.export_id}
        if context is not None:
            line["revision"] = context.revision
            line["saw"] = sorted(context.previous_results)
        descriptor = os.open(self.options.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, (json.dumps(line) + "\n").encode())
        os.close(descriptor)


class RecorderDestination(BlindDestination):
    """The same, and it can be asked."""

    name = "recorder"

    def find(self, context: ExportContext) -> ExportResult | None:
        self._write("find", context)
        lines = self.options.log.read_text().splitlines() if self.options.find_in_log else []
        mine = {"event": "accepted", "name": self.name, "id": context.export_id}
        if any(mine.items() <= json.loads(line).items() for line in lines):
            return self.succeeded(context.export_id, None, verified="found")
        return None


class NotebookDestination(RecorderDestination):
    """The same, and its entry links to what ``waits_for`` names, later if need be."""

    name = "notebook"

    def export(self, context: ExportContext) -> ExportResult:
        result = super().export(context)
        missing = [name for name in self.waits_for if not context.has_successful_export(name)]
        return result.model_copy(update={"metadata": {**result.metadata, "unlinked": missing}}) if missing else result

    def link(self, context: ExportContext, receipt: Receipt) -> ExportResult:
        self._write("link", context)
        if self.options.kill_once_in is not None:
            self._kill_once(self.options.kill_once_in / f"link-{context.export_id}")
        return self.succeeded(receipt.record_id, receipt.record_url, verified="linked")
