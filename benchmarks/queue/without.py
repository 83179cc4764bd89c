"""labrelay without one of the steps that make it fast: ``python -m benchmarks.queue.without STEP celery ...``.

Nothing here is a setting of labrelay: each step is taken out of the running program, so that its worth is measured
beside the whole and not only claimed.
"""

# ruff: noqa: PLC0415  peers import this file and have none of labrelay's modules

from __future__ import annotations

import asyncio
import io
import json
import os
import runpy
import sys
from collections.abc import Callable
from typing import Any


def several_per_wake_up() -> None:
    """One Celery message for every export."""
    from labrelay import names, scripts
    from labrelay_worker import intake

    names.EXPORTS_PER_WAKE_UP = scripts.EXPORTS_PER_WAKE_UP = intake.EXPORTS_PER_WAKE_UP = 1


def lean_http() -> None:
    """aiohttp for every request."""
    from labrelay_worker import http

    original = http.HttpClient.request

    async def request(self: Any, method: str, url: Any, *, data: Any = None, **more: Any) -> Any:
        return await original(self, method, url, data=io.BytesIO(data) if isinstance(data, bytes) else data, **more)

    http.HttpClient.request = request  # type: ignore[method-assign]


def group_commit() -> None:
    """A round trip for every ledger write."""
    from labrelay_worker import batching

    batching._LARGEST_GROUP = 1


def joined_commits() -> None:
    """The writes of a group in one pipeline, but each as a call of its own."""
    from labrelay_worker import ledger

    ledger._JOINED = {}


def shared_writes() -> None:
    """Receipt, next intents and verdict of an export one after the other."""
    from labrelay_worker.claimed import LedgerJob

    original = LedgerJob.write_receipt

    async def write_receipt(self: Any, name: str, receipt: Any) -> None:
        await original(self, name, receipt)
        await self.written()

    LedgerJob.write_receipt = write_receipt  # type: ignore[method-assign]


def fewer_tasks() -> None:
    """A task for every delivery, also for one that runs alone."""
    from labrelay_worker.sidebyside import SideBySide

    original = SideBySide.one_ended

    async def one_ended(self: Any) -> None:
        self._running |= {self._started(coroutine) for coroutine in self._new}
        self._new.clear()
        await original(self)

    SideBySide.one_ended = one_ended  # type: ignore[method-assign]


def larger_takes() -> None:
    """A look every 5 ms, however little the last one brought."""
    from labrelay_worker import intake

    intake._HANDFUL = 0


def rare_collection() -> None:
    """Python's own settings for collecting garbage."""
    from labrelay_worker import runtime

    runtime._collect_rarely = lambda: None


def uvloop() -> None:
    """asyncio's own event loop."""
    from labrelay_worker import runtime

    runtime.uvloop.new_event_loop = asyncio.new_event_loop  # type: ignore[assignment]


def hiredis() -> None:
    """redis-py's parser, and its packing of commands, in Python."""
    from redis.asyncio import connection

    from labrelay_worker import runtime

    runtime.pack_in_c = lambda client: None
    connection.DefaultParser = connection._AsyncRESP2Parser  # type: ignore[misc]
    connection.Connection.__init__.__kwdefaults__["parser_class"] = connection._AsyncRESP2Parser


def orjson() -> None:
    """The standard library's JSON."""
    from labrelay_worker import claimed, http_answers

    class Standard:
        loads = staticmethod(json.loads)

        @staticmethod
        def dumps(value: Any) -> bytes:
            return json.dumps(value).encode()

    claimed.orjson = http_answers.orjson = Standard  # type: ignore[assignment]


STEPS: dict[str, Callable[[], None]] = {
    step.__name__: step
    for step in (
        several_per_wake_up, lean_http, group_commit, joined_commits, shared_writes, fewer_tasks,
        larger_takes, rare_collection, uvloop, hiredis, orjson,
    )
}  # fmt: skip


def apply() -> None:
    """Take out the step that the environment names, if any."""
    step = os.environ.get("BENCH_WITHOUT")
    if step:
        STEPS[step]()


if __name__ == "__main__":
    os.environ["BENCH_WITHOUT"] = sys.argv[1]
    apply()
    sys.argv[1:] = sys.argv[2:]
    runpy.run_module("celery", run_name="__main__", alter_sys=True)
