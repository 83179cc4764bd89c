"""When a record is complete: pure, from what successive looks saw.

Only this process's own monotonic clock counts: the clocks of shares and instruments are not ours, and a copy may keep
the modification time of its original.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from labrelay.context import ExportContext
from labrelay.inbox.looking import Stand


@dataclass(frozen=True)
class Pending:
    """A record that is not submitted yet.

    Parameters
    ----------
    stand
        How the record itself stood at the last look.
    since
        Time of the first look that saw all of it as it is.
    looks
        How many looks in a row saw the record as it is.
    contexts
        What it says; None: it was not read yet.
    files
        The files that it names, as they stood at the last look.
    problem
        Why it cannot be read.
    """

    stand: Stand
    since: float
    looks: int = 1
    contexts: tuple[ExportContext, ...] | None = None
    files: Mapping[Path, Stand] = field(default_factory=dict)
    problem: Exception | None = None

    @property
    def is_worth_reading(self) -> bool:
        """Whether it stood still between two looks, and nobody read it since."""
        return self.looks > 1 and self.contexts is None and self.problem is None

    def is_complete(self, settle: float, now: float) -> bool:
        """Return whether it and all its files have not changed for `settle` seconds, and it was read or cannot be."""
        was_read = self.contexts is not None or self.problem is not None
        return was_read and now - self.since >= settle

    def with_files(self, files: Mapping[Path, Stand], now: float) -> Pending:
        """Return it after a look at its files; any change begins the wait anew."""
        return self if files == self.files else replace(self, files=files, since=now)


def seen(before: Pending | None, stand: Stand, now: float) -> Pending:
    """Return a record after one more look at it; a changed one begins anew, and is read anew."""
    if before is None or before.stand != stand:
        return Pending(stand, now)
    return replace(before, looks=before.looks + 1)
