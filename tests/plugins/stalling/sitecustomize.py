"""Put on PYTHONPATH, it makes Celery hang when a worker stops, as it does when a message arrives in that moment."""

import threading

from celery.worker import WorkController

from labrelay_worker import lifecycle

lifecycle.CELERY_SECONDS = 1.0
WorkController.stop = lambda *_, **__: threading.Event().wait()
