"""HTTP for destinations: the only room that knows the client library.

aiohttp was chosen for upkeep, streaming uploads and TLS options; httpx costs thirty times its CPU under load
(facts: ledger-speed, floors).
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from pydantic import BaseModel, ConfigDict, Field

from labrelay.errors import (
    DeliveryError,
    Misconfigured,
    OutcomeUnknown,
    RateLimited,
    Rejected,
    Transient,
    Unavailable,
)

_ERROR_BODY = 300


class TlsOptions(BaseModel):
    """How servers are trusted and how this client proves itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ca_file: Path | None = Field(None, description="PEM bundle of the authorities to trust")
    client_cert: Path | None = Field(None, description="PEM of the client certificate and its key")
    verify: bool = Field(True, description="False accepts any certificate: never outside a test")

    def context(self) -> ssl.SSLContext | bool:
        """Return what aiohttp wants.

        Raises
        ------
        Misconfigured
            A named file cannot be read as certificates.
        """
        if not self.verify:
            return False
        if self.ca_file is None and self.client_cert is None:
            return True
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.client_cert is not None:
                context.load_cert_chain(self.client_cert)
        except (OSError, ssl.SSLError) as error:
            raise Misconfigured(
                f"tls: cannot read the certificates ({error}); correct ca_file or client_cert"
            ) from None
        return context


@dataclass(frozen=True)
class Answer:
    """What a server answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """Return the body as a JSON object, or an empty one."""
        try:
            value = json.loads(self.body)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}


class HttpClient:
    """One pool of connections; made on the event loop at first use, closed with the destination."""

    def __init__(self, *, tls: TlsOptions, timeout: float, headers: Mapping[str, str]) -> None:
        self._tls, self._timeout, self._headers = tls, timeout, dict(headers)
        self._session: aiohttp.ClientSession | None = None

    async def request(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, data: Any = None
    ) -> Answer:
        """Send one request and read the whole answer; nothing is repeated here.

        Raises
        ------
        Unavailable
            No connection: the request was certainly not received.
        OutcomeUnknown
            The connection was made and the answer is lost.
        """
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._tls.context(), limit=0),
                timeout=aiohttp.ClientTimeout(total=self._timeout, sock_connect=min(10.0, self._timeout)),
                headers=self._headers,
            )
        try:
            async with self._session.request(method, url, headers=headers, data=data, allow_redirects=False) as reply:
                # Not a dict: servers spell "retry-after" as they like.
                return Answer(reply.status, reply.headers, await reply.read())
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise Unavailable(f"no connection to {_host(url)} ({type(error).__name__})") from None
        except aiohttp.InvalidURL:
            raise Misconfigured(f"{url!r} is not a URL; correct the setting") from None
        except (TimeoutError, asyncio.IncompleteReadError, aiohttp.ClientError) as error:
            raise OutcomeUnknown(f"the answer of {_host(url)} is lost ({type(error).__name__})") from None
        except ValueError as error:  # refused by the client itself before anything was sent
            raise Misconfigured(f"{error}; correct the token or the headers") from None

    async def close(self) -> None:
        """Close every connection."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def listens(url: str, *, timeout: float) -> tuple[bool, str | None]:
    """Return whether a connection to the URL's server can be made, and what is wrong if not. Blocking."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), timeout=timeout).close()
    except OSError as error:
        return False, f"no connection to {_host(url)} ({type(error).__name__})"
    return True, None


def error_of(answer: Answer) -> DeliveryError | None:
    """Return the error a status stands for, or None for success (DESIGN section 7)."""
    status = answer.status
    if 200 <= status < 300:  # noqa: PLR2004  the success class of RFC 9110
        return None
    text = f"HTTP {status}: {answer.body[:_ERROR_BODY].decode(errors='replace').strip() or 'no explanation'}"
    wait = _retry_after(answer.headers.get("Retry-After"))
    if status in (429, 503):
        return (RateLimited if status == 429 else Unavailable)(text, retry_after=wait)  # noqa: PLR2004
    if 300 <= status < 400:  # noqa: PLR2004  often a login page: following it would lose the record
        return Misconfigured(f"HTTP {status}: the address redirects; give the one it leads to, or a token")
    if status in (401, 403):
        return Misconfigured(f"{text} (check token and rights)")
    if status >= 500:  # noqa: PLR2004  the server may have stored the record before it failed
        return OutcomeUnknown(text)
    return Transient(text, retry_after=wait) if status in (408, 425) else Rejected(text)


def _retry_after(value: str | None) -> float | None:
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        parsed = email.utils.parsedate_tz(value)
        return None if parsed is None else max(0.0, email.utils.mktime_tz(parsed) - time.time())


def _host(url: str) -> str:
    # Never the whole URL: query strings carry signatures.
    return url.split("://", 1)[-1].split("/", 1)[0].rsplit("@", 1)[-1]
