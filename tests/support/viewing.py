"""A viewer without a window, in this process: real server, desk, note and handshake; only the drawing is noted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from labrelay_worker.viewers.desk import Budget, CannotShow, Desk, Shown
from labrelay_worker.viewers.pictures import Picture, Showable
from labrelay_worker.viewers.places import Place
from labrelay_worker.viewers.server import ViewerServer

#: Where the documents' pictures are.
IMAGES = Path(__file__).parents[2] / "docs" / "images"


class NotedCanvas:
    """Notes what it is shown."""

    def __init__(self) -> None:
        self.items: list[Showable] = []
        self.removed: list[str] = []
        #: Cleared: the window hangs, as a stopped process does.
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.spoils = self.refuses = False

    def show(self, item: Showable, digest: int) -> Shown:
        self.goes_on.wait(60)
        if self.refuses:
            raise CannotShow("not today")
        self.items.append(item)
        return Shown(0 if self.spoils else digest)

    def remove(self, name: str) -> None:
        self.removed.append(name)

    def shot(self, *, whole_window: bool) -> bytes:
        return b"\x89PNG"

    def status(self) -> dict[str, Any]:
        return {"viewer": "noted", "items": [item.name for item in self.items]}

    def planes(self, name: str) -> list[int]:
        """Return the places of the planes shown of a stack, in order."""
        return [i.part.index for i in self.items if isinstance(i, Picture) and i.part and i.name == name]


@contextmanager
def noted_viewer(place: Place, endpoint: str | None = None, memory: int = 1 << 30) -> Iterator[NotedCanvas]:
    """Run a viewer of this name until the end of the block."""
    canvas = NotedCanvas()
    with place.held():
        server = ViewerServer(endpoint or place.socket_endpoint())
        desk = Desk(server, canvas, Budget(memory))
        server.start(note := place.new_note(server.endpoint, "noted"))
        place.write(note)

        def work() -> None:
            while not desk.closing:
                with suppress(Exception):
                    desk.serve(server.requests.get(timeout=0.05))

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            yield canvas
        finally:
            desk.closing = True
            canvas.goes_on.set()
            thread.join(10)
            server.close()
