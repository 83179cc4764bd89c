"""How an export stands, wherever it is: in the ledger, in the outbox of this machine, or in an archive."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from labrelay.archive import archived_trail
from labrelay.errors import ExportConflict, LabrelayError, NoSuchExport, WaitTimeout
from labrelay.outbox import Outbox, Spooled
from labrelay.results import ExportStatus, TrailEntry

if TYPE_CHECKING:
    from labrelay.link import Link

_FIRST_LOOK, _SLOWEST_LOOK = 0.02, 0.5


class Follower:
    """Reads exports for a client.

    Parameters
    ----------
    link
        The connections.
    outbox
        Where entries wait that Redis did not take.
    """

    def __init__(self, link: Link, outbox: Outbox) -> None:
        self._link, self._outbox = link, outbox

    def spooled(self, export_ids: Sequence[str]) -> set[str]:
        """Return those of these exports that still wait in the outbox."""
        return {entry.export_id for entry in self._outbox.entries(export_ids) if entry.state == "waiting"}

    def refused(self, export_ids: Sequence[str]) -> dict[str, str]:
        """Return why the ledger refused those of these exports that the outbox keeps as conflicts."""
        kept = self._outbox.entries(export_ids)
        return {entry.export_id: _why_refused(entry) for entry in kept if entry.state == "conflict"}

    def status(self, export_id: str) -> ExportStatus:
        """Return how an export stands; raises `NoSuchExport`."""
        try:
            return self._link.ledger.status(export_id)
        except NoSuchExport as error:
            raise self._explain_missing(export_id) or error from None

    def trail(self, export_id: str) -> list[TrailEntry]:
        """Return what happened to an export, oldest first; raises `NoSuchExport`."""
        ledger = self._link.ledger
        try:
            return ledger.trail(export_id)
        except NoSuchExport:
            archived = ledger.status(export_id).archived
            if archived is None:
                raise
            return archived_trail(export_id, archived)

    def wait(self, export_id: str, timeout: float | None) -> ExportStatus:
        """Return the final status; raises `ExportConflict` and `WaitTimeout`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = _FIRST_LOOK
        while True:
            status = self._status_or_spooled(export_id)
            if status is not None and status.state.is_final:
                return status
            if deadline is not None and time.monotonic() >= deadline:
                where = f"still {status.state}" if status else "still in the outbox"
                raise WaitTimeout(f"export {export_id} is {where} after {timeout:g} s; it goes on by itself")
            time.sleep(pause)
            pause = min(pause * 1.5, _SLOWEST_LOOK)

    def _status_or_spooled(self, export_id: str) -> ExportStatus | None:
        """Return the status, or None while the export waits in the outbox; raises `ExportConflict`."""
        kept = self._outbox.entries([export_id])
        if any(entry.state == "waiting" for entry in kept):
            return None
        status = self.status(export_id)
        for entry in reversed(kept):
            # What the ledger knows under this id is what was submitted before, and was the reason to refuse it.
            if entry.submitted > status.created:
                raise ExportConflict(_why_refused(entry))
        return status

    def _explain_missing(self, export_id: str) -> LabrelayError | None:
        """Say where an export is that the ledger does not know, if the outbox does."""
        for spooled in reversed(self._outbox.entries([export_id])):
            if spooled.state == "conflict":
                return ExportConflict(_why_refused(spooled))
            return NoSuchExport(
                f"export {export_id} waits in the outbox of this machine; `labrelay outbox flush` sends it"
            )
        return None


def _why_refused(entry: Spooled) -> str:
    return f"{entry.reason}; it is kept in the outbox (`labrelay outbox list`)"
