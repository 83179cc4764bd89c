"""One proven connection to a viewer: a ZeroMQ socket on which both sides have shown that they belong together."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from typing import Any

from labrelay.names import VIEWER_SCHEMA
from labrelay_worker.viewers.frames import BadMessage, Message, parse
from labrelay_worker.viewers.places import Place, ViewerAway
from labrelay_worker.viewers.proof import is_proven, new_nonce, prove

_LOOPBACK = "tcp://127.0.0.1:"


def import_zmq() -> Any:
    """Return pyzmq. Raises ViewerAway, with the repair, where it is not installed."""
    try:
        import zmq  # noqa: PLC0415  only workers that stream need it
    except ImportError as error:
        raise ViewerAway('talking to viewers needs pyzmq: pip install "labrelay[worker]"') from error
    return zmq


class Link:
    """A connection after the handshake. One thread owns it; `close` leaves the viewer as it is.

    Parameters
    ----------
    context
        The ZeroMQ context of this process.
    place
        Whose viewer.
    port
        A port of 127.0.0.1 to dial instead of the address in the note.
    patience
        Seconds in which the viewer must have proven itself.
    silence
        Seconds without a sign of life of its process after which the connection is cut. A window that draws for
        longer gives signs of life; a process that was stopped does not.
    """

    def __init__(self, context: Any, place: Place, port: int | None, patience: float, silence: float = 3.0) -> None:
        zmq = import_zmq()
        self._note = place.read()
        self.endpoint = f"{_LOOPBACK}{port}" if port else self._note.endpoint
        _require_listener(self.endpoint, place)
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.SNDHWM, 0)  # the window bounds it, in bytes
        self.socket.setsockopt(zmq.HEARTBEAT_IVL, max(int(silence * 250), 1))
        self.socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, max(int(silence * 1000), 1))
        self._monitor = self.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED)
        try:
            self.socket.connect(self.endpoint)
            self._shake_hands(time.monotonic() + patience, place)
        except BaseException:
            self.close()
            raise

    @property
    def viewer(self) -> str:
        """Kind of the viewer."""
        return self._note.viewer

    @property
    def pollable(self) -> tuple[Any, Any]:
        """The sockets to poll: messages, and news of the connection."""
        return self.socket, self._monitor

    def send(self, message: Message) -> None:
        """Send without copying the payload, which must not change any more."""
        self.socket.send_multipart(message.frames(), copy=False)

    def receive(self) -> Message | None:
        """Return the next message, None if there is none now. Raises BadMessage."""
        zmq = import_zmq()
        try:
            return parse(self.socket.recv_multipart(zmq.NOBLOCK))
        except zmq.Again:
            return None

    def is_cut(self) -> bool:
        """Return whether the other end has gone since the last call."""
        zmq = import_zmq()
        found = False
        while True:
            try:
                self._monitor.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return found
            found = True

    def ask(self, question: Message, answer: str, seconds: float) -> Message:
        """Send a question and return its answer, on a link that carries nothing else. Raises ViewerAway."""
        self.send(question)
        return self._await(answer, time.monotonic() + seconds, lambda: f"the viewer did not answer in {seconds:g} s")

    def close(self) -> None:
        """Close the sockets; idempotent."""
        self.socket.disable_monitor()
        self._monitor.close(0)
        self.socket.close(0)

    def _shake_hands(self, deadline: float, place: Place) -> None:
        def silent() -> str:
            if place.is_held() and self.endpoint == self._note.endpoint:
                return f"the viewer at {self.endpoint} does not answer; it hangs or is stopped"
            return f"{self.endpoint} is held by something that is no viewer of ours, which is left alone; {cure}"

        cure = f"close it or use another port, then {place.start_hint()}"
        nonce = new_nonce()
        self.send(Message("hello", {"nonce": nonce, "pid": os.getpid()}))
        welcome = self._await("welcome", deadline, silent).fields
        words = (self._note.token, self.endpoint, nonce, str(welcome.get("nonce")))
        if not is_proven(welcome.get("proof"), words[0], "viewer", *words[1:]):
            raise ViewerAway(
                f"{self.endpoint} is held by something that cannot prove to be our viewer; it got nothing and is "
                f"left alone; {cure}"
            )
        self.send(Message("proof", {"proof": prove(words[0], "worker", *words[1:])}))
        self._await("ready", deadline, silent)

    def _await(self, kind: str, deadline: float, otherwise: Callable[[], str]) -> Message:
        while (left := deadline - time.monotonic()) > 0:
            if not self.socket.poll(left * 1000):
                break
            try:
                message = self.receive()
            except BadMessage as error:
                raise ViewerAway(f"{self.endpoint} answers what is not {VIEWER_SCHEMA}: {error}") from None
            if message is not None and message.kind == kind:
                return message
            if message is not None and message.kind == "refused":
                raise ViewerAway(f"the viewer at {self.endpoint} refused: {message.fields.get('reason')}")
        raise ViewerAway(otherwise())


def _require_listener(endpoint: str, place: Place) -> None:
    """Find out at once that nobody listens; ZeroMQ would go on trying in silence."""
    if endpoint.startswith("ipc://"):
        family, address = socket.AF_UNIX, endpoint.removeprefix("ipc://")
    elif endpoint.startswith(_LOOPBACK):
        host, _, port = endpoint.removeprefix("tcp://").partition(":")
        family, address = socket.AF_INET, (host, int(port))  # type: ignore[assignment]
    else:
        raise ViewerAway(f"{endpoint} is neither a private socket nor on 127.0.0.1, so it is not dialled")
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(address)
        except OSError as error:
            raise ViewerAway(
                f"no viewer listens at {endpoint} ({error.strerror or error}); {place.start_hint()}"
            ) from None
