"""One connection over which one request after the other is sent and answered: HTTP/1.1, bodies of bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import httptools
from multidict import CIMultiDict

_DELIMITING = frozenset({b"content-length", b"transfer-encoding"})


class AnswerLost(Exception):
    """The connection was made and the answer is lost: the request may have been received."""


class Headers(Mapping[str, str]):
    """The headers of an answer, whatever their case; decoded when somebody asks, for hardly anybody does."""

    def __init__(self, raw: Sequence[tuple[bytes, bytes]]) -> None:
        self._raw = raw

    @cached_property
    def _decoded(self) -> CIMultiDict[str]:
        return CIMultiDict((name.decode("latin-1"), value.decode("latin-1")) for name, value in self._raw)

    def __getitem__(self, name: str) -> str:
        return self._decoded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._decoded)

    def __len__(self) -> int:
        return len(self._decoded)


@dataclass(frozen=True)
class Reply:
    """A whole answer."""

    status: int
    headers: Headers
    body: bytes


class Connection(asyncio.Protocol):
    """One connection; `answer` is there while a request waits."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[Reply] | None = None
        self.usable = True
        self.idle_since = 0.0
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to listen to the server."""
        self.transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpResponseParser(self)
        self._begin()

    def ask(self, request: bytes) -> asyncio.Future[Reply]:
        """Send one request; nothing else is sent until its answer is there."""
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self.answer

    def give_up(self) -> None:
        """Drop the connection: nobody waits for what comes over it any more."""
        self.answer, self.usable = None, False
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Read on in the answer."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"what it sent is not HTTP ({type(error).__name__})")

    def connection_lost(self, exc: Exception | None) -> None:
        """End the answer that has no other end; any other one is lost."""
        self.usable = False
        if self.answer is not None and self._ends_with_connection and exc is None:
            self._complete()
        else:
            self._fail(type(exc).__name__ if exc else "it closed the connection")
        self.gone.set_result(None)

    # --- what the parser tells --------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Note whether the answer says how long it is."""
        self._ends_with_connection = _DELIMITING.isdisjoint([name.lower() for name, _ in self._headers])

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Hand the answer over."""
        if self._parser.get_status_code() < 200:  # noqa: PLR2004  "continue" and its kind: the answer follows
            self._begin()
            return
        self.usable = self.usable and self._parser.should_keep_alive() and self.answer is not None
        self._complete()

    def _begin(self) -> None:
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._ends_with_connection = False

    def _complete(self) -> None:
        answer, self.answer = self.answer, None
        reply = Reply(self._parser.get_status_code(), Headers(self._headers), b"".join(self._body))
        if self.usable:
            self._begin()
        if answer is not None and not answer.done():
            answer.set_result(reply)

    def _fail(self, why: str) -> None:
        answer, self.answer, self.usable = self.answer, None, False
        self.transport.close()
        if answer is not None and not answer.done():
            answer.set_exception(AnswerLost(why))
