"""The viewer's end: proves itself, lets only proven workers in, and hands what they send to the window's thread.

Receiving has a thread of its own, so `received` is said while the window draws; `displayed` is said by the window.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from labrelay_worker.viewers.frames import LARGEST_PAYLOAD, BadMessage, Message, parse
from labrelay_worker.viewers.link import import_zmq
from labrelay_worker.viewers.places import Note, ViewerAway
from labrelay_worker.viewers.proof import NONCE_BYTES, is_proven, new_nonce, prove

_logger = logging.getLogger(__name__)

#: Conversations remembered; the oldest make room, and a worker whose own is gone joins again.
_MOST_SESSIONS = 256
#: What a proven worker may ask of the window.
REQUESTS = frozenset({"image", "shapes", "points", "status", "shot", "close"})


@dataclass
class _Session:
    worker_nonce: str
    viewer_nonce: str
    is_proven: bool = False


@dataclass(frozen=True)
class Request:
    """Something for the window's thread to do, and whom to answer."""

    peer: bytes
    message: Message


class ViewerServer:
    """Listens on one endpoint until it is closed.

    Parameters
    ----------
    endpoint
        ``ipc://PATH`` or ``tcp://127.0.0.1:PORT``; port 0 is any free one.
    most_unshown
        Bytes that may be received and not yet shown; more is refused, so that a slow window cannot fill memory.
    """

    def __init__(
        self, endpoint: str, *, most_unshown: int = 1 << 30, wake: Callable[[], None] = lambda: None
    ) -> None:
        zmq = import_zmq()
        self._zmq, self._context = zmq, zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 200)
        self._socket.setsockopt(zmq.MAXMSGSIZE, LARGEST_PAYLOAD)
        old = os.umask(0o077)  # the socket file is made by libzmq
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError as error:
            self._socket.close(0)
            self._context.term()
            raise ViewerAway(
                f"cannot listen at {endpoint} ({os.strerror(error.errno).lower()}); what holds it is left alone. "
                "Use another --port, or --port 0 for a free one"
            ) from None
        finally:
            os.umask(old)
        self.endpoint = self._socket.getsockopt(zmq.LAST_ENDPOINT).decode().rstrip("\0")
        self.requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._wake_window = wake
        self._note: Note | None = None
        self._sessions: OrderedDict[bytes, _Session] = OrderedDict()
        self._most_unshown, self._unshown = most_unshown, 0
        self._answers: deque[tuple[bytes, Message]] = deque()
        self._counting = threading.Lock()
        self._wake_out, self._wake_in = os.pipe()
        os.set_blocking(self._wake_in, False)
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="labrelay-viewer-server", daemon=True)

    def start(self, note: Note) -> None:
        """Begin to answer, as the viewer of this note."""
        self._note = note
        self._thread.start()

    def answer(self, request: Request, kind: str, payload: bytes = b"", **fields: Any) -> None:
        """Answer a request, from any thread; it counts as shown or refused from now on."""
        with self._counting:
            self._unshown -= len(request.message.payload)
        fields = {"id": request.message.fields.get("id"), **fields}
        self._answers.append((request.peer, Message(kind, fields, payload)))
        self._wake()

    def close(self) -> None:
        """Send what is still to be answered, and end."""
        self._closing = True
        self._wake()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        elif not self._socket.closed:
            self._socket.close(0)
            self._context.term()

    def _wake(self) -> None:
        with suppress(BlockingIOError):  # full, so it wakes anyway
            os.write(self._wake_in, b"x")

    def _run(self) -> None:
        zmq = self._zmq
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._wake_out, zmq.POLLIN)
        while True:
            ready = dict(poller.poll())
            if self._wake_out in ready:
                os.read(self._wake_out, 4096)
            while self._answers:
                peer, message = self._answers.popleft()
                self._send(peer, message)
            if self._closing:
                break
            if self._socket in ready:
                # One at a time, so that answers are not held up by a stream of planes.
                peer, *frames = self._socket.recv_multipart(copy=False)
                self._take(peer.bytes, [frame.buffer for frame in frames])
        self._socket.close()
        self._context.term()

    def _send(self, peer: bytes, message: Message) -> None:
        self._socket.send_multipart([peer, *message.frames()])

    def _take(self, peer: bytes, frames: list[memoryview]) -> None:
        try:
            message = parse(frames)
        except BadMessage as error:
            _logger.debug("dropped a message that is not ours: %s", error)
            if peer in self._sessions:
                self._send(peer, Message("refused", {"id": None, "reason": str(error)}))
            return
        if message.kind == "hello":
            self._greet(peer, message)
        elif message.kind == "proof":
            self._check(peer, message)
        elif (session := self._sessions.get(peer)) is None or not session.is_proven:
            # To a stranger nothing is said.
            _logger.warning("a process that has not proven itself sent %r; dropped", message.kind[:40])
        else:
            self._sessions.move_to_end(peer)
            self._admit(Request(peer, message))

    def _greet(self, peer: bytes, message: Message) -> None:
        assert self._note is not None  # noqa: S101  `start` gave it
        session = _Session(str(message.fields.get("nonce"))[: 2 * NONCE_BYTES], new_nonce())
        self._sessions[peer] = session
        while len(self._sessions) > _MOST_SESSIONS:
            self._sessions.popitem(last=False)
        words = (self.endpoint, session.worker_nonce, session.viewer_nonce)
        fields = {
            "nonce": session.viewer_nonce,
            "proof": prove(self._note.token, "viewer", *words),
            "viewer": self._note.viewer,
        }
        self._send(peer, Message("welcome", fields))

    def _check(self, peer: bytes, message: Message) -> None:
        assert self._note is not None  # noqa: S101
        session = self._sessions.get(peer)
        if session is None:
            return
        words = (self.endpoint, session.worker_nonce, session.viewer_nonce)
        if is_proven(message.fields.get("proof"), self._note.token, "worker", *words):
            session.is_proven = True
            self._send(peer, Message("ready", {}))
        else:
            del self._sessions[peer]
            _logger.warning("a process that does not know the token tried to join; left out")

    def _admit(self, request: Request) -> None:
        message = request.message
        if message.kind not in REQUESTS:
            self._send(request.peer, Message("refused", {"id": message.fields.get("id"), "reason": "unknown kind"}))
            return
        size = len(message.payload)
        if self._unshown and self._unshown + size > self._most_unshown:
            reason = f"{self._unshown} bytes wait to be shown already"
            self._send(request.peer, Message("refused", {"id": message.fields.get("id"), "reason": reason}))
            return
        with self._counting:
            self._unshown += size
        if size:
            self._send(request.peer, Message("received", {"id": message.fields.get("id")}))
        self.requests.put(request)
        self._wake_window()
