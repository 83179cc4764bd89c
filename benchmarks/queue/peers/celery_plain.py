"""Celery as its documentation has it: one task per context, late acknowledgement, no result backend."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.queue.workload import REDIS, deliver, session
from celery import Celery

app = Celery("bench", broker=REDIS)
app.conf.update(
    task_acks_late=True, task_ignore_result=True, worker_prefetch_multiplier=4, task_reject_on_worker_lost=True
)

_loop = asyncio.new_event_loop()
_started = threading.Lock()
_state: dict[str, Any] = {}


@app.task(name="bench.export", autoretry_for=(Exception,), max_retries=2, retry_backoff=True)
def export(context: dict[str, Any]) -> None:
    # The same HTTP client as everybody: one loop per process, shared by its threads.
    asyncio.run_coroutine_threadsafe(_deliver(context), _running_loop()).result()


def _running_loop() -> asyncio.AbstractEventLoop:
    with _started:
        if "thread" not in _state:
            _state["thread"] = threading.Thread(target=_loop.run_forever, daemon=True)
            _state["thread"].start()
    return _loop


async def _deliver(context: dict[str, Any]) -> None:
    if "http" not in _state:
        _state["http"] = session()
    await deliver(_state["http"], context)


class Producer:
    def single(self, documents: list[dict[str, Any]]) -> None:
        for context in documents:
            export.apply_async((context,))

    def bulk(self, documents: list[dict[str, Any]]) -> None:
        with app.producer_or_acquire() as producer:
            for context in documents:
                export.apply_async((context,), producer=producer)


@contextmanager
def producer() -> Iterator[Producer]:
    yield Producer()
