"""Hand entries to the ledger and ring for them: straight from a submit, or out of the outbox."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from labrelay.errors import LedgerUnavailable
from labrelay.ledger import Answer, Entry
from labrelay.patience import Patience
from labrelay.results import UNFINISHED, ExportState
from labrelay.wakeups import Named

if TYPE_CHECKING:
    from labrelay.link import Link
    from labrelay.outbox import Waiting

_logger = logging.getLogger(__name__)


class Sender:
    """Sends entries over a link.

    Parameters
    ----------
    link
        The connections to use.
    wake_up_grace
        Seconds after which the reconciler wakes what nobody rang for.
    """

    def __init__(self, link: Link, wake_up_grace: float) -> None:
        self._link = link
        self._grace = wake_up_grace

    def send(
        self, entries: Sequence[Entry], *, replace: bool, patience: Patience
    ) -> tuple[list[Answer], tuple[str, ...]]:
        """Return the ledger's answers, and warnings.

        Raises
        ------
        LedgerUnavailable
            Redis is away, frozen or full; whether the entries arrived is unknown, sending them again is safe.
        """
        # What loads modules at the first use is no silence of Redis, so it is done before the waiting begins.
        ledger = self._link.ledger
        answers = patience.call(
            lambda: ledger.submit(entries, replace=replace),
            here=lambda seconds: ledger.submit_here(entries, seconds, replace=replace),
        )
        fresh = [e for e, a in zip(entries, answers, strict=True) if a.outcome in ("accepted", "replaced")]
        return answers, self.ring(sum(answer.to_ring for answer in answers), fresh, patience)

    def send_again(self, batch: Sequence[Waiting]) -> list[Answer]:
        """Return the ledger's answers to entries of the outbox, any of which may have arrived before."""
        ledger = self._link.ledger
        answers = ledger.submit([waiting.entry for waiting in batch], replace=False)
        replacing = [
            index
            for index, (waiting, answer) in enumerate(zip(batch, answers, strict=True))
            if waiting.replace and self._still_replaces(waiting, answer)
        ]
        if replacing:
            second = ledger.submit([batch[index].entry for index in replacing], replace=True)
            for index, answer in zip(replacing, second, strict=True):
                answers[index] = answer._replace(to_ring=answer.to_ring + answers[index].to_ring)
        self.ring(sum(a.to_ring for a in answers), [waiting.entry for waiting in batch], Patience(None))
        return answers

    def _still_replaces(self, waiting: Waiting, answer: Answer) -> bool:
        if answer.outcome != "duplicate" or answer.state in UNFINISHED or answer.state is ExportState.DELIVERED:
            return answer.outcome == "conflict"
        # This very content, ended: either the export to replace, or this replacement, arrived before and ended since.
        made = self._link.ledger.status(waiting.entry.export_id).created
        return made < datetime.fromtimestamp(waiting.submitted, UTC)

    def ring(self, count: int, exports: Sequence[Named], patience: Patience) -> tuple[str, ...]:
        """Publish wake-ups for exports that are ready; returns warnings, for a lost wake-up loses nothing."""
        if not count:
            return ()
        from kombu.exceptions import OperationalError  # noqa: PLC0415  `import labrelay` must not load it

        try:
            wake_ups = self._link.wake_ups
            patience.call(lambda: wake_ups.ring(count, exports))
        except (OperationalError, OSError, LedgerUnavailable) as error:
            # The rows are in the ledger: the reconciler wakes them when their due time comes.
            _logger.warning("wake-up not sent (%s); a worker picks the export up by itself", type(error).__name__)
            return (f"the wake-up may be lost; a worker picks it up within {self._grace:g} s",)
        return ()


def explain_conflict(entry: Entry, answer: Answer) -> str:
    """Say why the ledger refused an entry, and the cure."""
    return (
        f"session {entry.session} was submitted before with other {answer.differs} (export {entry.export_id}, "
        f"revision {answer.revision}); pass replace=True (--replace) to make a new revision"
    )
