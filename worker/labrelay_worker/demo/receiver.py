"""A small HTTP receiver for demos and fault tests: it keeps each Idempotency-Key once and misbehaves on request.

Run it alone with ``python -m labrelay_worker.demo.receiver --port 8080 --folder received``.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from labrelay_worker.demo.inbox import Answer, Delivery, Inbox
from labrelay_worker.demo.receiver_http import ReceiverServer

__all__ = ["Answer", "Delivery", "Receiver"]

_POLL_SECONDS = 0.02


class Receiver:
    """The receiver on a port of this machine, in a thread of its own.

    ``POST`` to any path stores a delivery (multipart or JSON), ``GET /records/<id>`` returns its record,
    ``GET /records?key=<Idempotency-Key>`` what is stored under a key, and ``GET /health`` answers 200.

    Parameters
    ----------
    port
        0: any free one.
    inbox
        Where deliveries go; default: an `Inbox` in memory.

    Examples
    --------
    >>> with Receiver() as receiver:
    ...     receiver.script("/submit", [Answer(status=503, headers={"Retry-After": "1"}), Answer(drop=True)])
    ...     receiver.deliveries
    []
    """

    def __init__(self, *, port: int = 0, inbox: Inbox | None = None) -> None:
        self._inbox = inbox or Inbox()
        self._server = ReceiverServer(port, self._inbox)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_SECONDS,), name="receiver", daemon=True
        )

    @property
    def url(self) -> str:
        """Address without a slash at its end."""
        return self._server.url

    @property
    def deliveries(self) -> list[Delivery]:
        """Every POST so far, in the order of arrival; a copy."""
        return self._inbox.deliveries

    def script(self, path: str, answers: Iterable[Answer], *, method: str = "POST") -> None:
        """Line up answers for the next requests of one method to a path; after them it answers normally again."""
        self._inbox.script(path, answers, method=method)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Stop answering, close every connection and free the port."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.close_connections()
        self._server.server_close()

    def __enter__(self) -> Receiver:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the receiver alone until SIGINT or SIGTERM, with one JSON line on stdout per accepted delivery."""
    parser = argparse.ArgumentParser(prog="python -m labrelay_worker.demo.receiver", description=main.__doc__)
    parser.add_argument("--port", type=int, default=0, help="default: any free one; the address is said on stderr")
    parser.add_argument("--folder", type=Path, help="save the records here")
    parser.add_argument("--count-file", type=Path, help="append one JSON line per request")
    options = parser.parse_args(arguments)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        inbox = Inbox(folder=options.folder, count_file=options.count_file, on_accepted=_print)
        receiver = Receiver(port=options.port, inbox=inbox)
    except OSError as error:
        parser.exit(1, f"cannot receive on port {options.port}: {error.strerror or error}; choose another --port\n")
    with receiver:
        sys.stderr.write(f"listening at {receiver.url}\n")
        sys.stderr.flush()
        stop.wait()


def _print(summary: dict[str, Any]) -> None:
    with suppress(BrokenPipeError):  # whoever read the lines may have left
        sys.stdout.write(json.dumps(summary) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
