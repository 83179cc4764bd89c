"""The HTTP side of the demo receiver: requests in, answers out, connections counted so that they can be closed."""

from __future__ import annotations

import json
import socket
import socketserver
import sys
import threading
import uuid
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

from labrelay_worker.demo.inbox import NO_ANSWER, Answer, Delivery, Inbox, sha256_of
from labrelay_worker.demo.posted import read_posted


class ReceiverServer(ThreadingHTTPServer):
    """Listens on this machine only."""

    daemon_threads = False  # closing waits for the answers under way, so no socket outlives the receiver
    request_queue_size = 512

    def __init__(self, port: int, inbox: Inbox) -> None:
        self.inbox = inbox
        self.closing = threading.Event()
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def url(self) -> str:
        """Address without a slash at its end."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def server_bind(self) -> None:
        """Bind without asking the name service."""
        # that of HTTPServer looks up the machine's name, which takes seconds where the name service is away
        socketserver.TCPServer.server_bind(self)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection and remember it."""
        connection, address = super().get_request()
        with self._lock:
            self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        """Forget a connection that ends."""
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report what went wrong, except that a sender went away."""
        if not isinstance(sys.exception(), ConnectionError):  # senders are killed in tests; that is no error here
            super().handle_error(request, client_address)

    def close_connections(self) -> None:
        """End every answer that waits and every connection that is kept alive."""
        self.closing.set()
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body in one packet: two of them cost a delayed acknowledgement of 40 ms

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        scripted = self._inbox.next_answer("GET", url.path)
        record_id = url.path.removeprefix("/records/")
        if url.path == "/health":
            self._answer(scripted, 200, {"status": "ok"})
        elif record_id != url.path:
            self._answer_record(scripted, record_id)
        else:
            self._answer_find(scripted, url.path, parse_qs(url.query))

    def do_POST(self) -> None:
        path = urlsplit(self.path).path
        content_type = self.headers.get("Content-Type", "")
        try:
            posted = read_posted(content_type, self._read_body())
        except ValueError as error:
            self.close_connection = True  # where the next request begins is not known
            self._answer(Answer(), 400, {"error": str(error)})
            return
        scripted = self._inbox.next_answer("POST", path)
        stored, is_new = None, False
        if scripted.accepts:
            stored, is_new = self._inbox.accept(path, self._key, posted, self._server.url)
        status = 503 if stored is None else 201 if is_new else 200
        self._inbox.note(
            Delivery(
                key=self._key,
                path=path,
                export_id=_export_id(self._key),
                session=posted.session,
                content_type=content_type,
                record_name=posted.record_name,
                record_sha256=sha256_of(posted.record),
                record_bytes=posted.record or b"",
                accepted=is_new,
                status=NO_ANSWER if scripted.drop else scripted.status or status,
            )
        )
        if stored is None:
            self._answer(scripted, status, {"error": "not accepted, as scripted"})
        else:
            answer = {"id": stored.record_id, "url": stored.url}
            self._answer(scripted, status, answer, location=stored.url)

    def handle_expect_100(self) -> bool:
        """Let the sender go on at once: in the buffer the word would wait for the body that waits for it."""
        goes_on = super().handle_expect_100()
        self.wfile.flush()
        return goes_on

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  named by http.server
        """Say nothing: the inbox remembers."""

    @property
    def _inbox(self) -> Inbox:
        return self._server.inbox

    @property
    def _server(self) -> ReceiverServer:
        return cast("ReceiverServer", self.server)

    @property
    def _key(self) -> str | None:
        key: str | None = self.headers.get("Idempotency-Key")
        return key

    def _answer_record(self, scripted: Answer, record_id: str) -> None:
        stored = self._inbox.stored(record_id)
        if stored is None or stored.posted.record is None:
            self._answer(scripted, 404, {"error": "there is no record with this id"})
        else:
            self._answer(scripted, 200, {}, record=stored.posted.record)

    def _answer_find(self, scripted: Answer, url_path: str, query: dict[str, list[str]]) -> None:
        key, path = query.get("key", [""])[0], query.get("path", [None])[0]
        found = self._inbox.find(key, path) if url_path == "/records" else None
        if found is None:
            self._answer(scripted, 404, {"error": "nothing is stored under this key"})
        else:
            self._answer(scripted, 200, found.summary())

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self._read_exactly(int(self.headers.get("Content-Length", "0")))
        chunks = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            chunks.append(self._read_exactly(size))
            self.rfile.readline()
        while self.rfile.readline().strip():  # trailers
            pass
        return b"".join(chunks)

    def _read_exactly(self, size: int) -> bytes:
        if size < 0:
            msg = "negative Content-Length"
            raise ValueError(msg)
        data = self.rfile.read(size)
        if len(data) < size:  # what a killed sender began is not a delivery
            raise ConnectionResetError
        return data

    def _answer(
        self,
        scripted: Answer,
        status: int,
        document: dict[str, Any],
        *,
        record: bytes | None = None,
        location: str | None = None,
    ) -> None:
        """Answer as scripted, else with the status and either the record or the document."""
        status = NO_ANSWER if scripted.drop else scripted.status or status
        url = urlsplit(self.path)
        if url.path != "/health":  # whoever waits for the receiver would drown the count
            key = self._key or parse_qs(url.query).get("key", [None])[0]
            self._inbox.count(self.command, url.path, key, status)
        if scripted.delay:
            self._server.closing.wait(scripted.delay)
        if scripted.drop:
            self.close_connection = True
            return
        body = json.dumps(document).encode() if record is None else record
        if scripted.body is not None:
            body = scripted.body.encode() if isinstance(scripted.body, str) else scripted.body
        headers = {
            "Content-Type": "application/json" if record is None else "application/octet-stream",
            "Content-Length": str(0 if status == HTTPStatus.NO_CONTENT else len(body)),
        }
        if location is not None:
            headers["Location"] = location
        if self.close_connection:
            headers["Connection"] = "close"
        headers |= scripted.headers
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if status != HTTPStatus.NO_CONTENT:
            self.wfile.write(body)


def _export_id(key: str | None) -> str | None:
    """Return the export of a key that labrelay made: export id, revision and destination, joined by dots."""
    export_id = (key or "").partition(".")[0]
    try:
        return str(uuid.UUID(export_id))
    except ValueError:
        return None
