"""The fault script and the proxy that hurts clients: what the server did, and what the client got to know of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from aiohttp import web

from labrelay.errors import OutcomeUnknown, Transient
from labrelay_worker.conformance.faults import Fault
from labrelay_worker.conformance.serving import FaultProxy, ServerThread
from labrelay_worker.http import HttpClient
from labrelay_worker.http_answers import Answer
from labrelay_worker.tls import TlsOptions


class Counter:
    """A server that counts what it was posted."""

    def __init__(self) -> None:
        self.posted: list[bytes] = []

    def app(self) -> web.Application:
        async def post(request: web.Request) -> web.Response:
            self.posted.append(await request.read())
            return web.json_response({"id": len(self.posted)}, status=201, headers={"Location": "/things/1"})

        app = web.Application()
        app.router.add_post("/things", post)
        return app


@pytest.fixture
def counter() -> Counter:
    return Counter()


@pytest.fixture
def proxy(counter: Counter) -> Iterator[FaultProxy]:
    with ServerThread(counter.app()) as server, FaultProxy(server.url) as proxy:
        yield proxy


def post(proxy: FaultProxy, body: bytes = b"x", *, timeout: float = 5.0) -> Answer:
    async def send() -> Answer:
        async with HttpClient(tls=TlsOptions(), timeout=timeout, headers={}) as http:
            return await http.request("POST", f"{proxy.url}/things?a=1", data=body)

    return asyncio.run(send())


def test_without_a_fault_requests_and_answers_pass_as_they_are(proxy, counter):
    answer = post(proxy, b"\r\n\xc3\x85")
    assert (answer.status, answer.json(), answer.headers["Location"]) == (201, {"id": 1}, "/things/1")
    assert counter.posted == [b"\r\n\xc3\x85"]
    assert [(one.method, one.target) for one in proxy.faults.seen] == [("POST", "/things?a=1")]


@pytest.mark.parametrize("do", ["close", "half"])
def test_an_answer_is_lost_after_the_server_carried_the_request_out(proxy, counter, do):
    proxy.faults.plan(Fault(do, after=True))
    with pytest.raises(OutcomeUnknown, match="lost"):
        post(proxy)
    assert len(counter.posted) == 1


def test_a_request_is_lost_before_the_server_saw_it(proxy, counter):
    proxy.faults.plan(Fault("close"))
    with pytest.raises(OutcomeUnknown):
        post(proxy)
    assert counter.posted == []


def test_the_nth_matching_requests_get_a_scripted_status(proxy, counter):
    proxy.faults.plan(
        Fault("status", nth=2, times=2, method="POST", path="a=1", status=429, headers={"Retry-After": "7"})
    )
    assert [post(proxy).status for _ in range(4)] == [201, 429, 429, 201]
    assert len(counter.posted) == 2


def test_a_request_hangs_until_it_is_released(proxy, counter):
    # Given a request that hangs, when its client gives up
    proxy.faults.plan(Fault("hang", after=True))
    with pytest.raises(OutcomeUnknown):
        post(proxy, timeout=0.2)

    # Then the server has carried it out, and the next one passes
    proxy.faults.release()
    assert len(counter.posted) == 1
    assert post(proxy).status == 201


def test_a_lost_answer_to_a_request_that_changes_nothing_leaves_no_doubt(proxy):
    async def get() -> Answer:
        async with HttpClient(tls=TlsOptions(), timeout=5, headers={}) as http:
            return await http.request("GET", f"{proxy.url}/things")

    proxy.faults.plan(Fault("close"))
    with pytest.raises(Transient):
        asyncio.run(get())
    assert len(proxy.faults.seen) == 1, "the client library repeated it by itself"
