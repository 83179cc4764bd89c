"""The webhook against a real HTTP server of this machine."""

from __future__ import annotations

import asyncio
import base64
import email
import email.policy
import json
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from labrelay.context import ExportContext
from labrelay.errors import (
    DeliveryError,
    Misconfigured,
    OutcomeUnknown,
    RateLimited,
    Rejected,
    Transient,
    Unavailable,
)
from labrelay.redaction import Redactor
from labrelay.results import DestinationInfo, Receipt
from labrelay_worker.destinations.webhook import WebhookDestination, WebhookOptions
from labrelay_worker.guarding import RecordGuard
from labrelay_worker.hosting import HostedDestination

Build = Callable[..., ExportContext]
TOKEN = "hunter2-hunter2"


@dataclass(frozen=True)
class Reply:
    """How the next request is answered; status 0: not at all."""

    status: int = 201
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b'{"id": 7, "url": "https://lab/7"}'


@dataclass(frozen=True)
class Request:
    """One request as it arrived."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    def parts(self) -> dict[str, Any]:
        """Return the parts of a multipart body by name."""
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        message = email.message_from_bytes(head + self.body, policy=email.policy.HTTP)
        return {part.get_param("name", header="content-disposition"): part for part in message.iter_parts()}


class Lab(ThreadingHTTPServer):
    """A server that remembers every request and answers as told."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.replies: deque[Reply] = deque()
        super().__init__(("127.0.0.1", 0), _Handler)

    def server_bind(self) -> None:
        # HTTPServer would look up the machine's name, which takes seconds where the name service is away.
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/submit?sig={TOKEN}"


class _Handler(BaseHTTPRequestHandler):
    server: Lab

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append(Request(self.path, self.headers, body))
        reply = self.server.replies.popleft() if self.server.replies else Reply()
        if not reply.status:
            return
        self.send_response(reply.status)
        for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  named by http.server
        pass


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.001,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def context(make_session: Build) -> ExportContext:
    return make_session().of_revision(2, {})


def send(lab: Lab | str, context: ExportContext, **options: Any) -> Receipt:
    url = lab if isinstance(lab, str) else lab.url
    destination = WebhookDestination("hook", WebhookOptions.model_validate({"url": url, "token": TOKEN} | options))
    host = HostedDestination(
        destination,
        DestinationInfo(name="hook", type="webhook"),
        records=RecordGuard(()),
        redact=Redactor([TOKEN]),
        call_timeout=20,
        threads=1,
    )

    async def once() -> Receipt:
        try:
            return await host.export(context, attempt=1)
        finally:
            await host.close()

    return asyncio.run(once())


def refused(lab: Lab | str, context: ExportContext, *replies: Reply, **options: Any) -> DeliveryError:
    if isinstance(lab, Lab):
        lab.replies.extend(replies)
    with pytest.raises(DeliveryError) as caught:
        send(lab, context, **options)
    assert TOKEN not in str(caught.value)
    return caught.value


# --- what is sent --------------------------------------------------------------------------------------


def test_context_and_record_travel_as_two_parts(lab: Lab, context: ExportContext) -> None:
    # When a session is sent the usual way
    send(lab, context)
    # Then both parts are what was submitted
    parts = lab.requests[0].parts()
    assert parts.keys() == {"context", "record"}
    assert parts["context"].get_payload(decode=True).decode() == context.to_json()
    assert parts["record"].get_payload(decode=True) == context.xml_file_path.read_bytes()
    assert parts["record"].get_filename() == "record-1.xml"


def test_the_record_can_travel_inside_the_json(lab: Lab, context: ExportContext) -> None:
    # When a receiver takes JSON only
    send(lab, context, attach="inline")
    # Then the record is in it
    document = json.loads(lab.requests[0].body)
    assert document["context"] == json.loads(context.to_json())
    assert base64.b64decode(document["record"]["base64"]) == context.xml_file_path.read_bytes()
    assert lab.requests[0].headers["Content-Type"] == "application/json"


def test_the_record_can_stay_at_home(lab: Lab, context: ExportContext) -> None:
    # When a receiver wants to know only, then it gets the context alone
    send(lab, context, attach="none")
    assert json.loads(lab.requests[0].body) == json.loads(context.to_json())


def test_every_try_of_one_revision_has_the_same_key(lab: Lab, context: ExportContext) -> None:
    # When a revision is sent twice, and the next one once
    for each in (context, context, context.of_revision(3, {})):
        send(lab, each)
    # Then a receiver can tell which is which
    keys = [request.headers["Idempotency-Key"] for request in lab.requests]
    assert keys == [f"{context.export_id}.{revision}.hook" for revision in (2, 2, 3)]


def test_token_and_headers_are_sent(lab: Lab, context: ExportContext) -> None:
    # When a token and a header are configured, then the receiver gets them
    send(lab, context, headers={"X-Lab": "µ-lab"})
    assert lab.requests[0].headers["Authorization"] == f"Bearer {TOKEN}"
    assert lab.requests[0].headers["X-Lab"].encode("latin-1").decode() == "µ-lab"


def test_a_record_that_changed_meanwhile_is_not_sent(lab: Lab, context: ExportContext) -> None:
    # Given a record that is not what was submitted, when it is sent, then it is refused before
    changed = context.model_copy(update={"xml_sha256": "0" * 64})
    assert type(refused(lab, changed)) is Rejected
    assert lab.requests == []


def test_a_record_that_is_not_there_was_certainly_not_sent(lab: Lab, make_context: Build) -> None:
    # Given a record on a share that is away, when it is sent, then there is no doubt
    assert type(refused(lab, make_context())) is Transient


# --- what is answered ----------------------------------------------------------------------------------


