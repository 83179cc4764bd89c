"""A backend for tests: writes down its cleanup."""

import os
from pathlib import Path
from typing import Any

from labrelay_worker.backends.memory import MemoryBackend


class ClosingBackend(MemoryBackend):
    _backend_type = "closing"

    def __init__(self, log: str, **options: Any) -> None:
        super().__init__(**options)
        self._log = Path(log)

    def cleanup_connections(self) -> None:
        self._write("connections")
        super().cleanup_connections()

    def cleanup(self) -> None:
        self._write("cleanup")
        super().cleanup()

    def _write(self, event: str) -> None:
        descriptor = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{event} {os.getpid()}\n".encode())
        os.close(descriptor)
