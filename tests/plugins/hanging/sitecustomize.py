"""Put on PYTHONPATH, it makes a worker's Celery never end, as happens when a message comes while it closes."""

import threading

from celery.worker import worker

import labrelay_worker.lifecycle

labrelay_worker.lifecycle.CELERY_SECONDS = 0.5
worker.WorkController.stop = lambda *_, **__: threading.Event().wait()
