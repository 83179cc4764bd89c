"""The demo receiver: what it keeps, what it answers and how it misbehaves when told to."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import http.client
import json
import random
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
import pytest

from labrelay_worker.demo.inbox import Inbox
from labrelay_worker.demo.posted import read_posted
from labrelay_worker.demo.receiver import Answer, Receiver

_CONTEXT = {"session_identifier": "https://nemo.example.org/api/usage_events/?id=1001"}
_RECORD = "<a>µm\r\n\r\nÅ</a>\r\n".encode()
_KEY = f"{uuid.UUID(int=7)}.1.webhook"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


def _multipart(record: bytes = _RECORD, name: str = "session.xml") -> tuple[str, bytes]:
    parts = [
        ('name="context"', "application/json", json.dumps(_CONTEXT).encode()),
        (f'name="record"; filename="{quote(name)}"', "application/xml", record),
    ]
    body = b"".join(
        f"--limit\r\nContent-Disposition: form-data; {what}\r\nContent-Type: {kind}\r\n\r\n".encode() + data + b"\r\n"
        for what, kind, data in parts
    )
    return "multipart/form-data; boundary=limit", body + b"--limit--\r\n"


class _Sender:
    """One kept-alive connection to a receiver."""

    def __init__(self, receiver: Receiver) -> None:
        self.connection = http.client.HTTPConnection(urlsplit(receiver.url).netloc, timeout=10)

    def close(self) -> None:
        self.connection.close()

    def post(
        self, path: str = "/submit", key: str | None = _KEY, *, body: bytes | None = None, kind: str | None = None
    ) -> tuple[int, dict[str, Any], http.client.HTTPResponse]:
        default_kind, default_body = _multipart()
        headers = {"Content-Type": kind or default_kind} | ({"Idempotency-Key": key} if key else {})
        self.connection.request("POST", path, default_body if body is None else body, headers)
        response = self.connection.getresponse()
        return response.status, json.loads(response.read() or b"{}"), response

    def get(self, path: str) -> tuple[int, bytes]:
        self.connection.request("GET", path)
        response = self.connection.getresponse()
        return response.status, response.read()


@pytest.fixture
def sender(receiver: Receiver) -> Iterator[_Sender]:
    with closing(_Sender(receiver)) as opened:
        yield opened


def test_a_new_delivery_is_created_and_can_be_read_back(receiver: Receiver, sender: _Sender) -> None:
    # Given a record with line ends of Windows
    # When it is posted
    status, answer, response = sender.post()
    # Then it is created, and its address gives the same bytes
    assert status == 201
    assert response.headers["Location"] == answer["url"] == f"{receiver.url}/records/{answer['id']}"
    assert sender.get(f"/records/{answer['id']}") == (200, _RECORD)
    # And the receiver knows all of it
    [delivery] = receiver.deliveries
    assert (delivery.key, delivery.path, delivery.accepted, delivery.status) == (_KEY, "/submit", True, 201)
    assert (delivery.export_id, delivery.session) == (str(uuid.UUID(int=7)), _CONTEXT["session_identifier"])
    assert (delivery.record_name, delivery.record_bytes) == ("session.xml", _RECORD)
    assert delivery.record_sha256 == hashlib.sha256(_RECORD).hexdigest()


def test_the_same_key_is_stored_once_per_path(receiver: Receiver, sender: _Sender) -> None:
    # Given a delivery
    _, first, _ = sender.post()
    # When its key comes again, and again on another path, and a delivery without a key twice
    again = sender.post()
    elsewhere = sender.post("/other")
    keyless = [sender.post(key=None)[0] for _ in range(2)]
    # Then the repetition gets the first answer, and everything else is new
    assert again[:2] == (200, first)
    assert elsewhere[0] == 201
    assert elsewhere[1]["id"] != first["id"]
    assert keyless == [201, 201]
    assert [delivery.accepted for delivery in receiver.deliveries] == [True, False, True, True, True]


def test_a_key_sent_by_many_at_once_is_accepted_once(receiver: Receiver) -> None:
    # Given twenty senders with one key
    def send() -> None:
        with closing(_Sender(receiver)) as sender:
            sender.post()

    threads = [threading.Thread(target=send) for _ in range(20)]
    # When they all send
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Then one was accepted
    assert sum(delivery.accepted for delivery in receiver.deliveries) == 1
    assert len(receiver.deliveries) == 20


def test_a_key_can_be_looked_up(sender: _Sender) -> None:
    # Given a key that nobody has sent
    assert sender.get(f"/records?key={_KEY}")[0] == 404
    # When it is sent
    _, answer, _ = sender.post()
    # Then it is found with the same id and url, unless another path is asked for
    status, body = sender.get(f"/records?key={_KEY}")
    assert status == 200
    assert answer.items() <= json.loads(body).items()
    assert sender.get(f"/records?key={_KEY}&path=/submit")[0] == 200
    assert sender.get(f"/records?key={_KEY}&path=/other")[0] == 404
    assert sender.get("/records/none")[0] == 404
    assert sender.get("/health")[0] == 200


def test_json_is_accepted_with_and_without_the_record(receiver: Receiver, sender: _Sender) -> None:
    # Given a bare context and one with its record inside
    record = {"name": "session.xml", "base64": base64.b64encode(_RECORD).decode()}
    bare, inline = json.dumps(_CONTEXT).encode(), json.dumps({"context": _CONTEXT, "record": record}).encode()
    # When both are posted
    assert sender.post(key="a", body=bare, kind="application/json")[0] == 201
    assert sender.post(key="b", body=inline, kind="application/json; charset=utf-8")[0] == 201
    # Then both sessions are known, and the record of the second
    first, second = receiver.deliveries
    assert first.session == second.session == _CONTEXT["session_identifier"]
    assert (first.record_sha256, first.record_bytes, first.export_id) == (None, b"", None)
    assert second.record_bytes == _RECORD


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b"[]"),
        ("application/json", b"{"),
        ("text/plain", b"{}"),
        ("multipart/form-data; boundary=limit", _multipart()[1][:-20]),
        ("multipart/form-data; boundary=other", _multipart()[1]),
        ("multipart/form-data", b"{}"),
    ],
)
def test_what_cannot_be_read_is_refused(receiver: Receiver, sender: _Sender, kind: str, body: bytes) -> None:
    # Given a body that is not what its type says, when it is posted
    status, answer, _ = sender.post(body=body, kind=kind)
    # Then it is refused with the reason, and nothing is stored
    assert (status, bool(answer["error"])) == (400, True)
    assert receiver.deliveries == []


def test_records_survive_multipart_byte_for_byte() -> None:
    # Given records of every byte, and of nothing but line ends
    source = random.Random(7)
    for alphabet in (bytes(range(256)), b"\r\n", b"-limt\r\n", b"\x0b\x0c\x1c\x85\r"):
        for size in (0, 1, 2, 8190, 8191, 8192, 20_000):
            record = bytes(source.choices(alphabet, k=size))
            # When they are taken out of a multipart body, then not a byte differs
            posted = read_posted(*_multipart(record, "Zoë 1.xml"))
            assert (posted.record, posted.record_name) == (record, "Zoë 1.xml")


def test_the_form_of_the_client_that_labrelay_uses_is_understood(receiver: Receiver) -> None:
    # Given a form as the webhook destination builds it, sent in chunks and asking to go on first
    async def send() -> int:
        form = aiohttp.FormData()
        form.add_field("context", json.dumps(_CONTEXT), content_type="application/json")
        form.add_field("record", _RECORD, filename="µ 1.xml", content_type="application/xml")
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{receiver.url}/in", data=form, chunked=True, expect100=True) as answer,
        ):
            return answer.status

    # When it is sent
    assert asyncio.run(send()) == 201
    # Then record and name arrive
    [delivery] = receiver.deliveries
    assert (delivery.record_name, delivery.record_bytes) == ("µ 1.xml", _RECORD)


def test_scripted_answers_come_in_order_and_end(receiver: Receiver, sender: _Sender) -> None:
    # Given a script for one path
    receiver.script(
        "/submit", [Answer(status=503, headers={"Retry-After": "2"}), Answer(body="{}"), Answer(status=204)]
    )
    receiver.script("/health", [Answer(status=500)], method="GET")
    # When it is posted to until the script has ended, and another path in between
    refused = sender.post()
    assert sender.post("/other")[0] == 201
    assert [sender.get("/health")[0] for _ in range(2)] == [500, 200]
    emptied, no_content, normal = sender.post(), sender.post(), sender.post()
    # Then each answer came once, and what was refused was not stored
    assert (refused[0], refused[2].headers["Retry-After"]) == (503, "2")
    assert emptied[:2] == (201, {})
    assert no_content[0] == 204
    assert normal[0] == 200
    on_path = [delivery for delivery in receiver.deliveries if delivery.path == "/submit"]
    assert [delivery.accepted for delivery in on_path] == [False, True, False, False]


def test_a_dropped_answer_leaves_the_delivery_accepted(receiver: Receiver, sender: _Sender) -> None:
    # Given a receiver that loses one answer
    receiver.script("/submit", [Answer(drop=True)])
    # When a delivery is sent
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        sender.post()
    # Then the sender knows nothing, yet it was accepted and the key finds it
    assert [(delivery.accepted, delivery.status) for delivery in receiver.deliveries] == [(True, 0)]
    assert sender.get(f"/records?key={_KEY}")[0] == 200
    assert sender.post()[0] == 200


def test_a_status_can_be_told_apart_from_what_is_stored(receiver: Receiver, sender: _Sender) -> None:
    # Given a receiver that fails after storing, and one that drops before
    receiver.script("/submit", [Answer(status=500, accept=True), Answer(drop=True, accept=False)])
    # When two deliveries are sent
    assert sender.post(key="a")[0] == 500
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        sender.post(key="b")
    # Then the first is stored and the second is not
    assert sender.get("/records?key=a")[0] == 200
    assert sender.get("/records?key=b")[0] == 404


def test_a_delayed_answer_has_been_accepted_before_the_wait(receiver: Receiver) -> None:
    # Given an answer that comes too late for a sender without patience
    receiver.script("/submit", [Answer(delay=3600)])
    with closing(_Sender(receiver)) as impatient:
        impatient.connection.timeout = 0.2
        with pytest.raises(TimeoutError):
            impatient.post()
    # When the receiver is asked, then the delivery is there
    assert [delivery.accepted for delivery in receiver.deliveries] == [True]
    # And closing does not wait for the answer
    receiver.close()


def test_closing_ends_kept_connections_and_frees_the_port() -> None:
    # Given a receiver with an idle connection
    with Receiver() as first:
        port = urlsplit(first.url).port or 0
        sender = _Sender(first)
        assert sender.get("/health")[0] == 200
    # When it is closed, then its port can be used again and the connection is dead
    with Receiver(port=port) as second, closing(sender):
        assert second.url == first.url
        assert second.deliveries == []


def test_folder_and_count_file_keep_what_happened(tmp_path: Path) -> None:
    # Given a receiver with a folder and a count file
    inbox = Inbox(folder=tmp_path / "in", count_file=tmp_path / "count.jsonl")
    with Receiver(inbox=inbox) as receiver, closing(_Sender(receiver)) as sender:
        receiver.script("/submit", [Answer(status=503)])
        # When a delivery is refused, taken, repeated and looked up, and one names a file outside the folder
        statuses = [sender.post()[0] for _ in range(3)]
        sender.get(f"/records?key={_KEY}")
        sender.get("/health")
        kind, body = _multipart(b"x", "../../evil.xml")
        sender.post(key=None, body=body, kind=kind)
    # Then every request but the health check is counted
    lines = [json.loads(line) for line in (tmp_path / "count.jsonl").read_text().splitlines()]
    assert [(line["method"], line["status"]) for line in lines] == [
        *[("POST", status) for status in statuses],
        ("GET", 200),
        ("POST", 201),
    ]
    assert [line["key"] for line in lines] == [_KEY] * 4 + [None]
    # And each record is saved once, inside the folder
    saved = sorted(path.name.partition("-")[2] for path in (tmp_path / "in").iterdir())
    assert saved == ["evil.xml", "session.xml"]
    assert _RECORD in [path.read_bytes() for path in (tmp_path / "in").iterdir()]
