"""Empty the outbox into the ledger: in order, one flusher at a time, now or in the background."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from pydantic import BaseModel, ConfigDict, Field

from labrelay.errors import LabrelayError, LedgerUnavailable
from labrelay.ledger import Answer
from labrelay.outbox import Outbox, Waiting
from labrelay.sending import explain_conflict

_logger = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0
_CLOSE_SECONDS = 0.5


class FlushReport(BaseModel):
    """What a flush did."""

    model_config = ConfigDict(frozen=True)

    sent: int = Field(0, description="entries the ledger has now, or had already")
    conflicts: int = Field(0, description="entries it refused; they stay in the outbox for a person")
    left: int = Field(0, description="entries that still wait")
    away: str = Field("", description="why Redis could not take them")
    busy: bool = Field(False, description="another process was flushing")


def flush(
    outbox: Outbox,
    send: Callable[[Sequence[Waiting]], list[Answer]],
    *,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] | None = None,
    patience: float = 0.0,
) -> FlushReport:
    """Send what waits, oldest first, until nothing does, Redis is away, or `stop` says so.

    Parameters
    ----------
    outbox
        What to empty.
    send
        Hands a batch to the ledger; raises `LedgerUnavailable`.
    stop
        Asked between batches.
    progress
        Told how many entries were settled, and of how many.
    patience
        Seconds to wait while another process flushes.
    """
    sent = conflicts = 0
    with outbox.flush_turn(patience) as mine:
        if not mine:
            return FlushReport(left=outbox.count(), busy=True)
        total = outbox.count()
        while not stop() and (batch := outbox.batch()):
            try:
                answers = send(batch)
            except LedgerUnavailable as error:
                return FlushReport(sent=sent, conflicts=conflicts, left=outbox.count(), away=error.reason)
            refused = {
                waiting.number: explain_conflict(waiting.entry, answer)
                for waiting, answer in zip(batch, answers, strict=True)
                if answer.outcome == "conflict"
            }
            outbox.settle([waiting.number for waiting in batch if waiting.number not in refused], refused)
            sent, conflicts = sent + len(batch) - len(refused), conflicts + len(refused)
            if progress is not None:
                progress(sent + conflicts, max(total, sent + conflicts))
        return FlushReport(sent=sent, conflicts=conflicts, left=outbox.count())


def pause_before(failures: int) -> float:
    """Return the seconds to wait before the next try after so many in a row that sent nothing."""
    return min(_FIRST_PAUSE * 2.0 ** min(failures, 10), _LONGEST_PAUSE)


class BackgroundFlusher:
    """A thread that flushes until nothing waits; it ends then, and with its process.

    Parameters
    ----------
    flush_once
        Sends what it can; is given a function that says when to stop early.
    """

    def __init__(self, flush_once: Callable[[Callable[[], bool]], FlushReport]) -> None:
        self._flush_once = flush_once
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._asked = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Have what waits sent as soon as Redis is back."""
        with self._lock:
            self._asked = True
            # A thread does not survive a fork: its object does.
            if self._stopping.is_set() or (self._thread is not None and self._thread.is_alive()):
                return
            self._thread = threading.Thread(target=self._run, name="labrelay-outbox", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop soon; a call that hangs in Redis is left to its own timeout."""
        self._stopping.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        failures = 0
        while not self._stopping.wait(pause_before(failures)):
            with self._lock:
                self._asked = False
            failures = 0 if self._moves() else failures + 1
            with self._lock:
                if failures == 0 and not self._asked:
                    self._thread = None
                    return

    def _moves(self) -> bool:
        """Flush once; answers whether nothing waits any more."""
        try:
            report = self._flush_once(self._stopping.is_set)
        except LabrelayError as error:
            _logger.warning("the outbox is not flushed: %s", error)
            return False
        except Exception:
            _logger.exception("the outbox is not flushed; `labrelay outbox flush` may say more")
            return False
        return report.left == 0