def test_id_and_address_come_from_the_answer(lab: Lab, context: ExportContext) -> None:
    # When the receiver answers, then the receipt says what it said
    receipt = send(lab, context)
    assert (receipt.record_id, receipt.record_url) == ("7", "https://lab/7")
    assert receipt.verified == "answered HTTP 201"


def test_the_fields_of_the_answer_can_be_named(lab: Lab, context: ExportContext) -> None:
    # Given a receiver with words of its own, when it answers, then they are understood
    lab.replies.append(Reply(body=b'{"pid": "x-1", "self": "https://lab/x-1"}'))
    receipt = send(lab, context, id_field="pid", url_field="self")
    assert (receipt.record_id, receipt.record_url) == ("x-1", "https://lab/x-1")


@pytest.mark.parametrize("name", ["Location", "location"])
def test_the_address_may_be_in_the_location(lab: Lab, context: ExportContext, name: str) -> None:
    # Given a receiver that answers with a header, spelled either way, when it answers, then it is the address
    lab.replies.append(Reply(body=b"", headers={name: "/records/7"}))
    receipt = send(lab, context)
    assert receipt.record_url == f"{lab.url.partition('/submit')[0]}/records/7"
    assert receipt.record_id is None


@pytest.mark.parametrize("body", [b"", b"ok", b"[1]", b"\xff"])
def test_a_success_without_json_is_a_success(lab: Lab, context: ExportContext, body: bytes) -> None:
    # Given a receiver that says nothing of use, when it answers, then the delivery counts
    lab.replies.append(Reply(body=body))
    assert send(lab, context).record_id is None


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, Misconfigured),
        (302, Misconfigured),
        (400, Rejected),
        (401, Misconfigured),
        (403, Misconfigured),
        (404, Rejected),
        (408, Transient),
        (413, Rejected),
        (422, Rejected),
        (425, Transient),
        (429, RateLimited),
        (500, OutcomeUnknown),
        (502, OutcomeUnknown),
        (503, Unavailable),
        (504, OutcomeUnknown),
    ],
)
def test_a_status_says_what_to_do(lab: Lab, context: ExportContext, status: int, kind: type[DeliveryError]) -> None:
    # When the receiver answers with an error, then it is typed, with the answer's beginning
    error = refused(lab, context, Reply(status, body=b"because"))
    assert type(error) is kind
    assert f"HTTP {status}" in str(error)
    assert "because" in str(error) or status < 400


@pytest.mark.parametrize("name", ["Retry-After", "retry-after"])
@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        ("0", 0.0),
        ("-5", 0.0),
        ("soon", None),
        ("1 Jan 99999999999 0:0:0", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
    ],
)
def test_the_pause_a_receiver_asks_for_is_read(
    lab: Lab, context: ExportContext, name: str, value: str, seconds: float | None
) -> None:
    # When the receiver names a pause, in either form and spelling, then it is known
    assert refused(lab, context, Reply(429, {name: value})).retry_after == seconds


def test_a_date_to_come_is_a_pause_too(lab: Lab, context: ExportContext) -> None:
    # When the receiver names a date far ahead, then so is the next try
    assert refused(lab, context, Reply(503, {"Retry-After": "Fri, 01 Jan 2100 00:00:00 GMT"})).retry_after > 10**8


def test_a_long_error_page_is_cut(lab: Lab, context: ExportContext) -> None:
    # When the receiver answers with a whole page, then only its beginning is kept
    assert len(str(refused(lab, context, Reply(400, body=b"x" * 100_000)))) < 400


def test_a_lost_answer_leaves_a_doubt(lab: Lab, context: ExportContext) -> None:
    # When the connection ends without an answer, then the record may have arrived
    error = refused(lab, context, Reply(0))
    assert type(error) is OutcomeUnknown
    assert len(lab.requests) == 1


def test_a_refused_connection_leaves_none(context: ExportContext) -> None:
    # Given a port where nobody listens
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        # When it is sent there, then it certainly did not arrive
        error = refused(f"http://127.0.0.1:{free.getsockname()[1]}/?sig={TOKEN}", context)
    assert type(error) is Unavailable


def test_a_token_that_cannot_be_sent_leaves_no_doubt(lab: Lab, context: ExportContext) -> None:
    # Given a token with a line break, as files have them, when it is sent, then the setting is at fault
    error = refused(lab, context, token=f"{TOKEN}\n")
    assert type(error) is Misconfigured
    assert lab.requests == []


def test_a_receiver_that_repeats_the_request_tells_no_secret(lab: Lab, context: ExportContext) -> None:
    # When an error page repeats what it was sent, then `refused` finds no token in the error
    body = f"you sent Authorization: Bearer {TOKEN} to /submit?sig={TOKEN}".encode()
    assert "[redacted]" in str(refused(lab, context, Reply(400, body=body)))


def test_a_doubtful_send_may_be_repeated_only_where_the_receiver_says_so() -> None:
    # Given the two kinds of receivers, then the setting decides
    def destination(**options: Any) -> WebhookDestination:
        return WebhookDestination("hook", WebhookOptions.model_validate({"url": "https://host"} | options))

    assert not destination().idempotent
    assert destination(idempotent=True).idempotent


def test_closing_twice_does_no_harm(lab: Lab, context: ExportContext) -> None:
    # Given a destination that was used
    destination = WebhookDestination("hook", WebhookOptions.model_validate({"url": lab.url}))

    async def use() -> None:
        await destination.export(context)
        # When it is closed twice, and used again
        await destination.close()
        await destination.close()
        await destination.export(context)
        await destination.close()

    # Then it works
    asyncio.run(use())
    assert len(lab.requests) == 2
