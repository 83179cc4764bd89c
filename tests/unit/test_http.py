"""What the one HTTP client of destinations does with bodies, and where there is no connection."""

from __future__ import annotations

import asyncio
import hashlib
import io
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeVar

import pytest
from aiohttp import web

from labrelay.errors import Rejected, Transient, Unavailable
from labrelay_worker.conformance.serving import ServerThread
from labrelay_worker.http import HttpClient
from labrelay_worker.tls import TlsOptions

Result = TypeVar("Result")

FILE = bytes(range(256)) * 4096


async def answer_with_a_file(request: web.Request) -> web.Response:
    return web.Response(body=FILE)


async def break_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": str(len(FILE))})
    await response.prepare(request)
    await response.write(FILE[:1000])
    assert request.transport is not None
    request.transport.abort()
    return response


@pytest.fixture
def received() -> list[bytes]:
    """The bodies that arrived whole."""
    return []


@pytest.fixture
def url(received: list[bytes]) -> Iterator[str]:
    async def take(request: web.Request) -> web.Response:
        received.append(await request.read())
        return web.Response()

    app = web.Application()
    app.router.add_get("/file", answer_with_a_file)
    app.router.add_get("/half", break_off)
    app.router.add_put("/file", take)
    with ServerThread(app) as server:
        yield server.url


def run(call: Callable[[HttpClient], Awaitable[Result]]) -> Result:
    async def once() -> Result:
        async with HttpClient(tls=TlsOptions(), timeout=10, headers={}) as http:
            return await call(http)

    return asyncio.run(once())


def test_a_body_that_is_hashed_is_not_kept(url: str) -> None:
    # When a file is asked for and hashed
    answer = run(lambda http: http.request("GET", f"{url}/file", hashed=True))
    # Then its checksum is known, and of its content only the beginning
    assert answer.sha256 == hashlib.sha256(FILE).hexdigest()
    assert FILE.startswith(answer.body)
    assert 1000 < len(answer.body) < len(FILE) / 10


@pytest.mark.parametrize("hashed", [True, False])
def test_half_a_body_is_no_answer(url: str, hashed: bool) -> None:
    with pytest.raises(Transient, match="is lost"):
        run(lambda http: http.request("GET", f"{url}/half", hashed=hashed))


def test_what_a_body_raises_while_it_is_read_is_the_error_of_the_request(url: str, received: list[bytes]) -> None:
    # Given a body of which a part is read before the rest is found to be wrong
    async def body() -> AsyncIterator[bytes]:
        yield FILE
        raise Rejected("it changed since it was submitted")

    # When it is sent, then that is the error, and the server had nothing whole
    with pytest.raises(Rejected, match="changed since"):
        run(lambda http: http.request("PUT", f"{url}/file", data=body()))
    assert received == []


@pytest.mark.parametrize("body", [lambda: b"record", lambda: io.BytesIO(b"record")], ids=["bytes", "stream"])
@pytest.mark.parametrize("hangs", ["handshake", "name"])
def test_a_connection_that_is_not_made_in_time_has_sent_nothing(
    hangs: str, body: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a server that takes connections and never shakes hands, or a name service that is away
    if hangs == "name":
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(2) or [])
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = "lab.invalid" if hangs == "name" else "127.0.0.1"
        url = f"https://{host}:{silent.getsockname()[1]}/"

        async def post() -> None:
            async with HttpClient(tls=TlsOptions(), timeout=1, headers={}) as http:
                await http.request("POST", url, data=body())

        # When something is posted to it, then it is known that nothing was sent
        with pytest.raises(Unavailable, match="no connection to"):
            asyncio.run(post())
