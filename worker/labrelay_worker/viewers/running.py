"""Run one viewer process from its start to its end: lock, socket, note, window, and away again."""

from __future__ import annotations

import logging
import queue
import signal
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, Protocol

from labrelay_worker.viewers.desk import Budget, Canvas, Desk
from labrelay_worker.viewers.places import Place
from labrelay_worker.viewers.server import ViewerServer

_logger = logging.getLogger(__name__)


class Window(Canvas, Protocol):
    """A canvas with an event loop of its own."""

    def run(self, work: Callable[[], bool]) -> None:
        """Run until `work`, called all the time, returns False or a person closes the window."""

    def open(self, path: str) -> None:
        """Open a file with the viewer's own readers."""


def run_viewer(
    place: Place,
    kind: str,
    make_window: Callable[[str], Window],
    *,
    port: int | None,
    memory: int,
    files: Sequence[str],
) -> None:
    """Run a viewer until its window closes, a worker or a person asks it to, or a signal ends it.

    Parameters
    ----------
    place
        Where it is found.
    kind
        "napari" or "imagej".
    make_window
        Makes the window of a title; called once the endpoint is ours.
    port
        Port of 127.0.0.1, 0 for any free one; None: a private Unix socket.
    memory
        Bytes of pixels that the window may hold.
    files
        What to open at the start.

    Raises
    ------
    ViewerRuns, ViewerAway
        There is one of this name; the endpoint is held by something else, which is left alone.
    """
    with place.held():
        endpoint = place.socket_endpoint() if port is None else f"tcp://127.0.0.1:{port}"
        server = ViewerServer(endpoint)
        try:
            window = make_window(f"labrelay · {place.name}")
        except BaseException:
            server.close()
            raise
        desk = Desk(server, window, Budget(memory))

        def stop(_: int, __: FrameType | None) -> None:
            desk.closing = True

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, stop)
        note = place.new_note(server.endpoint, kind)
        server.start(note)
        # Only now may it be found: whoever reads the note is answered.
        place.write(note)
        _logger.info("viewer %s listens at %s", place.name, server.endpoint)
        try:
            for path in files:
                _open(window, path)
            window.run(lambda: _work(server, desk))
        finally:
            server.close()
    _logger.info("viewer %s is closed: %d shown, %d refused", place.name, desk.shown, desk.refused)


def _open(window: Window, path: str) -> None:
    try:
        window.open(path)
    except Exception as error:  # noqa: BLE001  readers raise anything, and the window is worth having without the file
        _logger.error("%s could not be opened: %s: %s", path, type(error).__name__, error)


def _work(server: ViewerServer, desk: Desk) -> bool:
    """Serve one request if there is one, so that the window draws between two; return whether to go on."""
    try:
        request: Any = server.requests.get_nowait()
    except queue.Empty:
        return not desk.closing
    desk.serve(request)
    return not desk.closing
