"""The Celery app: ``celery -A labrelay_worker.app worker|inspect|control|flower``."""

from __future__ import annotations

from celery import Celery

from labrelay.errors import LabrelayError
from labrelay.wakeups import broker_settings
from labrelay_worker import broker, lifecycle
from labrelay_worker.settings import load_worker_settings

try:
    _settings = load_worker_settings()
    _broker = broker_settings(_settings)
except LabrelayError as error:
    # The celery command shows an ImportError's text without a traceback.
    raise ImportError(str(error)) from error

broker.install()
app = Celery("labrelay", include=["labrelay_worker.tasks"])
app.conf.update(_broker)
app.conf.update(
    # worker_pool is not set: Celery would take an explicit `-P prefork` for the default and override it.
    # `labrelay worker` asks for threads; plain `celery worker` means prefork, as people know it.
    # a killed worker's messages come back; without the second setting a dead child's message is acknowledged
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    # the ledger decides about retries: a failed or timed-out task is done as far as Celery is concerned
    task_acks_on_failure=True,
    task_acks_on_timeout=True,
    # reserved messages would wait here while another worker is idle
    worker_prefetch_multiplier=1,
    # a delivery survives a dropped broker connection; the lease keeps a second worker off it
    worker_cancel_long_running_tasks_on_connection_loss=False,
    # the defaults give up after a while, and the worker with them
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    # SIGQUIT waits this long for running calls before it ends prefork children
    worker_soft_shutdown_timeout=_settings.drain_seconds,
    # discovering plugins takes longer than the default of 4 s when imports are slow
    worker_proc_alive_timeout=60,
    # Flower lives on these events
    worker_send_task_events=True,
    task_track_started=True,
    # plugins may leak; a child is renewed now and then
    worker_max_tasks_per_child=500,
    # our own signal handlers write what matters; Celery must not capture a plugin's prints as warnings
    worker_redirect_stdouts=False,
)

__all__ = ["app", "lifecycle"]
