"""Where Prometheus reads the counters of one worker: one address, whatever pool it has.

With threads or solo the worker process answers itself. The children of prefork share theirs in a folder of mapped
files (prometheus-client's multiprocess mode), one set for each slot of the pool: a child that takes the place of
another one goes on counting where that one stopped, so nothing is lost and the folder does not grow. A small process
of the worker answers for them all: a thread beside the forks could leave a lock held in a child.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    make_wsgi_app,
    values,
)

from labrelay.metrics.serving import address_of, listen, serve
from labrelay_worker.settings import WorkerSettings

_logger = logging.getLogger(__name__)

#: How prometheus-client finds the folder; it is inherited by every child.
FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_ADDRESS_FILE = "address"


def open_alone(settings: WorkerSettings) -> tuple[CollectorRegistry, str]:
    """Serve the counters of this process; return where to register them, and the address."""
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    listening = _listen(settings)
    address = address_of(listening)
    serve(listening, make_wsgi_app(registry))
    _logger.info("metrics at http://%s/metrics", address)
    return registry, address


def open_for_children(settings: WorkerSettings) -> subprocess.Popen[bytes]:
    """Before the fork: make the folder that the children share; return the process that answers for them.

    It lives while somebody holds the pipe to it: whoever drops what is returned ends it.
    """
    folder = Path(tempfile.mkdtemp(prefix="labrelay-metrics-"))
    listening = _listen(settings)
    (folder / _ADDRESS_FILE).write_text(address_of(listening))
    os.environ[FOLDER_VARIABLE] = str(folder)
    # Its end of the pipe is closed when the last process of this worker is gone, however that went.
    exporter = subprocess.Popen(
        [sys.executable, "-m", "labrelay_worker.telemetry.exporter", str(listening.fileno())],
        stdin=subprocess.PIPE,
        pass_fds=[listening.fileno()],
        start_new_session=True,  # Ctrl-C is for the worker: what it still counts is still to be read
    )
    _logger.info("metrics at http://%s/metrics, for all children", address_of(listening))
    listening.close()
    return exporter


def join_shared(slot: int) -> tuple[CollectorRegistry, str]:
    """In a child of prefork: count into the shared folder, going on where the last child in this slot stopped."""
    values.ValueClass = values.MultiProcessValue(process_identifier=lambda: slot)  # type: ignore[no-untyped-call]
    return CollectorRegistry(), (Path(os.environ[FOLDER_VARIABLE]) / _ADDRESS_FILE).read_text()


def _listen(settings: WorkerSettings) -> socket.socket:
    host, port = settings.metrics_host, settings.metrics_port or 0
    try:
        return listen(host, port)
    except OSError as error:
        if port == 0:
            raise
        # Deliveries matter more than their metrics; and those who look at `/workers` find the other port.
        _logger.warning(
            "metrics_port %d cannot be used (%s): a free one is taken. Give each worker of a machine a port of its "
            "own, or 0 and let Prometheus find them (docs/monitoring.md)", port, error,
        )  # fmt: skip
        return listen(host, 0)
