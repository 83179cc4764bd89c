"""What a server can do to a client: a scripted list of misfortunes, and the middleware that carries them out."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

#: Requests below it steer the server and are neither logged nor hurt.
CONTROL = "/_control"


@dataclass(frozen=True)
class Fault:
    """One misfortune.

    Parameters
    ----------
    do
        ``status``: answer with it; ``close``: end the connection without an answer; ``half``: answer half of the
        body, then end the connection; ``hang``: answer when `Faults.release` is called, and nothing more happens if
        the client goes away before; ``delay``: answer `seconds` later.
    after
        Whether the server carries the request out first: its answer alone is lost or wrong.
    nth
        Which of the requests that match from now on, counted from 1.
    times
        How many in a row, from the `nth` on.
    method, path
        Which requests match: the method (empty: any) and a regular expression searched in path and query.
    status, headers, body
        The answer of ``status``.
    seconds
        The delay of ``delay``.
    """

    do: Literal["status", "close", "half", "hang", "delay"]
    after: bool = False
    nth: int = 1
    times: int = 1
    method: str = ""
    path: str = ""
    status: int = 503
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = "scripted fault"
    seconds: float = 0.0

    def matches(self, method: str, target: str) -> bool:
        """Return whether it is about such a request."""
        return self.method in ("", method) and re.search(self.path, target) is not None


@dataclass(frozen=True)
class Seen:
    """One request that arrived."""

    method: str
    target: str
    fault: str = ""
    #: When, epoch seconds.
    at: float = field(default_factory=time.time, compare=False)


class Faults:
    """The misfortunes that a server has in store, and the requests that it saw. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._planned: list[tuple[Fault, list[int]]] = []
        self._seen: list[Seen] = []
        self._held = 0
        self._released = threading.Event()

    @property
    def seen(self) -> list[Seen]:
        """The requests so far."""
        with self._lock:
            return list(self._seen)

    @property
    def held(self) -> int:
        """How many requests hang now."""
        with self._lock:
            return self._held

    def plan(self, *faults: Fault) -> None:
        """Add misfortunes; of several that match, the first planned happens."""
        with self._lock:
            self._released.clear()
            self._planned += [(fault, [0]) for fault in faults]

    def clear(self) -> None:
        """Forget what was planned and what was seen, and let go what hangs."""
        with self._lock:
            self._planned.clear()
            self._seen.clear()
        self.release()

    def release(self) -> None:
        """Let go what hangs."""
        self._released.set()

    def take(self, method: str, target: str) -> Fault | None:
        """Note a request, and return what befalls it."""
        with self._lock:
            chosen = None
            for fault, count in self._planned:
                if fault.matches(method, target):
                    count[0] += 1
                    if chosen is None and fault.nth <= count[0] < fault.nth + fault.times:
                        chosen = fault
            self._seen.append(Seen(method, target, "" if chosen is None else chosen.do))
            return chosen

    async def hang(self, is_gone: Callable[[], bool]) -> None:
        """Wait for `release`, or until the client is gone."""
        with self._lock:
            self._held += 1
        try:
            while not (self._released.is_set() or is_gone()):
                await asyncio.sleep(0.01)
        finally:
            with self._lock:
                self._held -= 1


def middleware(faults: Faults) -> Middleware:
    """Return an aiohttp middleware that lets the faults happen and answers below `CONTROL`."""

    @web.middleware
    async def befall(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith(CONTROL):
            return await _steer(request, faults, handler)
        fault = faults.take(request.method, request.path_qs)
        if fault is None:
            return await handler(request)
        if not fault.after:
            await request.read()  # the client is done sending: what follows is about the answer
        answer = await handler(request) if fault.after else None
        return await _carry_out(fault, faults, request, answer, handler)

    return befall


async def _carry_out(
    fault: Fault, faults: Faults, request: web.Request, answer: web.StreamResponse | None, handler: Handler
) -> web.StreamResponse:
    match fault.do:
        case "status":
            return web.Response(status=fault.status, headers=dict(fault.headers), text=fault.body)
        case "hang":
            await faults.hang(lambda: _is_gone(request))
            if _is_gone(request):
                return web.Response()
        case "delay":
            await asyncio.sleep(fault.seconds)
        case "half":
            return await _half(request, answer or await handler(request))
        case "close":
            return _hung_up(request)
    return answer or await handler(request)


async def _half(request: web.Request, answer: web.StreamResponse) -> web.StreamResponse:
    body = answer.body if isinstance(answer, web.Response) and isinstance(answer.body, bytes) else b""
    broken = web.StreamResponse(status=answer.status, headers={"Content-Length": str(len(body) + 1)})
    await broken.prepare(request)
    await broken.write(body[: len(body) // 2])
    return _hung_up(request)


def _is_gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def _hung_up(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


async def _steer(request: web.Request, faults: Faults, handler: Handler) -> web.StreamResponse:
    """Answer ``POST faults`` (a JSON list), ``POST release``, ``POST clear`` and ``GET requests``."""
    match request.method, request.path.removeprefix(f"{CONTROL}/"):
        case "POST", "faults":
            planned: list[dict[str, Any]] = await request.json()
            faults.plan(*(Fault(**one) for one in planned))
        case "POST", "release":
            faults.release()
        case "POST", "clear":
            faults.clear()
        case "GET", "requests":
            return web.json_response([asdict(one) for one in faults.seen])
        case _:
            return await handler(request)  # a server's own state, for instance
    return web.json_response({"held": faults.held})
