"""One submit: what waits is sent first, then this; what Redis does not take in time goes to the outbox."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from labrelay.errors import InvalidInput, LedgerUnavailable, OutboxUnavailable
from labrelay.flushing import BackgroundFlusher, FlushReport, flush
from labrelay.ledger import Answer, Entry
from labrelay.names import EXPORTS_PER_WAKE_UP
from labrelay.outbox import Outbox, Waiting
from labrelay.patience import Helpers, Patience
from labrelay.pipelining import handfuls
from labrelay.results import Submission
from labrelay.sending import Sender, explain_conflict
from labrelay.settings import ProducerSettings

if TYPE_CHECKING:
    from labrelay.link import Link

_logger = logging.getLogger(__name__)

#: Of one call that is waited for: over a slow line, too, it takes a fraction of the patience there is for it.
_TOGETHER, _CHARACTERS_TOGETHER = 2000, 2 * 2**20
#: Of many, so many go first.
_FIRST, _MANY = 2 * EXPORTS_PER_WAKE_UP, 6 * EXPORTS_PER_WAKE_UP
#: Of one submit, for what waited before it; the rest is left to the background or the next one.
_FLUSH_SECONDS = 0.5
#: What Redis has left of this may be spent waiting for neighbours at the outbox: together under three seconds.
_ALL_SECONDS, _LEAST_LOCK_SECONDS = 2.5, 0.5
#: After a silence submits wait only so long, for so long: a loop of a thousand must not wait a thousand times.
_DOUBT_SECONDS, _DOUBT_LASTS = 0.2, 10.0


class Submitter:
    """Takes entries: into the ledger when Redis answers, else into the outbox.

    Parameters
    ----------
    link
        The connections.
    outbox
        Where entries wait.
    settings
        Whether they may, and how long Redis is waited for.
    background_flush
        Send what waits from a thread as soon as Redis is back; else a later submit or a person does.
    """

    def __init__(self, link: Link, outbox: Outbox, settings: ProducerSettings, *, background_flush: bool) -> None:
        self._link, self._outbox, self._settings = link, outbox, settings
        self._sender = Sender(link, settings.wake_up_grace)
        self._flusher = BackgroundFlusher(lambda stop: self.flush(stop=stop)) if background_flush else None
        self._helpers = Helpers()
        self._doubted_until = 0.0
        self._is_spooling = False

    def submit(self, entries: Sequence[Entry], named: Sequence[str], *, replace: bool) -> list[Submission]:
        """Accept entries, in order; `named` are the destinations they are for.

        Raises
        ------
        InvalidInput
            No running worker serves a destination; nothing was accepted.
        LedgerUnavailable
            Redis is away, and the outbox is off or cannot take them.
        """
        # Where no Redis was ever known, an outbox would only hide that.
        spools = self._settings.outbox and self._settings.knows_a_redis
        patience = Patience(self._seconds() if spools else None, self._helpers)
        submitted, began, warnings = time.time(), time.monotonic(), list[str]()
        taken: dict[int, Submission] = {}
        why = "an earlier submission of this session waits"
        try:
            behind = self._catch_up(entries, patience, warnings) if spools else frozenset[str]()
            if named:
                patience.call(lambda: self._refuse_unserved(named))
            ahead = [index for index, entry in enumerate(entries) if entry.export_id not in behind]
            for group in _groups(ahead, entries):
                self._send(entries, group, replace, patience, taken)
            self._doubted_until, self._is_spooling = 0.0, False
        except LedgerUnavailable as error:
            if not spools:
                raise
            why = str(error) if isinstance(error, OutboxUnavailable) else f"Redis is away ({error.reason})"
            if patience.spent >= _DOUBT_SECONDS:
                self._doubted_until = time.monotonic() + _DOUBT_LASTS
        rest = [index for index in range(len(entries)) if index not in taken]
        if rest:
            left = max(_ALL_SECONDS - (time.monotonic() - began), _LEAST_LOCK_SECONDS)
            spooled = [entries[index] for index in rest]
            self._spool(spooled, replace=replace, submitted=submitted, why=why, patience=left)
            taken |= {index: self._spooled(entries[index], why) for index in rest}
        warnings += self._outbox.take_notices()
        return [_with_warnings(taken[index], warnings) for index in range(len(entries))]

    def flush(
        self,
        *,
        stop: Callable[[], bool] = lambda: False,
        progress: Callable[[int, int], None] | None = None,
        patience: float = 0.0,
    ) -> FlushReport:
        """Send what waits in the outbox; see `labrelay.flushing.flush`."""
        return self._noted(
            flush(self._outbox, self._sender.send_again, stop=stop, progress=progress, patience=patience)
        )

    def _noted(self, report: FlushReport) -> FlushReport:
        if report.sent:
            self._doubted_until = 0.0
        if report.conflicts:
            _logger.warning("%d spooled submissions are conflicts; see `labrelay outbox list`", report.conflicts)
        return report

    def close(self) -> None:
        """Stop the background."""
        self._helpers.close()
        if self._flusher is not None:
            self._flusher.stop()

    def _seconds(self) -> float:
        seconds = self._settings.submit_seconds
        return min(seconds, _DOUBT_SECONDS) if time.monotonic() < self._doubted_until else seconds

    def _catch_up(self, entries: Sequence[Entry], patience: Patience, warnings: list[str]) -> frozenset[str]:
        """Send what waits, for a while; return those of these exports that must queue behind what is left."""
        is_asking = False

        def send(batch: Sequence[Waiting]) -> list[Answer]:
            nonlocal is_asking
            is_asking = True
            answers = self._sender.send_again(batch)
            is_asking = False
            return answers

        def flush_briefly() -> FlushReport:
            deadline = time.monotonic() + _FLUSH_SECONDS
            report = self._noted(flush(self._outbox, send, stop=lambda: time.monotonic() >= deadline))
            if report.away:
                raise LedgerUnavailable(report.away, reason=report.away)
            return report

        if self._outbox.is_empty:
            return frozenset()
        behind: frozenset[str] | None = None
        # Of its own: it is the disk, too, that is waited for here, which says nothing of Redis.
        own = Patience(self._seconds(), self._helpers)
        try:
            if not own.call(self._outbox.count):
                return frozenset()
            behind = own.call(lambda: self._waiting(entries))
            report = own.call(flush_briefly)
            if report.conflicts:
                warnings.append(f"{report.conflicts} earlier submissions are conflicts; see `labrelay outbox list`")
            if not report.left:
                return frozenset()
            self._start_flusher()
            return own.call(lambda: self._waiting(entries))
        except OutboxUnavailable as error:
            # Redis may be well: what is submitted now need not suffer.
            warnings.append(str(error))
        except LedgerUnavailable:
            if is_asking:
                patience.spent += own.spent
                raise
            if behind is None:
                # A revision that waits there must not be overtaken, and nobody knows whether one does.
                raise OutboxUnavailable(
                    f"the outbox {self._outbox.path} takes long: its disk is slow, or others use it"
                ) from None
            self._start_flusher()
            # With the half, all of it stays under three seconds.
            patience.spent += own.spent / 2
            return behind
        except Exception:
            # One bad entry of long ago must not refuse every later session.
            _logger.exception("the outbox is not flushed")
            warnings.append("the outbox could not be flushed; `labrelay outbox flush` says why")
        return frozenset()

    def _waiting(self, entries: Sequence[Entry]) -> frozenset[str]:
        kept = self._outbox.entries({entry.export_id for entry in entries})
        return frozenset(spooled.export_id for spooled in kept if spooled.state == "waiting")

    def _refuse_unserved(self, named: Sequence[str]) -> None:
        workers = self._link.ledger.workers()
        served = {info.name for worker in workers for info in worker.destinations}
        for name in named:
            if workers and name not in served:
                raise InvalidInput(
                    "destinations", f"no running worker serves {name!r}", f"Use {', '.join(sorted(served))}"
                )

    def _send(
        self,
        entries: Sequence[Entry],
        indexes: Sequence[int],
        replace: bool,
        patience: Patience,
        taken: dict[int, Submission],
    ) -> None:
        answers, late = self._sender.send([entries[i] for i in indexes], replace=replace, patience=patience)
        for index, answer in zip(indexes, answers, strict=True):
            taken[index] = _answered(entries[index], answer, late)

    def _spool(self, entries: Sequence[Entry], *, replace: bool, submitted: float, why: str, patience: float) -> None:
        try:
            self._outbox.put(entries, replace=replace, submitted=submitted, patience=patience)
        except OutboxUnavailable as error:
            raise type(error)(f"{why}; and {error}") from error
        # Said once: the thousandth of an outage tells an operator nothing new.
        level = logging.DEBUG if self._is_spooling else logging.WARNING
        _logger.log(level, "%s: submissions wait in the outbox %s", why, self._outbox.path)
        self._is_spooling = True
        self._start_flusher()

    def _spooled(self, entry: Entry, why: str) -> Submission:
        warning = (
            f"{why}: kept in the outbox {self._outbox.path}; the next submit or `labrelay outbox flush` sends it"
        )
        return Submission(
            export_id=entry.export_id, outcome="spooled", state="spooled", revision=0, warnings=(warning,)
        )

    def _start_flusher(self) -> None:
        if self._flusher is not None:
            self._flusher.start()


def _groups(ahead: Sequence[int], entries: Sequence[Entry]) -> Iterator[Sequence[int]]:
    """Yield what is sent together. The first are few where many follow: workers begin with them meanwhile."""
    first = _FIRST if len(ahead) > _MANY else 0
    for part in (ahead[:first], ahead[first:]):
        yield from handfuls(part, lambda index: len(entries[index].context), _TOGETHER, _CHARACTERS_TOGETHER)


def _answered(entry: Entry, answer: Answer, late: tuple[str, ...]) -> Submission:
    warnings = (explain_conflict(entry, answer),) if answer.outcome == "conflict" else late
    return Submission(
        export_id=entry.export_id,
        outcome=answer.outcome,
        state=answer.state,
        revision=answer.revision,
        warnings=warnings,
    )


def _with_warnings(submission: Submission, warnings: Sequence[str]) -> Submission:
    """Add what concerns every one; the last warning of a conflict stays its explanation."""
    return submission.model_copy(update={"warnings": (*warnings, *submission.warnings)}) if warnings else submission
