"""taskiq on Redis streams, acknowledged when done."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.queue.workload import REDIS, deliver, session
from taskiq import TaskiqEvents, TaskiqState
from taskiq.message import TaskiqMessage
from taskiq_redis import RedisStreamBroker

broker = RedisStreamBroker(url=REDIS, maxlen=None)


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def _open(state: TaskiqState) -> None:
    state.http = session()


@broker.on_event(TaskiqEvents.WORKER_SHUTDOWN)
async def _close(state: TaskiqState) -> None:
    await state.http.close()


@broker.task(task_name="export")
async def export(context: dict[str, Any]) -> None:
    await deliver(broker.state.http, context)


class Producer:
    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner

    def single(self, documents: list[dict[str, Any]]) -> None:
        async def send() -> None:
            for context in documents:
                await export.kiq(context)

        self._runner.run(send())

    def bulk(self, documents: list[dict[str, Any]]) -> None:
        async def send() -> None:
            for start in range(0, len(documents), 50):
                await asyncio.gather(*(export.kiq(context) for context in documents[start : start + 50]))

        self._runner.run(send())


@contextmanager
def producer() -> Iterator[Producer]:
    with asyncio.Runner() as runner:
        runner.run(broker.startup())
        yield Producer(runner)
        runner.run(broker.shutdown())


__all__ = ["TaskiqMessage", "broker", "producer"]
