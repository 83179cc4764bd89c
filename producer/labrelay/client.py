"""What an instrument pipeline calls: submit, watch, cancel and plan exports."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from labrelay.context import ExportContext
from labrelay.deadletters import REPLAYABLE, Assumption, DeadLetters, Filter
from labrelay.entries import Wanted, make_entries, names_of, priority_for
from labrelay.errors import ExportConflict, InvalidInput
from labrelay.flushing import FlushReport
from labrelay.following import Follower
from labrelay.ledger import Ledger
from labrelay.link import Link
from labrelay.logs import about
from labrelay.manifest import make_manifest
from labrelay.outbox import Outbox
from labrelay.patience import Patience
from labrelay.plans import Plan, make_plan
from labrelay.priorities import parse_priority
from labrelay.results import ExportStatus, Replayed, Submission, TrailEntry
from labrelay.sending import Sender
from labrelay.settings import ProducerSettings, load_settings
from labrelay.strategies import parse_strategy
from labrelay.submitting import Submitter
from labrelay.tracing import tracing_of

if TYPE_CHECKING:
    from types import TracebackType

_logger = logging.getLogger(__name__)


class Client:
    """Submits exports and reads how they stand. Safe to share between threads; use as a context manager.

    Parameters
    ----------
    settings
        Default: from the environment and ``labrelay.toml``.
    background_flush
        Send what had to go to the outbox from a thread, as soon as Redis is back.
    """

    def __init__(self, settings: ProducerSettings | None = None, *, background_flush: bool = True) -> None:
        self.settings = settings or load_settings(ProducerSettings)
        self.outbox = Outbox.of(self.settings)
        self._link = Link(self.settings)
        self._follower = Follower(self._link, self.outbox)
        self._tracing = tracing_of(self.settings)
        self._submitter = Submitter(self._link, self.outbox, self.settings, background_flush=background_flush)

    @property
    def ledger(self) -> Ledger:
        """The ledger, to read from; raises `LedgerUnavailable` while there is no Redis to connect to."""
        return self._link.ledger

    @property
    def dead_letters(self) -> DeadLetters:
        """Exports that need a person; raises `LedgerUnavailable` while there is no Redis to connect to."""
        return self._link.dead_letters

    def submit(
        self,
        context: ExportContext,
        strategy: str | None = None,
        *,
        destinations: Sequence[str] | None = None,
        replace: bool = False,
        priority: str | None = None,
    ) -> Submission:
        """Accept one session for export. Returns once the ledger or the outbox holds it, in either case durably.

        Submitting it again is harmless. With Redis away, frozen or full this takes at most 3 s beyond the reading
        of the files, and the outcome is ``spooled``: it is sent as soon as Redis is back.

        Parameters
        ----------
        context
            The session.
        strategy
            ``all``, ``first_success`` or ``best_effort``; default: the workers' routes and settings decide.
        destinations
            Names to deliver to; default: every enabled destination, or those of a matching route.
        replace
            Make a new revision when the session was submitted before with other content.
        priority
            ``urgent``, ``normal`` or ``bulk``; default: the setting ``priorities``, else ``normal``.

        Raises
        ------
        InvalidInput
            A field or file is not usable; nothing was accepted.
        ExportConflict
            Submitted before with other content, strategy or destinations, and `replace` is not set.
        LedgerUnavailable
            Redis cannot be reached and the outbox is off, or there never was a Redis.
        OutboxUnavailable
            Redis cannot be reached and the outbox cannot be written; `OutboxFull` when it is full.
        """
        submission = self.submit_many(
            [context], strategy, destinations=destinations, replace=replace, priority=priority
        )[0]
        if submission.outcome == "conflict":
            raise ExportConflict(submission.warnings[-1])
        return submission

    def submit_many(
        self,
        contexts: Iterable[ExportContext],
        strategy: str | None = None,
        *,
        destinations: Sequence[str] | None = None,
        replace: bool = False,
        priority: str | None = None,
    ) -> list[Submission]:
        """Accept many sessions in few round trips.

        Everything is validated before anything is accepted. A conflict does not stop the others: its
        submission has the outcome ``conflict``. Where neither `priority` nor the setting ``priorities`` says
        otherwise, one is ``normal`` and several are ``bulk``: what comes in many at once shall not delay the session
        that has just ended.
        """
        wanted = Wanted(
            parse_strategy(strategy).value if strategy else "",
            names_of(destinations),
            parse_priority(priority) if priority else None,
        )
        entries, warnings = make_entries(contexts, wanted, self.settings)
        one = (entries[0].export_id, entries[0].session) if len(entries) == 1 else ("", "")
        with about(*one):
            submissions = self._tracing.submit(
                entries, lambda traced: self._submitter.submit(traced, wanted.destinations, replace=replace)
            )
        if _logger.isEnabledFor(logging.INFO):
            for entry, submission in zip(entries, submissions, strict=True):
                with about(entry.export_id, entry.session):
                    _logger.info("submitted: %s, revision %d", submission.outcome, submission.revision)
        return [
            submission.model_copy(update={"warnings": (*own, *submission.warnings)}) if own else submission
            for own, submission in zip(warnings, submissions, strict=True)
        ]

    def flush(self, *, progress: Callable[[int, int], None] | None = None, patience: float = 60.0) -> FlushReport:
        """Send what waits in the outbox, oldest first.

        Parameters
        ----------
        progress
            Told how many entries were settled, and of how many.
        patience
            Seconds to wait while another process flushes.
        """
        return self._submitter.flush(progress=progress, patience=patience)

    def replace_conflicts(self, ids: Sequence[str] = ()) -> int:
        """Let the next flush send conflicts of the outbox as new revisions: these, or all; answers how many."""
        return self.outbox.replace_conflicts(ids, at=time.time())

    def spooled(self, export_ids: Sequence[str]) -> set[str]:
        """Return those of these exports that still wait in the outbox of this machine."""
        return self._follower.spooled(export_ids)

    def refused(self, export_ids: Sequence[str]) -> dict[str, str]:
        """Return, for those of these exports that the outbox keeps as conflicts, why the ledger refused them."""
        return self._follower.refused(export_ids)

    def status(self, export_id: str) -> ExportStatus:
        """Return how an export stands; raises `NoSuchExport`."""
        return self._follower.status(export_id)

    def trail(self, export_id: str) -> list[TrailEntry]:
        """Return what happened to an export, oldest first; raises `NoSuchExport`."""
        return self._follower.trail(export_id)

    def wait(self, export_id: str, timeout: float | None = None) -> ExportStatus:
        """Wait until labrelay does nothing more about an export by itself; one in the outbox is waited for too.

        Raises
        ------
        ExportConflict
            It waited in the outbox, and the ledger refused it.
        WaitTimeout
            It is not finished after `timeout` seconds; it goes on.
        """
        return self._follower.wait(export_id, timeout)

    def cancel(self, export_id: str) -> str:
        """Cancel an export; answers ``cancelled``, ``cancelling``, or the final state it already had."""
        return self.ledger.cancel(export_id)

    def replay(
        self, *export_ids: str, wanted: Filter | None = None, assume: Assumption | None = None
    ) -> list[Replayed]:
        """Give exports that ended without delivery back to the workers, with a fresh attempt budget.

        Receipts and trail stay; a destination that confirmed is not asked again.

        Parameters
        ----------
        *export_ids
            Exports that are dead, unknown or cancelled.
        wanted
            Instead of ids: every dead letter that matches. An empty filter means them all.
        assume
            Settles the doubt about deliveries whose outcome is unknown: ``delivered`` or ``missing``; with a
            filter by destination, at that one alone.

        Raises
        ------
        NoSuchExport
            There is none with one of the ids.
        InvalidInput
            One of the ids needs no replay, or neither ids nor a filter are given.
        """
        if not export_ids and wanted is None:
            raise InvalidInput("replay", "neither ids nor a filter", "Name exports, or give Filter() for all")
        letters = [self.dead_letters.get(export_id, REPLAYABLE) for export_id in export_ids]
        letters += self.dead_letters.find(wanted) if wanted is not None else []
        return self.replay_letters(letters, assume=assume, destination=wanted.destination if wanted else None)

    def replay_letters(
        self, letters: Sequence[ExportStatus], *, assume: Assumption | None = None, destination: str | None = None
    ) -> list[Replayed]:
        """Replay exports as they were seen; those that changed since are left alone."""
        answers = [self.dead_letters.replay(letter, assume=assume, destination=destination) for letter in letters]
        sender = Sender(self._link, self.settings.wake_up_grace)
        wakes = [wake for _, wake, _ in answers if wake is not None]
        sender.ring(sum(count for _, _, count in answers), wakes, Patience(None))
        return [done for done, _, _ in answers]

    def plan(
        self,
        context: ExportContext,
        strategy: str | None = None,
        *,
        destinations: Sequence[str] | None = None,
        priority: str | None = None,
    ) -> Plan:
        """Explain what would happen to a context, from what the running workers announced. Sends nothing."""
        make_manifest(context, self.settings)
        asked = parse_priority(priority) if priority else priority_for(context, 1, self.settings)
        return make_plan(context.instrument_pid, strategy, names_of(destinations), self.ledger.workers(), asked)

    def close(self) -> None:
        """Close every connection."""
        self._submitter.close()
        self._link.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
