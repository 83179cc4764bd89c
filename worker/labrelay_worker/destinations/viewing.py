"""Show a session in a live viewer: as much as can be seen in time, counted, and never at the export's cost."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labrelay.context import Artifact, ExportContext
from labrelay_worker.backends.base import BackendError
from labrelay_worker.backends.streaming import ViewerBackend
from labrelay_worker.viewers.pictures import Part
from labrelay_worker.viewers.reading import planes_of, series
from labrelay_worker.viewers.ticket import Fate, Tally, Ticket

#: Bytes of a file beyond which reading it would take longer than a glance is worth.
LARGEST_FILE = 1 << 30


@dataclass
class Showing:
    """What became of one session in a viewer."""

    tally: Tally = field(default_factory=Tally)
    unreadable: int = 0
    late: int = 0
    why: str = ""

    def __str__(self) -> str:
        parts = [str(self.tally)]
        if self.late:
            parts.append(f"{self.late} files dropped unread: the viewer's time for this export was over")
        if self.unreadable:
            parts.append(f"{self.unreadable} files hold nothing to show ({self.why})")
        return "; ".join(parts)

    @property
    def is_seen(self) -> bool:
        """Whether anything is on the screen, or still on its way there."""
        return bool(self.tally.counts[Fate.DISPLAYED] + self.tally.counts[Fate.PENDING])

    def counts(self) -> dict[str, Any]:
        """Return the counts for the receipt."""
        by_fate = {str(fate): self.tally.counts[fate] for fate in Fate}
        return by_fate | {"received": self.tally.received, "dropped_unread": self.late, "unreadable": self.unreadable}


def show_session(backend: ViewerBackend, context: ExportContext, session: str) -> Showing:
    """Offer a session's pictures and wait for them, at most the backend's patience; never raises for the viewer.

    Parameters
    ----------
    backend
        The viewer.
    context
        The session; previews are shown when none of its other files can be.
    session
        What its pictures' names begin with.
    """
    deadline = time.monotonic() + backend.patience
    showing, tickets = Showing(), list[Ticket]()
    for previews in (False, True):
        paths = [a.path for a in context.artifacts if (a.role == "preview") is previews and _is_small(a)]
        if not tickets:
            tickets += _offer(backend, series(paths), session, deadline, showing)
    showing.tally = backend.wait(tickets, deadline)
    return showing


def _offer(
    backend: ViewerBackend,
    files: Iterable[tuple[Path, str, Part | None]],
    session: str,
    deadline: float,
    showing: Showing,
) -> list[Ticket]:
    tickets: list[Ticket] = []
    for path, name, part in files:
        if time.monotonic() > deadline:
            showing.late += 1
            continue
        try:
            tickets += [backend.offer(picture, deadline) for picture in planes_of(path, name, part, session)]
        except BackendError as error:
            showing.unreadable, showing.why = showing.unreadable + 1, str(error)
    return tickets


def _is_small(artifact: Artifact) -> bool:
    return (artifact.size if artifact.size is not None else _size(artifact.path)) <= LARGEST_FILE


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
