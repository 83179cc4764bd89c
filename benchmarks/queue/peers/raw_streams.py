"""The limit: a hand-written asyncio consumer of a Redis stream, with no durability beyond the stream itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from typing import Any

import redis
import redis.asyncio
import uvloop
from benchmarks.queue.workload import IN_FLIGHT, REDIS, deliver, session

STREAM, GROUP, RESULTS = "raw:contexts", "workers", "raw:results"
_PIPELINE = 500


class Producer:
    """Adds contexts to the stream."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def single(self, documents: list[dict[str, Any]]) -> None:
        for context in documents:
            self._redis.xadd(STREAM, {"context": json.dumps(context)})

    def bulk(self, documents: list[dict[str, Any]]) -> None:
        for start in range(0, len(documents), _PIPELINE):
            with self._redis.pipeline(transaction=False) as pipeline:
                for context in documents[start : start + _PIPELINE]:
                    pipeline.xadd(STREAM, {"context": json.dumps(context)})
                pipeline.execute()


@contextmanager
def producer() -> Iterator[Producer]:
    with redis.Redis.from_url(REDIS) as client:
        yield Producer(client)


Deliver = Callable[[dict[str, Any]], Coroutine[Any, Any, None]]


@asynccontextmanager
async def with_aiohttp() -> AsyncIterator[Deliver]:
    async with session() as http:
        yield lambda context: deliver(http, context)


async def consume(client_of_its_kind: Callable[[], AbstractAsyncContextManager[Deliver]] = with_aiohttp) -> None:
    # The default pool refuses what is beyond its 100 connections; a few that are waited for are faster, too.
    pool = redis.asyncio.BlockingConnectionPool.from_url(REDIS, max_connections=8, timeout=None)
    client = redis.asyncio.Redis.from_pool(pool)
    with suppress(redis.exceptions.ResponseError):  # another worker made it
        await client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    slots, tasks = asyncio.Semaphore(IN_FLIGHT), set[asyncio.Task[None]]()
    async with client_of_its_kind() as send:

        async def work(entry: bytes, context: dict[str, Any]) -> None:
            try:
                await send(context)
                async with client.pipeline(transaction=True) as pipeline:
                    pipeline.hset(RESULTS, context["session_identifier"], "done")
                    pipeline.xack(STREAM, GROUP, entry)
                    await pipeline.execute()
            finally:
                slots.release()

        name = f"{id(client)}"
        while True:
            await slots.acquire()
            slots.release()
            free = max(1, min(64, slots._value))
            for _, entries in await client.xreadgroup(GROUP, name, {STREAM: ">"}, count=free, block=1000) or ():
                for entry, fields in entries:
                    await slots.acquire()
                    task = asyncio.create_task(work(entry, json.loads(fields[b"context"])))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)


if __name__ == "__main__":
    uvloop.run(consume())
