"""Group commit: all Lua calls of a process that are waiting go to Redis together (facts: ledger-speed).

They travel in one pipeline; calls of a script that takes many at once are joined into a single call.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from labrelay.replicas import REPLICA_WAIT_MS, require_replicas

_LARGEST_GROUP = 200

_Line = tuple[str, tuple[str | int, ...]]
#: Gives the last arguments of a call in the moment it leaves.
Late = Callable[[], Sequence[str | int]]


#: Told what a call answered, or what it failed with.
Then = Callable[[Any], None]


class _Call:
    __slots__ = ("arguments", "late", "script", "then")

    def __init__(self, script: str, arguments: tuple[str | int, ...], late: Late | None, then: Then) -> None:
        self.script, self.arguments, self.late, self.then = script, arguments, late, then

    def seal(self) -> None:
        if self.late is not None:
            self.arguments, self.late = (*self.arguments, *self.late()), None


@dataclass(frozen=True)
class _Bundle:
    """Calls that travel as one; `shared` is None for one that travels alone."""

    calls: Sequence[_Call]
    shared: int | None

    @property
    def call(self) -> _Line:
        first = self.calls[0]
        if self.shared is None:
            return first.script, first.arguments
        own = chain.from_iterable([call.arguments[self.shared :] for call in self.calls])
        return first.script, (*first.arguments[: self.shared], *own)

    def answer(self, answer: Any) -> None:
        alone = self.shared is None or isinstance(answer, Exception)
        answers = [answer] * len(self.calls) if alone else answer
        for call, own in zip(self.calls, answers, strict=True):
            call.then(own)


class ScriptGroups:
    """Runs Lua scripts, grouping those that wait while another group is on its way.

    Parameters
    ----------
    client
        A Redis client that decodes responses.
    sources
        Lua source by script name.
    joined
        Scripts that take many calls at once, with the number of leading arguments that these have in common: the
        other arguments follow one after the other, and the answer is the list of answers.
    replicas
        How many of them must hold what a group wrote before its answers count: an intent that only a dying master
        knew of would be sent again, unasked.
    """

    def __init__(
        self,
        client: Redis,
        sources: Mapping[str, str],
        joined: Mapping[str, int] = MappingProxyType({}),
        *,
        replicas: int = 0,
    ) -> None:
        self._redis = client
        self._joined, self._replicas = joined, replicas
        self._sources = dict(sources)
        # SHA-1 is how Redis names a cached script; nothing is secured by it.
        self._shas = {name: hashlib.sha1(text.encode()).hexdigest() for name, text in sources.items()}  # noqa: S324
        self._waiting: list[_Call] = []
        self._flusher: asyncio.Task[None] | None = None

    async def run(self, script: str, *arguments: str | int, late: Late | None = None) -> Any:
        """Run one script and return its answer.

        Parameters
        ----------
        script
            Its name.
        *arguments
            Its arguments, the key prefix first.
        late
            Gives the rest of them when the group leaves, so that what comes until then travels along.

        Raises
        ------
        redis.exceptions.RedisError
            Of this call alone, or of the connection for every call of the group.
        """
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def then(found: Any) -> None:
            if answer.done():
                return  # nobody waits any more
            if isinstance(found, Exception):
                answer.set_exception(found)
            else:
                answer.set_result(found)

        self.begin(script, *arguments, late=late, then=then)
        return await answer

    def begin(self, script: str, *arguments: str | int, late: Late | None = None, then: Then) -> None:
        """Run one script for somebody who is told instead of waiting; see `run`.

        Parameters
        ----------
        then
            Given the answer, or the exception; it must not raise.
        """
        self._waiting.append(_Call(script, arguments, late, then))
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush())

    async def _flush(self) -> None:
        while self._waiting:
            await asyncio.sleep(0)  # who became ready in the same turn of the loop comes along
            group, self._waiting = self._waiting[:_LARGEST_GROUP], self._waiting[_LARGEST_GROUP:]
            for call in group:
                call.seal()
            bundles = self._bundles(group)
            try:
                answers = await self._execute([bundle.call for bundle in bundles])
            except Exception as error:  # noqa: BLE001  it belongs to the callers
                answers = [error] * len(bundles)
            for bundle, answer in zip(bundles, answers, strict=True):
                bundle.answer(answer)

    def _bundles(self, group: Sequence[_Call]) -> list[_Bundle]:
        joined: dict[tuple[str | int, ...], list[_Call]] = {}
        for number, call in enumerate(group):
            shared = self._joined.get(call.script)
            joined.setdefault((number,) if shared is None else (call.script, *call.arguments[:shared]), []).append(
                call
            )
        return [_Bundle(calls, self._joined.get(calls[0].script)) for calls in joined.values()]

    async def _execute(self, calls: Sequence[_Line]) -> list[Any]:
        answers = await self._send(calls)
        # A restarted Redis has forgotten the scripts; calls it refused did not run, so they are sent again.
        refused = [i for i, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if refused:
            for script in {calls[i][0] for i in refused}:
                await self._redis.script_load(self._sources[script])
            for i, answer in zip(refused, await self._send([calls[i] for i in refused]), strict=True):
                answers[i] = answer
        return answers

    async def _send(self, calls: Sequence[_Line]) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for script, arguments in calls:
            pipeline.evalsha(self._shas[script], 0, *arguments)
        if self._replicas:
            pipeline.wait(self._replicas, REPLICA_WAIT_MS)
        answers = list(await pipeline.execute(raise_on_error=False))
        if self._replicas:
            require_replicas(answers.pop(), self._replicas)
        return answers
