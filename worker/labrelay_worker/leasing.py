"""What lets one process write of an export: until when, and whether another one owns it by now."""

from __future__ import annotations

import time

from labrelay.errors import LeaseLost


class Lease:
    """A claimed export, as far as its lease goes.

    Parameters
    ----------
    export_id
        The export.
    token
        Its fencing token: what this process writes counts only while the ledger has the same.
    until
        When it ends unless it is prolonged, by `time.monotonic`, which no one sets.
    cancel_requested
        Whether somebody wants the export to stop.
    """

    def __init__(self, export_id: str, token: str, until: float, *, cancel_requested: bool = False) -> None:
        self.export_id, self.token, self.until = export_id, token, until
        self.cancel_requested = cancel_requested

    @property
    def is_lost(self) -> bool:
        """Whether another worker owns the export, as far as is known."""
        return self.until == float("-inf")

    def lose(self) -> None:
        """Take note that another worker owns the export."""
        self.until = float("-inf")

    def require(self) -> None:
        """Raise `LeaseLost` if the lease may have ended."""
        if time.monotonic() >= self.until:
            raise LeaseLost
