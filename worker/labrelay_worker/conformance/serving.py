"""Run an aiohttp application in a thread of this process, and a proxy with faults before any server."""

from __future__ import annotations

import asyncio
import io
import socket
import ssl
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp
import yarl
from aiohttp import web
from multidict import CIMultiDict

from labrelay_worker.conformance.faults import Faults, middleware

Result = TypeVar("Result")

_HOP_BY_HOP = frozenset(
    {"connection", "content-encoding", "content-length", "host", "keep-alive", "transfer-encoding"}
)


class ServerThread:
    """Serves an application on this machine only, from `start` to `close`; a context manager.

    Parameters
    ----------
    app
        The application; its middlewares may hold a fault script.
    port
        Where; 0: a free one.
    tls
        How it proves itself; None: it speaks plain HTTP.
    """

    def __init__(self, app: web.Application, *, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self._app, self._port, self._tls = app, port, tls
        self._runner: web.AppRunner | None = None
        self.url = ""

    def start(self) -> Self:
        """Listen; afterwards `url` is the address, without a slash at its end."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="labrelay-server", daemon=True)
        self._thread.start()
        self.url = self._run(self._listen())
        return self

    def close(self) -> None:
        """Stop listening and end every connection; safe to call more than once."""
        if self._runner is not None:
            self._run(self._end(self._runner))
            self._runner = None
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._loop.close()

    def __enter__(self) -> Self:
        return self if self.url else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    async def _listen(self) -> str:
        self._socket = socket.create_server(("127.0.0.1", self._port))
        self._runner = web.AppRunner(self._app, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        await web.SockSite(self._runner, self._socket, ssl_context=self._tls).start()
        host, port = self._socket.getsockname()
        return f"{'https' if self._tls else 'http'}://{host}:{port}"

    async def _end(self, runner: web.AppRunner) -> None:
        # A connection that is being accepted while a server closes would stay open: so no more first, then the end.
        asyncio.get_running_loop().remove_reader(self._socket)
        await asyncio.sleep(0)
        await runner.cleanup()


class FaultProxy(ServerThread):
    """Stands before a server and hurts its clients by a script: `faults` says how, and what was seen.

    Parameters
    ----------
    target
        Address of the server, without a path.
    """

    def __init__(self, target: str) -> None:
        self.faults = Faults()
        self._target = target.rstrip("/")
        app = web.Application(middlewares=[middleware(self.faults)], client_max_size=2**30)
        app.router.add_route("*", "/{path:.*}", self._forward)
        super().__init__(app)

    async def _forward(self, request: web.Request) -> web.Response:
        headers = CIMultiDict((k, v) for k, v in request.headers.items() if k.lower() not in _HOP_BY_HOP)
        async with (
            aiohttp.ClientSession(auto_decompress=False, skip_auto_headers=("Content-Type",)) as session,
            session.request(
                request.method,
                yarl.URL(self._target + request.raw_path, encoded=True),
                headers=headers,
                data=io.BytesIO(body) if (body := await request.read()) else None,
                allow_redirects=False,
            ) as reply,
        ):
            kept = CIMultiDict((k, v) for k, v in reply.headers.items() if k.lower() not in _HOP_BY_HOP)
            return web.Response(status=reply.status, headers=kept, body=await reply.read())
