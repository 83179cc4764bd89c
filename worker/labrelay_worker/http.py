"""HTTP for destinations: the only room that knows the client library.

aiohttp was chosen for upkeep, streaming uploads and TLS options; httpx costs thirty times its CPU under load. A body
of bytes, which is what most deliveries are, goes over `http_connections` at a quarter of aiohttp's CPU
(docs/performance.md).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import yarl

from labrelay.errors import (
    DeliveryError,
    Misconfigured,
    OutcomeUnknown,
    Transient,
    Unavailable,
)
from labrelay_worker.http_answers import Answer
from labrelay_worker.http_connections import Connections, NotAUrl, NotConnected, NotTrusted
from labrelay_worker.http_exchange import AnswerLost
from labrelay_worker.tls import TlsOptions

_logger = logging.getLogger(__name__)

#: What is kept of a body that is hashed: enough to tell an error's text from a file.
_BEGINNING = 64 * 1024
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class HttpClient:
    """One pool of connections; made on the event loop at first use, closed with the destination.

    Parameters
    ----------
    tls
        How servers are trusted.
    timeout
        Seconds one request may take in all.
    headers
        Sent with every request.
    before
        Awaited before every request, e.g. ``account.pace``.
    """

    def __init__(
        self,
        *,
        tls: TlsOptions,
        timeout: float,
        headers: Mapping[str, str],
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._tls, self._timeout, self._headers = tls, timeout, dict(headers)
        self._before = before
        self._session: aiohttp.ClientSession | None = None
        self._connections: Connections | None = None

    async def __aenter__(self) -> HttpClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def request(
        self,
        method: str,
        url: str | yarl.URL,
        *,
        headers: Mapping[str, str] | None = None,
        data: Any = None,
        safe: bool | None = None,
        hashed: bool = False,
    ) -> Answer:
        """Send one request and read the whole answer; nothing is repeated here.

        Parameters
        ----------
        method, url, headers, data
            As aiohttp takes them; a `yarl.URL` is sent as it is encoded. Bytes are the cheapest.
        safe
            Whether the request changes nothing at the server; default: by the method (RFC 9110, section 9.2.1).
        hashed
            Hash the body while it arrives instead of keeping it: for files, which may be large.

        Raises
        ------
        DeliveryError
            What `data` raised while it was read: the request broke off, and the server never had the whole of it.
        Unavailable
            No connection: the request was certainly not received.
        Misconfigured
            The same, because the server is not trusted or a setting cannot be used.
        OutcomeUnknown
            The connection was made and the answer is lost.
        Transient
            The same, of a request that changes nothing.
        """
        if self._before is not None:
            await self._before()
        if type(data) is bytes and not hashed:
            return await self._send_bytes(method, url, headers or {}, data, safe=safe)
        if self._session is None:
            self._session = self._open(str(url))
        try:
            async with self._session.request(method, url, headers=headers, data=data, allow_redirects=False) as reply:
                body, sha256 = await _hashed(reply.content) if hashed else (await reply.read(), "")
                # Not a dict: servers spell "retry-after" as they like.
                return Answer(reply.status, reply.headers, body, sha256)
        except aiohttp.ClientConnectorCertificateError as error:
            reason = getattr(error.certificate_error, "verify_message", "") or type(error).__name__
            raise _untrusted(url, reason) from None
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise Unavailable(f"no connection to {_host(str(url))} ({type(error).__name__})") from None
        except aiohttp.InvalidURL:
            raise Misconfigured(f"the address of {_host(str(url))!r} is not a URL; correct the setting") from None
        except (TimeoutError, asyncio.IncompleteReadError, aiohttp.ClientError) as error:
            if isinstance(error.__cause__, DeliveryError):
                raise error.__cause__ from None
            raise _lost(method, url, type(error).__name__, safe) from None
        except ValueError as error:  # refused by the client itself before anything was sent
            raise Misconfigured(f"{error}; correct the token or the headers") from None

    async def _send_bytes(
        self, method: str, url: str | yarl.URL, headers: Mapping[str, str], body: bytes, *, safe: bool | None
    ) -> Answer:
        if self._connections is None:
            self._warn_if_unverified(str(url))
            self._connections = Connections(self._tls.ssl_context, self._timeout, self._headers)
        try:
            reply = await self._connections.request(method, url, headers, body)
        except NotConnected as error:
            raise Unavailable(f"no connection to {_host(str(url))} ({error})") from None
        except NotTrusted as error:
            raise _untrusted(url, str(error)) from None
        except AnswerLost as error:
            raise _lost(method, url, str(error), safe) from None
        except NotAUrl:
            raise Misconfigured(f"the address of {_host(str(url))!r} is not a URL; correct the setting") from None
        except ValueError as error:
            raise Misconfigured(f"{error}; correct the token or the headers") from None
        return Answer(reply.status, reply.headers, reply.body)

    def _warn_if_unverified(self, url: str) -> None:
        if not self._tls.verify and self._session is None and self._connections is None:
            _logger.warning(
                "tls: verify = false: whoever is in between can read and change what goes to %s; give ca_file",
                _host(url),
            )

    def _open(self, url: str) -> aiohttp.ClientSession:
        self._warn_if_unverified(url)
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls.context(), limit=0),
            # Names and handshakes included, and certainly over before `total`: which of the two it was tells whether
            # the server can have seen anything.
            timeout=aiohttp.ClientTimeout(total=self._timeout, connect=min(10.0, self._timeout / 2)),
            headers=self._headers,
        )
        # aiohttp sends GET, PUT and DELETE again by itself when a connection breaks, and has no public switch for it.
        # Whether to repeat is the engine's to decide: there are servers whose GET makes an object.
        session._retry_connection = False
        return session

    async def close(self) -> None:
        """Close every connection."""
        session, self._session = self._session, None
        connections, self._connections = self._connections, None
        if connections is not None:
            await connections.close()
        if session is not None:
            await session.close()


async def _hashed(content: aiohttp.StreamReader) -> tuple[bytes, str]:
    digest, beginning = hashlib.sha256(), bytearray()
    async for piece in content.iter_any():
        digest.update(piece)
        beginning += piece[: _BEGINNING - len(beginning)]
    return bytes(beginning), digest.hexdigest()


def listens(url: str, *, timeout: float) -> tuple[bool, str | None]:
    """Return whether a connection to the URL's server can be made, and what is wrong if not. Blocking."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), timeout=timeout).close()
    except OSError as error:
        return False, f"no connection to {_host(url)} ({type(error).__name__})"
    return True, None


def _untrusted(url: str | yarl.URL, reason: str) -> Misconfigured:
    return Misconfigured(
        f"the certificate of {_host(str(url))} is not trusted ({reason.rstrip('.')}); give its authority in"
        " tls.ca_file, or correct the address or the certificate"
    )


def _lost(method: str, url: str | yarl.URL, why: str, safe: bool | None) -> DeliveryError:
    kind = Transient if (method in _SAFE_METHODS if safe is None else safe) else OutcomeUnknown
    return kind(f"the answer of {_host(str(url))} is lost ({why})")


def _host(url: str) -> str:
    # Never the whole URL: query strings carry signatures.
    return url.split("://", 1)[-1].split("/", 1)[0].rsplit("@", 1)[-1]
