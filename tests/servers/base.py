"""What the test servers have in common: faults, a control path, and a way to run alone.

``GET /_control/requests`` lists what was asked, ``GET /_control/state`` what the server keeps;
``POST /_control/faults`` plans misfortunes (a JSON list of `labrelay_worker.conformance.faults.Fault`),
``POST /_control/release`` lets go those that hang.
"""

from __future__ import annotations

import signal
import ssl
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import click
from aiohttp import web

from labrelay_worker.conformance.faults import CONTROL, Faults, middleware
from labrelay_worker.conformance.serving import ServerThread


class TestServer(ABC):
    """One stateful server; a subclass adds its routes and says what it keeps."""

    __test__ = False

    def __init__(self) -> None:
        self.faults = Faults()

    def app(self) -> web.Application:
        """Return the application: the routes of the subclass behind the faults."""
        app = web.Application(middlewares=[middleware(self.faults)], client_max_size=2**30)
        app.router.add_get(f"{CONTROL}/state", self._state)
        self.add_routes(app.router)
        return app

    def thread(self, port: int = 0, tls: ssl.SSLContext | None = None) -> ServerThread:
        """Return a thread that serves it once started, encrypted where it is told how to prove itself."""
        return ServerThread(self.app(), port=port, tls=tls)

    @abstractmethod
    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Add what the real server answers to."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return everything it keeps, as JSON."""

    async def _state(self, request: web.Request) -> web.Response:
        return web.json_response(self.state())


def run_alone(make: Callable[[], TestServer]) -> None:
    """Serve until interrupted: ``python -m tests.servers.NAME --port N``."""

    @click.command()
    @click.option("--port", default=0, help="port on this machine; 0: a free one")
    def main(port: int) -> None:
        ended = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: ended.set())
        with make().thread(port) as server, suppress(KeyboardInterrupt):
            click.echo(server.url)
            ended.wait()

    main()
