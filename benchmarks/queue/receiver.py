"""Three destinations in one lean process: each POST is answered after 20 ms, counted by destination and session.

``GET /count`` says how many were answered and when the first and the last answer went out (monotonic seconds,
comparable between processes of one machine; after ``GET /count/anew`` the next one is the first), and
``GET /done/SESSION`` the same once every destination has that session.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import time
from collections import Counter, defaultdict

import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_ANSWER = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
_SESSION = re.compile(rb'"session_identifier": *"([^"]*)"')


class Shelf:
    """What arrived."""

    def __init__(self, destinations: int) -> None:
        self.destinations = destinations
        self.answered = 0
        self.repeated = 0
        self.first = self.last = 0.0
        self._seen: Counter[tuple[bytes, bytes]] = Counter()
        self._sessions: Counter[bytes] = Counter()
        self._waiting: defaultdict[bytes, list[asyncio.Future[None]]] = defaultdict(list)

    def put(self, path: bytes, session: bytes) -> None:
        """Take note of one delivery."""
        self.answered += 1
        self.last = time.monotonic()
        self.first = self.first or self.last
        self._seen[path, session] += 1
        self.repeated += self._seen[path, session] > 1
        self._sessions[session] += 1
        if self._sessions[session] >= self.destinations:
            for future in self._waiting.pop(session, []):
                future.set_result(None)

    async def done(self, session: bytes) -> None:
        """Wait until every destination has a session."""
        if self._sessions[session] < self.destinations:
            future = asyncio.get_running_loop().create_future()
            self._waiting[session].append(future)
            await future


class Connection(asyncio.Protocol):
    """One connection: requests in, answers out, in order."""

    def __init__(self, shelf: Shelf, delay: float) -> None:
        self._shelf, self._delay = shelf, delay
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[: end + 4]
            found = _LENGTH.search(head)
            stop = end + 4 + (int(found.group(1)) if found else 0)
            if len(self._buffer) < stop:
                return
            body, self._buffer = self._buffer[end + 4 : stop], self._buffer[stop:]
            method, path, _ = head.split(b" ", 2)
            if method == b"GET":
                self._loop.create_task(self._tell(path))
            else:
                session = _SESSION.search(body)
                self._loop.call_later(self._delay, self._answer, path, session.group(1) if session else b"")

    def _answer(self, path: bytes, session: bytes) -> None:
        self._shelf.put(path, session)
        self._write(b'{"id": "%b", "url": "http://127.0.0.1/%b"}' % (session, session), b"201 Created")

    async def _tell(self, path: bytes) -> None:
        if path.startswith(b"/done/"):
            await self._shelf.done(path.removeprefix(b"/done/"))
        told = ("answered", "repeated", "first", "last")
        self._write(json.dumps({name: getattr(self._shelf, name) for name in told}).encode(), b"200 OK")
        if path == b"/count/anew":
            self._shelf.first = 0.0

    def _write(self, body: bytes, status: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(_ANSWER % (status, len(body), body))


async def _serve(port: int, delay: float, destinations: int) -> None:
    shelf = Shelf(destinations)
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(shelf, delay), "127.0.0.1", port, backlog=4096
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    """Serve until the process is ended; the port is the first line printed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="default: any free one")
    parser.add_argument("--delay", type=float, default=0.02)
    parser.add_argument("--destinations", type=int, default=3)
    options = parser.parse_args()
    uvloop.run(_serve(options.port, options.delay, options.destinations))


if __name__ == "__main__":
    main()
