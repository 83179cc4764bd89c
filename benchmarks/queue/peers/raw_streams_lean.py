"""The same limit with labrelay's HTTP client and JSON library, so that only queue and ledger differ."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import uvloop
from benchmarks.queue.peers.raw_streams import Deliver, consume, producer
from benchmarks.queue.workload import RECEIVER, deliver_with, headers

from labrelay_worker.http import HttpClient
from labrelay_worker.http_answers import error_of
from labrelay_worker.tls import TlsOptions

__all__ = ["producer"]


@asynccontextmanager
async def with_labrelays_client() -> AsyncIterator[Deliver]:
    async with HttpClient(tls=TlsOptions(), timeout=60.0, headers={}) as http:

        async def post(name: str, body: dict[str, Any]) -> dict[str, Any]:
            answer = await http.request(
                "POST", f"{RECEIVER}/{name}", headers=headers(name, body), data=orjson.dumps(body)
            )
            error = error_of(answer)
            if error is not None:
                raise error
            return answer.json()

        yield lambda context: deliver_with(post, context)


if __name__ == "__main__":
    uvloop.run(consume(with_labrelays_client))
