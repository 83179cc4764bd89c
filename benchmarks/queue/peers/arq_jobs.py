"""arq with a short poll delay (its default of half a second would be its latency)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from arq import create_pool
from arq.connections import ArqRedis, RedisSettings
from benchmarks.queue.workload import IN_FLIGHT, REDIS, deliver, session

SETTINGS = RedisSettings.from_dsn(REDIS) if REDIS else RedisSettings()


async def export(ctx: dict[str, Any], context: dict[str, Any]) -> None:
    await deliver(ctx["http"], context)


async def startup(ctx: dict[str, Any]) -> None:
    ctx["http"] = session()


async def shutdown(ctx: dict[str, Any]) -> None:
    await ctx["http"].close()


class WorkerSettings:
    functions: ClassVar[list[Any]] = [export]
    on_startup, on_shutdown = startup, shutdown
    redis_settings = SETTINGS
    max_jobs = IN_FLIGHT
    poll_delay = 0.005
    keep_result = 0


class Producer:
    def __init__(self, runner: asyncio.Runner, pool: ArqRedis) -> None:
        self._runner, self._pool = runner, pool

    def single(self, documents: list[dict[str, Any]]) -> None:
        async def send() -> None:
            for context in documents:
                await self._pool.enqueue_job("export", context)

        self._runner.run(send())

    def bulk(self, documents: list[dict[str, Any]]) -> None:
        async def send() -> None:
            for start in range(0, len(documents), 50):
                await asyncio.gather(
                    *(self._pool.enqueue_job("export", context) for context in documents[start : start + 50])
                )

        self._runner.run(send())


@contextmanager
def producer() -> Iterator[Producer]:
    with asyncio.Runner() as runner:
        pool = runner.run(create_pool(SETTINGS))
        yield Producer(runner, pool)
        runner.run(pool.aclose())
