"""Group commit: all Lua calls of a process that are waiting go to Redis in one pipeline (facts: ledger-speed)."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError
from redis.exceptions import TimeoutError as RedisTimeoutError

#: Errors after which the call may be repeated: every ledger script is safe to run twice.
AWAY = (RedisConnectionError, RedisTimeoutError)

_LARGEST_GROUP = 200


@dataclass(frozen=True)
class _Call:
    script: str
    arguments: tuple[str | int, ...]
    answer: asyncio.Future[Any]


class ScriptGroups:
    """Runs Lua scripts, grouping those that wait while another group is on its way.

    Parameters
    ----------
    client
        A Redis client that decodes responses.
    sources
        Lua source by script name.
    """

    def __init__(self, client: Redis, sources: Mapping[str, str]) -> None:
        self._redis = client
        self._sources = dict(sources)
        # SHA-1 is how Redis names a cached script; nothing is secured by it.
        self._shas = {name: hashlib.sha1(text.encode()).hexdigest() for name, text in sources.items()}  # noqa: S324
        self._waiting: list[_Call] = []
        self._flusher: asyncio.Task[None] | None = None

    async def run(self, script: str, *arguments: str | int) -> Any:
        """Run one script and return its answer.

        Raises
        ------
        redis.exceptions.RedisError
            Of this call alone, or of the connection for every call of the group.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Call(script, arguments, future))
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush())
        return await future

    async def _flush(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting[:_LARGEST_GROUP], self._waiting[_LARGEST_GROUP:]
            try:
                answers = await self._execute(group)
            except Exception as error:  # noqa: BLE001  it belongs to the callers
                answers = [error] * len(group)
            for call, answer in zip(group, answers, strict=True):
                if call.answer.done():
                    continue
                if isinstance(answer, Exception):
                    call.answer.set_exception(answer)
                else:
                    call.answer.set_result(answer)

    async def _execute(self, group: list[_Call]) -> list[Any]:
        answers = await self._send(group)
        # A restarted Redis has forgotten the scripts; calls it refused did not run, so they are sent again.
        refused = [i for i, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if refused:
            for source in {group[i].script for i in refused}:
                await self._redis.script_load(self._sources[source])
            for i, answer in zip(refused, await self._send([group[i] for i in refused]), strict=True):
                answers[i] = answer
        return answers

    async def _send(self, calls: list[_Call]) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for call in calls:
            pipeline.evalsha(self._shas[call.script], 0, *call.arguments)
        return list(await pipeline.execute(raise_on_error=False))
