"""Worker signals to Runtime: boot once per process, drain and close at shutdown.

Which signal fires where differs by pool (facts: celery-on-redis, section 6.1): ``worker_process_init`` in each
prefork child and in solo, never in threads; ``worker_shutdown`` not after SIGQUIT; ``atexit`` never in a child. So
boot and close are each effective once, and are called from every place that may be the only one.
"""

from __future__ import annotations

import atexit
import logging
import mmap
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from billiard import current_process
from celery import current_app, signals
from celery.concurrency import get_implementation
from celery.concurrency.prefork import TaskPool as PreforkPool
from celery.utils.nodenames import node_format
from redis.exceptions import RedisError

from labrelay.errors import BootError, LabrelayError
from labrelay.ledger import connect
from labrelay.metrics.exposing import require_client
from labrelay.wakeups import Wake, WakeUps
from labrelay_worker.runtime import Runtime, unreachable
from labrelay_worker.settings import load_worker_settings
from labrelay_worker.telemetry.assembling import telemetry_of
from labrelay_worker.telemetry.log import configure

_logger = logging.getLogger(__name__)

#: sysexits.h EX_CONFIG: supervisors tell a configuration error from a crash.
EXIT_CONFIG = 78
#: What Celery may take to end after the drain: a warm stop of prefork can stall for 30 s (facts: section 5.2).
CELERY_SECONDS = 35.0


class Lifecycle:
    """The Runtime of this process, and whether shutdown has begun."""

    def __init__(self) -> None:
        # Shared with forked children: only the main process hears of the shutdown.
        self._stopping = mmap.mmap(-1, 1)
        self._main_pid = os.getpid()
        self._child_ends = False
        self._lock = threading.Lock()
        self._runtime: Runtime | None = None
        self._pid = 0
        #: Answers Prometheus for the children of prefork, while the pipe to it is open.
        self.exporter: subprocess.Popen[bytes] | None = None
        #: Seconds after the signal until the process ends whatever Celery does; set at boot.
        self.patience = 0.0
        #: What is left to do after `close` when the process ends so, because nobody's clean-up runs then.
        self.afterwards: Callable[[], object] = lambda: None

    def stopping(self) -> bool:
        """Return whether shutdown has begun, of the worker or of this child alone."""
        return self._stopping[0] != 0 or self._child_ends

    def stop(self) -> None:
        """Begin shutdown: no claim and no destination call starts any more."""
        self._stopping[0] = 1

    def end_in_time(self) -> None:
        """End this process when Celery does not, which happens when a message arrives while it closes.

        By then every export is given back, and a message that is not acknowledged comes back too.
        """

        def end() -> None:
            time.sleep(self.patience)
            _logger.warning("Celery did not end by itself; its exports are given back, so the process ends now")
            self.close()
            try:
                self.afterwards()
            finally:
                os._exit(0)

        threading.Thread(target=end, name="labrelay-end", daemon=True).start()

    def runtime(self) -> Runtime:
        """Return the booted Runtime of this process.

        Raises
        ------
        BootError
            This process was not booted, so it must not run tasks.
        """
        if self._runtime is None or self._pid != os.getpid():
            raise BootError("this worker process was not booted and runs no exports")
        return self._runtime

    def boot(self, app: Any, slot: int | None = None) -> None:
        """Boot this process's Runtime, once.

        Parameters
        ----------
        app
            The Celery app that wake-ups are published with.
        slot
            Place in the pool of a prefork child.

        Raises
        ------
        LabrelayError
            The text names the repair; the process must end.
        """
        with self._lock:
            if self._runtime is not None and self._pid == os.getpid():
                return
            wake_ups = WakeUps(app)

            def ring(count: int, wakes: Sequence[Wake]) -> None:
                wake_ups.ring(count, wakes, again=True)

            settings = load_worker_settings()
            runtime = Runtime(settings, ring, self.stopping, telemetry_of(settings, slot))
            runtime.boot()
            self._runtime, self._pid = runtime, os.getpid()

    def close(self) -> None:
        """Drain and close this process's Runtime, once; never raises."""
        if os.getpid() == self._main_pid:
            self.stop()
        else:
            # A child that has done its share of tasks (--max-tasks-per-child) ends; the next one goes on.
            self._child_ends = True
        if self._runtime is not None and self._pid == os.getpid():
            self._runtime.close()


lifecycle = Lifecycle()


def _refuse(error: LabrelayError) -> str:
    return f"labrelay: this worker cannot start: {error}"


def _try_before_the_fork() -> None:
    """Find what would end every child, where one clear message is enough; keeps no connection open."""
    settings = load_worker_settings()
    client = connect(settings)
    try:
        client.ping()
    except RedisError as error:
        raise unreachable(error) from None
    finally:
        client.close()


def _serve_the_childrens_metrics() -> None:
    settings = load_worker_settings()
    if settings.metrics_port is not None:
        require_client()
        from labrelay_worker.telemetry.endpoint import open_for_children  # noqa: PLC0415  needs prometheus-client

        lifecycle.exporter = open_for_children(settings)


def _boot_main(sender: Any = None, **_: Any) -> None:
    try:
        if issubclass(get_implementation(sender.pool_cls), PreforkPool):
            _try_before_the_fork()
            _serve_the_childrens_metrics()
        else:
            lifecycle.boot(sender.app)
    except LabrelayError as error:
        sys.stderr.write(_refuse(error) + "\n")
        raise SystemExit(EXIT_CONFIG) from None
    lifecycle.patience = load_worker_settings().drain_seconds + CELERY_SECONDS
    atexit.register(lifecycle.close)


def _boot_process(**_: Any) -> None:
    try:
        lifecycle.boot(current_app, getattr(current_process(), "index", None))
    except LabrelayError as error:
        # Celery only logs an exception here and would go on unbooted; ending the child ends the worker.
        sys.stderr.write(_refuse(error) + "\n")
        sys.stderr.flush()
        os._exit(EXIT_CONFIG)


def _set_up_log_early(sender: str, options: dict[str, Any], **_: Any) -> None:
    # Celery comes to its log only after the boot, which has something to say already.
    file = options.get("logfile")
    _set_up_log(options.get("loglevel"), node_format(file, sender) if file else None)


def _set_up_log(loglevel: int | str | None = None, logfile: str | None = None, **_: Any) -> None:
    # With a receiver, Celery leaves the log alone.
    configure(load_worker_settings(), loglevel or logging.INFO, logfile)


def _stop(**_: Any) -> None:
    if not lifecycle.stopping():
        lifecycle.end_in_time()
    lifecycle.stop()


def _close_process(**_: Any) -> None:
    lifecycle.close()


def _close_main(**_: Any) -> None:
    lifecycle.close()


signals.celeryd_init.connect(_set_up_log_early)
signals.setup_logging.connect(_set_up_log)
signals.worker_init.connect(_boot_main)
signals.worker_process_init.connect(_boot_process)
signals.worker_shutting_down.connect(_stop)
signals.worker_process_shutdown.connect(_close_process)
signals.worker_shutdown.connect(_close_main)
