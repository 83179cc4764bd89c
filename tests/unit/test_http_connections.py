"""Lean HTTP connections against a server that answers byte for byte what the test wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import yarl

from labrelay_worker.http_connections import Connections, NotAUrl, NotConnected, place_of
from labrelay_worker.http_exchange import AnswerLost, Reply
from labrelay_worker.tls import TlsOptions

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CLOSE = b""


@dataclass
class Server:
    """Answers each request with the next bytes; after `CLOSE`, and at the end of the list, it hangs up."""

    answers: list[bytes]
    port: int = 0
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    #: The client closed a connection.
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.may_answer.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while self.answers:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                self.asked.set()
                await self.may_answer.wait()
                answer = self.answers.pop(0)
                if answer == CLOSE:
                    break
                writer.write(answer)
                await writer.drain()
        except asyncio.IncompleteReadError:
            self.hung_up.set()
        finally:
            writer.close()


@asynccontextmanager
async def serving(*answers: bytes) -> AsyncIterator[tuple[Server, Connections]]:
    server = Server(list(answers))
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    connections = Connections(TlsOptions().ssl_context, 2.0, {"X-Lab": "titan"})
    async with listening:
        yield server, connections
        await connections.close()


def post(server: Server, connections: Connections, body: bytes = b"{}", **headers: str) -> Awaitable[Reply]:
    return connections.request("POST", f"http://127.0.0.1:{server.port}/records?a=1", headers, body)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 10))  # type: ignore[arg-type]


def test_the_authorities_are_read_where_tls_is_spoken_and_once() -> None:
    async def scenario() -> None:
        # Given a client of servers with and without TLS
        asked = list[bool]()
        connections = Connections(lambda: asked.append(True) or TlsOptions().ssl_context(), 2.0, {})
        server = Server([OK, OK])
        async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
            server.port = listening.sockets[0].getsockname()[1]
            # When it speaks without, then they are not read: that takes tens of milliseconds
            await post(server, connections)
            assert not asked
            # When it speaks TLS, twice, then they are read once
            for _ in range(2):
                with pytest.raises(NotConnected):
                    await connections.request("POST", "https://127.0.0.1:1/", {}, b"")
            assert asked == [True]
            await connections.close()

    run(scenario)


def test_a_request_is_whole_and_its_connection_is_used_again() -> None:
    async def scenario() -> None:
        async with serving(OK, OK, OK) as (server, connections):
            # When two requests follow each other
            for _ in range(2):
                reply = await post(server, connections, b'{"a": 1}', Accept="application/json")
                assert (reply.status, reply.body, reply.headers["content-length"]) == (200, b"ok", "2")
            # Then they went over one connection, with everything HTTP/1.1 asks for
            assert server.connections == 1
            head, _, body = server.requests[0].partition(b"\r\n\r\n")
            lines = head.decode().split("\r\n")
            assert lines[0] == "POST /records?a=1 HTTP/1.1"
            wanted = {
                f"Host: 127.0.0.1:{server.port}",
                "Content-Length: 8",
                "X-Lab: titan",
                "Accept: application/json",
            }
            assert wanted <= set(lines)
            assert body == b'{"a": 1}'

    run(scenario)


def test_a_header_is_sent_once_however_it_is_spelled() -> None:
    async def scenario() -> None:
        async with serving(OK) as (server, _):
            # Given a client with headers of its own, among them those that every request has
            own = {"host": "lab.example", "accept": "text/plain", "authorization": "Token 1", "content-type": "a/b"}
            connections = Connections(TlsOptions().ssl_context, 2.0, own)
            # When a request has a type of its own, and its address a user
            url = f"http://me:secret@127.0.0.1:{server.port}/"
            await connections.request("POST", url, {"Content-Type": "application/json"}, b"{}")
            await connections.close()
        # Then each is there once: the client's, or the request's
        _, *lines = server.requests[0].decode().partition("\r\n\r\n")[0].split("\r\n")
        sent = [tuple(line.lower().split(": ")) for line in lines]
        assert len(sent) == len(dict(sent))
        wanted = own | {"content-type": "application/json", "authorization": "token 1", "content-length": "2"}
        assert wanted.items() <= dict(sent).items()

    run(scenario)


def test_a_request_that_is_under_way_at_the_close_leaves_no_connection_open() -> None:
    async def scenario() -> None:
        # Given a request whose answer takes its time
        async with serving(OK, OK) as (server, connections):
            server.may_answer.clear()
            asking = asyncio.ensure_future(post(server, connections))
            await server.asked.wait()
            # When the client is closed meanwhile
            await connections.close()
            server.may_answer.set()
            # Then the answer arrives, and its connection is closed, too
            assert (await asking).body == b"ok"
            await asyncio.wait_for(server.hung_up.wait(), 5)

    run(scenario)


def test_requests_side_by_side_have_a_connection_each() -> None:
    async def scenario() -> None:
        async with serving(OK, OK, OK, OK) as (server, connections):
            await asyncio.gather(*(post(server, connections) for _ in range(3)))
            assert server.connections == 3

    run(scenario)


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", b"abcde"),
        (b"HTTP/1.1 201 Created\r\nConnection: close\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 1\r\n\r\nx", b"x"),
    ],
)
def test_every_way_to_end_a_body_is_understood(answer: bytes, body: bytes) -> None:
    async def scenario() -> None:
        async with serving(answer) as (server, connections):
            reply = await post(server, connections)
            assert (reply.body, reply.status in (201, 204)) == (body, True)

    run(scenario)


def test_a_connection_that_the_server_closes_is_not_used_again() -> None:
    async def scenario() -> None:
        closing = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
        async with serving(closing, OK, OK) as (server, connections):
            await post(server, connections)
            await post(server, connections)
            assert server.connections == 2

    run(scenario)


@pytest.mark.parametrize(
    "answer", [CLOSE, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nha", b"SSH-2.0-OpenSSH_9.2\r\n"]
)
def test_an_answer_that_is_cut_off_or_no_http_is_lost_and_nothing_is_sent_again(answer: bytes) -> None:
    async def scenario() -> None:
        # Given a server that takes the request and answers nothing usable
        async with serving(answer) as (server, connections):
            # Then the outcome is unknown, and it saw the request once
            with pytest.raises(AnswerLost):
                await post(server, connections)
            assert len(server.requests) == 1

    run(scenario)


def test_a_server_that_does_not_answer_is_given_up() -> None:
    async def scenario() -> None:
        # Given a server that answers half
        async with serving(b"HTTP/1.1 200 OK\r\n", OK) as (server, connections):
            connections._timeout = 0.05
            with pytest.raises(AnswerLost, match="TimeoutError"):
                await post(server, connections)
            # Then the next request has a connection of its own
            connections._timeout = 2.0
            assert (await post(server, connections)).status == 200
            assert server.connections == 2

    run(scenario)


def test_a_server_that_is_not_there_was_sent_nothing() -> None:
    async def scenario() -> None:
        async with serving(OK) as (server, connections):
            pass
        with pytest.raises(NotConnected, match="ConnectionRefusedError"):
            await post(server, connections)

    run(scenario)


def test_a_request_that_is_cancelled_drops_its_connection() -> None:
    async def scenario() -> None:
        async with serving(b"HTTP/1.1 200 OK\r\n", OK) as (server, connections):
            waiting = asyncio.ensure_future(post(server, connections))
            while not server.requests:
                await asyncio.sleep(0.001)
            waiting.cancel()
            assert (await post(server, connections)).body == b"ok"
            assert server.connections == 2

    run(scenario)


def test_a_line_break_in_a_header_is_refused_before_anything_is_sent() -> None:
    async def scenario() -> None:
        async with serving(OK) as (server, connections):
            with pytest.raises(ValueError, match="line break"):
                await post(server, connections, token="a\r\nX-Evil: 1")
            assert server.connections == 0

    run(scenario)


@pytest.mark.parametrize("url", ["ftp://host/", "host/path", "", "http://", "http://host:port/"])
def test_what_is_no_address_of_http_is_refused(url: str) -> None:
    with pytest.raises(NotAUrl):
        place_of(url)


def test_addresses_are_taken_apart_as_http_needs_them() -> None:
    # Given a user, a literal IPv6 address, and a path that is encoded already
    assert place_of("https://me:pw@host/a b?c=ä").authorization == "Basic bWU6cHc="
    assert place_of("http://[::1]:8080/").host_header == "[::1]:8080"
    assert place_of("https://host/").host_header == "host"
    assert place_of(yarl.URL("http://host/a%2Fb", encoded=True)).target == "/a%2Fb"
