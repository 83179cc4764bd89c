"""Connections that send a body of bytes, at a quarter of a full client's CPU (docs/performance.md).

One request at a time on each connection, HTTP/1.1, kept open in between. Nothing is ever sent twice: whether a
request may be repeated is the engine's to decide. What these do not do (streams, forms, HEAD) `http.py` gives to
aiohttp.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache

import yarl

from labrelay_worker.http_exchange import AnswerLost, Connection, Reply
from labrelay_worker.timelimits import Expiry

#: Servers and balancers close idle connections after a while; a request must not meet that moment.
_IDLE_SECONDS = 15.0
_CONNECT_SECONDS = 10.0
#: What is closed may have to say goodbye (TLS); a server that does not answer that is not waited for.
_CLOSE_SECONDS = 1.0


class NotAUrl(Exception):
    """The address is no ``http`` or ``https`` URL."""


class NotConnected(Exception):
    """No connection was made: the request was certainly not received."""


class NotTrusted(Exception):
    """The server's certificate is not trusted: nothing was sent."""


@dataclass(frozen=True)
class Place:
    """Where a URL leads, as requests need it."""

    origin: tuple[str, str, int]
    host_header: str
    target: str
    #: ``Authorization`` of a URL that names a user.
    authorization: str | None


@lru_cache(maxsize=256)
def place_of(url: str | yarl.URL) -> Place:
    """Return where a URL leads.

    Raises
    ------
    NotAUrl
        It is no ``http`` or ``https`` URL.
    """
    try:
        parts = yarl.URL(url)
    except ValueError:
        raise NotAUrl from None
    if parts.scheme not in ("http", "https") or not parts.raw_host or parts.port is None:
        raise NotAUrl
    host = f"[{parts.raw_host}]" if ":" in parts.raw_host else parts.raw_host
    authorization = None
    if parts.user is not None:
        pair = f"{parts.user}:{parts.password or ''}".encode()
        authorization = f"Basic {base64.b64encode(pair).decode()}"
    return Place(
        (parts.scheme, parts.raw_host, parts.port),
        host if parts.is_default_port() else f"{host}:{parts.port}",
        parts.raw_path_qs,
        authorization,
    )


class Connections:
    """The connections of one client to any number of servers.

    Parameters
    ----------
    tls
        Makes the context for ``https``; called once, when it is needed: reading the authorities takes tens of
        milliseconds.
    timeout
        Seconds for one request in all.
    headers
        Sent with every request.
    """

    def __init__(self, tls: Callable[[], ssl.SSLContext], timeout: float, headers: Mapping[str, str]) -> None:
        self._tls, self._timeout = cache(tls), timeout
        self._headers = {"User-Agent": "labrelay", "Accept": "*/*", **headers}
        #: Header lines by where a request goes and what it gives itself: put together once, not for every request.
        self._fixed: dict[tuple[str, str | None, tuple[str, ...]], str] = {}
        self._idle: defaultdict[tuple[str, str, int], deque[Connection]] = defaultdict(deque)
        self._expiry = Expiry(_expire)
        self._closed = False

    async def request(self, method: str, url: str | yarl.URL, headers: Mapping[str, str], body: bytes) -> Reply:
        """Send one request and return its whole answer.

        Raises
        ------
        NotAUrl, ValueError
            The address, or a header, cannot be sent; nothing was.
        NotConnected, NotTrusted
            Nothing was sent.
        AnswerLost
            It may have been received.
        """
        place = place_of(url)
        head = self._head(method, place, headers, len(body))
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        connection = self._take(place, loop.time()) or await self._connect(place)
        answer = connection.ask(head + body)
        self._expiry.add(answer, deadline)
        try:
            reply = await answer
        except BaseException:
            connection.give_up()
            raise
        finally:
            self._expiry.remove(answer)
        if connection.usable and not self._closed:
            connection.idle_since = loop.time()
            self._idle[place.origin].append(connection)
        else:
            connection.transport.close()
        return reply

    async def close(self) -> None:
        """Close what is idle, and wait until it is; what is under way closes when it ends."""
        self._closed = True
        idle = [connection for each in self._idle.values() for connection in each]
        self._idle.clear()
        for connection in idle:
            connection.transport.close()
        if idle:
            await asyncio.wait([connection.gone for connection in idle], timeout=_CLOSE_SECONDS)
        for connection in idle:
            connection.transport.abort()

    def _take(self, place: Place, now: float) -> Connection | None:
        idle = self._idle[place.origin]
        while idle:
            connection = idle.pop()  # the freshest: the others may become old enough to be dropped
            if connection.usable and now - connection.idle_since < _IDLE_SECONDS:
                return connection
            connection.transport.close()
        return None

    async def _connect(self, place: Place) -> Connection:
        scheme, host, port = place.origin
        context = self._tls() if scheme == "https" else None
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(min(_CONNECT_SECONDS, self._timeout)):
                _, connection = await loop.create_connection(Connection, host, port, ssl=context)
        except ssl.SSLCertVerificationError as error:
            raise NotTrusted(error.verify_message or type(error).__name__) from None
        except OSError as error:  # of TLS and of time running out, too
            raise NotConnected(type(error).__name__) from None
        return connection

    def _head(self, method: str, place: Place, headers: Mapping[str, str], length: int) -> bytes:
        question = place.host_header, place.authorization, tuple(headers)
        fixed = self._fixed.get(question)
        if fixed is None:
            fixed = self._fixed[question] = self._fixed_lines(place, headers)
        start = f"{method} {place.target} HTTP/1.1\r\n{fixed}Content-Length: {length}\r\n"
        return f"{start}{_lines(headers)}\r\n".encode()

    def _fixed_lines(self, place: Place, given: Mapping[str, str]) -> str:
        """Return the headers that are the same for every request that gives these others itself."""
        own = {"Host": place.host_header}
        if place.authorization is not None:
            own["Authorization"] = place.authorization
        # Each once, however it is spelled, and the more special one: servers refuse two of Host, and of others they
        # take either.
        every = {name.lower(): (name, value) for name, value in (own | self._headers).items()}
        for name in given:
            every.pop(name.lower(), None)
        return _lines(dict(every.values()))


def _lines(headers: Mapping[str, str]) -> str:
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\r") != len(headers) or lines.count("\n") != len(headers) or "\0" in lines:
        msg = "a header has a line break in it"
        raise ValueError(msg)
    return lines


def _expire(answer: asyncio.Future[Reply]) -> None:
    if not answer.done():
        answer.set_exception(AnswerLost("TimeoutError"))
