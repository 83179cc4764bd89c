"""What the viewer backends share: payloads become pictures, pictures become offers to a stream."""

from __future__ import annotations

import posixpath
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from labrelay.errors import InvalidInput
from labrelay_worker.backends.base import (
    Address,
    IfExists,
    StreamingBackend,
    Unavailable,
    Unsupported,
    clean,
    pairs,
    require_distinct,
    settle,
)
from labrelay_worker.reading.signal import Signal

if TYPE_CHECKING:
    # numpy comes with these; a worker that streams to nobody never loads it.
    from labrelay_worker.viewers.pictures import Showable
    from labrelay_worker.viewers.stream import ViewerStream
    from labrelay_worker.viewers.ticket import Tally, Ticket

_CLOSE_LINGER = 1.0
_MIB = 1 << 20


class ViewerBackend(StreamingBackend):
    """Streams to a viewer of this user.

    Parameters
    ----------
    viewer
        Name of the viewer; default: its kind.
    port
        Port of 127.0.0.1 to look for it; default: where the viewer's own note says.
    start
        "auto" starts one when none runs and this process has a display, once; "never" leaves that to people.
    patience
        Seconds that `save`, or one export, waits for the viewer.
    window_mib, queue_mib
        MiB that may be under way, and wait behind them; then the oldest gives way.
    stall
        Seconds without an acknowledgement after which the viewer's window counts as hung.
    home
        Folder of the viewer's note; default: LABRELAY_HOME.
    """

    #: "napari" or "imagej".
    viewer_kind: ClassVar[str] = ""

    def __init__(
        self,
        viewer: str = "",
        port: int = 0,
        start: Literal["auto", "never"] = "auto",
        patience: float = 5.0,
        window_mib: int = 64,
        queue_mib: int = 256,
        stall: float = 15.0,
        home: str = "",
    ) -> None:
        if start not in ("auto", "never"):
            raise InvalidInput("start", f"{start!r} is neither auto nor never", "Use one of them")
        for option, value in (("patience", patience), ("window_mib", window_mib), ("queue_mib", queue_mib)):
            if value <= 0:
                raise InvalidInput(option, f"{value} is not above 0", "Give a larger one")
        from labrelay_worker.viewers.launching import Launcher  # noqa: PLC0415
        from labrelay_worker.viewers.places import Place  # noqa: PLC0415

        self.patience = patience
        self.place = Place.of(viewer or self.viewer_kind, home or None)
        self._launcher = Launcher(self.place, self.viewer_kind, self.place.folder.parent) if start == "auto" else None
        self._port, self._stall = port or None, stall
        self._limits = window_mib * _MIB, queue_mib * _MIB
        self._made: ViewerStream | None = None
        self._lock = threading.Lock()

    @property
    def _stream(self) -> ViewerStream:
        from labrelay_worker.viewers.sendwindow import Limits  # noqa: PLC0415
        from labrelay_worker.viewers.stream import Pace, ViewerStream  # noqa: PLC0415

        with self._lock:
            if self._made is None:
                self._made = ViewerStream(
                    self.place,
                    port=self._port,
                    limits=Limits(*self._limits),
                    pace=Pace(stall=self._stall),
                    launch=self._launcher or (lambda: False),
                )
            return self._made

    def save(self, data: Any, identifier: Address, *, if_exists: IfExists = "error") -> None:
        """Show one payload; see `save_batch`."""
        self.save_batch([data], [identifier], if_exists=if_exists)

    def save_batch(
        self, data_list: Sequence[Any], identifiers: Sequence[Address], *, if_exists: IfExists = "error"
    ) -> None:
        """Show payloads, and return when all are on the screen, at the latest after `patience` seconds.

        A viewer keeps nothing, so nothing exists before: the same address again replaces what it shows.

        Raises
        ------
        Unsupported
            One of them cannot be shown; none was offered.
        Unavailable
            Not all were seen on the screen in time; says how many were, and why the others were not.
        """
        from labrelay_worker.viewers.ticket import Fate  # noqa: PLC0415

        batch = [(payload, clean(address)) for payload, address in pairs(data_list, identifiers)]
        require_distinct([posixpath.normpath(address) for _, address in batch])
        items = []
        for payload, address in batch:
            settle(None, "file", if_exists, address)
            items.append(_own(_showable(payload, address)))
        deadline = time.monotonic() + self.patience
        tickets = [self.offer(item, deadline) for item in items]
        tally = self.wait(tickets, deadline)
        if tally.counts[Fate.DISPLAYED] < tally.offered:
            raise Unavailable(f"viewer {self.place.name}: {tally}")

    def offer(self, item: Showable, deadline: float = 0.0) -> Ticket:
        """Hand over what must not change any more; see `ViewerStream.offer`. Raises Unsupported."""
        return self._stream.offer(item, deadline)

    @staticmethod
    def wait(tickets: Sequence[Ticket], deadline: float) -> Tally:
        """Return how the tickets stand once all have ended, at the latest at the deadline (monotonic seconds)."""
        from labrelay_worker.viewers.ticket import Tally  # noqa: PLC0415

        for ticket in tickets:
            ticket.wait(deadline)
        return Tally.of(tickets)

    @property
    def totals(self) -> Tally:
        """Counts of everything that ended since the start, drops included."""
        return self._stream.totals

    def cleanup_connections(self) -> None:
        """Close the connection; the window stays with what it shows."""
        if self._made is not None:
            self._made.close(linger=_CLOSE_LINGER)

    def cleanup(self) -> None:
        """Close the connection, and the window if this backend showed something in it or started it."""
        self.cleanup_connections()
        is_started = self._launcher is not None and self._launcher.has_started
        if self._made is not None and (self._made.has_shown or is_started):
            self._made.ask_to_close()


def _showable(payload: Any, name: str) -> Showable:
    from labrelay_worker.backends.formats import decode  # noqa: PLC0415
    from labrelay_worker.viewers.pictures import as_showable  # noqa: PLC0415
    from labrelay_worker.viewers.reading import PICTURE_SUFFIXES  # noqa: PLC0415
    from labrelay_worker.viewers.signals import picture_of  # noqa: PLC0415

    if isinstance(payload, Signal):
        return picture_of(payload, name)
    if isinstance(payload, bytes | bytearray | memoryview):
        if PurePosixPath(name).suffix.lower() not in PICTURE_SUFFIXES:
            raise Unsupported(f"{name}: a viewer shows pictures ({', '.join(PICTURE_SUFFIXES)}) and arrays")
        payload = decode(bytes(payload), Path(name).name)
    return as_showable(payload, name)


def _own(item: Showable) -> Showable:
    """Return an item whose memory the caller cannot change any more."""
    import numpy as np  # noqa: PLC0415

    from labrelay_worker.viewers.pictures import Picture, Points  # noqa: PLC0415

    if isinstance(item, Picture):
        return replace(item, array=item.array.copy())
    if isinstance(item, Points):
        return replace(item, positions=item.positions.copy())
    return replace(item, items=tuple(replace(shape, vertices=np.array(shape.vertices)) for shape in item.items))
