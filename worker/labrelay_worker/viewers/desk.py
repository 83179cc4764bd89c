"""What a viewer does with a request, whatever draws: show and answer, refuse with the reason, take a picture, end."""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Protocol

from labrelay_worker.viewers.frames import BadMessage, checksum, read_item
from labrelay_worker.viewers.pictures import Picture, Showable
from labrelay_worker.viewers.server import Request, ViewerServer

_logger = logging.getLogger(__name__)


class CannotShow(Exception):
    """The window cannot show this; the text says why."""


@dataclass(frozen=True)
class Shown:
    """What the window holds after it drew: the checksum of its pixels, and how they differ in form."""

    digest: int
    note: str = ""


class Canvas(Protocol):
    """A window. Only its own thread calls it."""

    def show(self, item: Showable, digest: int) -> Shown:
        """Draw an item and return once it is on the screen.

        `digest` is that of the payload: the answer when the window holds the same numbers in another form. Raises
        CannotShow.
        """

    def remove(self, name: str) -> None:
        """Take an item off, if it is there."""

    def shot(self, *, whole_window: bool) -> bytes:
        """Return what is seen as PNG: the image area alone, or everything."""

    def status(self) -> dict[str, Any]:
        """Return what is open, as JSON."""


class Budget:
    """Bytes that a window holds, by item name; the least recently shown make room. Pure.

    Parameters
    ----------
    most
        Bytes; a single item above it is refused.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: OrderedDict[str, int] = OrderedDict()
        self.evicted = 0

    @property
    def held(self) -> int:
        """Bytes held."""
        return sum(self._held.values())

    def admit(self, name: str, size: int) -> list[str]:
        """Count an item in; return the names that must go first. Raises CannotShow for one above the budget."""
        if size > self._most:
            raise CannotShow(f"{size} bytes are more than the viewer may hold ({self._most}); see --memory")
        self._held.pop(name, None)
        gone = []
        while self._held and self.held + size > self._most:
            gone.append(self._held.popitem(last=False)[0])
        self.evicted += len(gone)
        self._held[name] = size
        return gone


class Desk:
    """Serves one window.

    Parameters
    ----------
    server
        Where requests come from and answers go.
    canvas
        The window.
    budget
        What it may hold.
    """

    def __init__(self, server: ViewerServer, canvas: Canvas, budget: Budget) -> None:
        self._server, self._canvas, self._budget = server, canvas, budget
        self.closing = False
        self.shown = self.refused = 0

    def serve(self, request: Request) -> None:
        """Do what is asked and answer; never raises."""
        kind = request.message.kind
        try:
            if kind == "close":
                self.closing = True
                self._server.answer(request, "closing")
            elif kind == "status":
                counts: dict[str, Any] = {
                    "shown": self.shown,
                    "refused": self.refused,
                    "evicted": self._budget.evicted,
                }
                self._server.answer(request, "status", **counts | {"held": self._budget.held} | self._canvas.status())
            elif kind == "shot":
                png = self._canvas.shot(whole_window=request.message.fields.get("what") == "window")
                self._server.answer(request, "shot", png)
            else:
                self._show(request)
        except (BadMessage, CannotShow) as error:
            self._refuse(request, str(error))
        except Exception as error:
            _logger.exception("the window could not do %r", kind)
            self._refuse(request, f"the viewer failed: {type(error).__name__}: {error}")

    def _show(self, request: Request) -> None:
        item = read_item(request.message)
        size = len(request.message.payload)
        if isinstance(item, Picture) and item.part is not None:
            size *= item.part.count
        for name in self._budget.admit(item.name, size):
            self._canvas.remove(name)
        shown = self._canvas.show(item, checksum(request.message.payload))
        self.shown += 1
        self._server.answer(request, "displayed", digest=shown.digest, note=shown.note)

    def _refuse(self, request: Request, reason: str) -> None:
        self.refused += 1
        self._server.answer(request, "refused", reason=reason)
