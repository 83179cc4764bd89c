"""The process that answers scrapes for the children of one prefork worker: ``python -m … SOCKET``; not for people.

It ends when the last process of its worker has ended, and takes the shared folder with it.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.multiprocess import MultiProcessCollector

from labrelay.metrics.serving import serve


def main(descriptor: int) -> None:
    """Serve until standard input ends."""
    folder = os.environ["PROMETHEUS_MULTIPROC_DIR"]
    registry = CollectorRegistry()
    MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
    serve(socket.socket(fileno=descriptor), make_wsgi_app(registry))
    sys.stdin.buffer.read()
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
