"""The work that every queue is given: contexts of about 2 KB, delivered to three destinations.

The first destination's answer names the record; the other two get that name, side by side. Nothing but the standard
library and aiohttp, so that it runs in every peer's environment.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp

FIRST, LATER = "alpha", ("beta", "gamma")
DESTINATIONS = (FIRST, *LATER)
#: Contexts that one process works on at once.
IN_FLIGHT = 200

#: Where queue and destinations are, for workers that take no arguments.
REDIS = os.environ.get("BENCH_REDIS", "")
RECEIVER = os.environ.get("BENCH_RECEIVER", "")
RECORD = os.environ.get("BENCH_RECORD", "/nowhere/record.xml")


def document(number: int) -> dict[str, Any]:
    """Return one context as a pipeline would make it."""
    return {
        "schema": "labrelay.export_context/1",
        "xml_file_path": RECORD,
        "session_identifier": f"bench-{number}",
        "instrument_pid": "BENCH-TEM",
        "dt_from": "2026-01-01T10:00:00+00:00",
        "dt_to": "2026-01-01T11:00:00+00:00",
        "user": "anna",
        "metadata": {
            "files": [
                {"name": f"/data/titan/2026-01-01/session-{number}/image_{i:03d}.dm3", "bytes": 33_555_000 + i}
                for i in range(20)
            ],
        },
    }


#: Posts one context to a destination and returns its answer.
Post = Callable[[str, dict[str, Any]], Coroutine[Any, Any, dict[str, Any]]]


async def deliver(session: aiohttp.ClientSession, context: dict[str, Any]) -> None:
    """Deliver one context: the first destination, then the others with its answer."""

    async def post(name: str, body: dict[str, Any]) -> dict[str, Any]:
        async with session.post(f"{RECEIVER}/{name}", data=json.dumps(body), headers=headers(name, body)) as reply:
            reply.raise_for_status()
            found: dict[str, Any] = await reply.json()
            return found

    await deliver_with(post, context)


async def deliver_with(post: Post, context: dict[str, Any]) -> None:
    """Deliver one context with whatever posts."""
    answer = await post(FIRST, context)
    linked = {**context, "record": answer["id"]}
    await asyncio.gather(*(post(name, linked) for name in LATER))


def headers(name: str, body: dict[str, Any]) -> dict[str, str]:
    """Return what every delivery says of itself."""
    return {"Content-Type": "application/json", "Idempotency-Key": f"{body['session_identifier']}.{name}"}


def session() -> aiohttp.ClientSession:
    """Return an HTTP session without a limit of its own."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
