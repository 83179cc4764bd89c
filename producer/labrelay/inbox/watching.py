"""Watch a folder: look, wait until a record and all its files stand still, submit it, remember that."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from labrelay.errors import InvalidInput, LedgerUnavailable, StillBeingWritten
from labrelay.inbox.looking import DEFAULT_PATTERNS, Stand, arriving, records_in, stand_of
from labrelay.inbox.memory import Memory, Remembered
from labrelay.inbox.settling import Pending, seen
from labrelay.inputs import read_contexts
from labrelay.manifest import paths_of

if TYPE_CHECKING:
    from labrelay.client import Client
    from labrelay.results import Submission

#: Seconds between two tries to send what had to go to the outbox.
_FLUSH_EVERY = 5.0


class WatchEvent(BaseModel):
    """Something that people want to know of a record, or of the folder (``record`` empty)."""

    model_config = ConfigDict(frozen=True)

    event: Literal["submitted", "refused", "waiting", "gone", "notice"]
    record: str = ""
    outcome: str = ""
    export_ids: tuple[str, ...] = ()
    said: str = ""


@dataclass(frozen=True)
class WatchOptions:
    """How a folder is watched.

    Parameters
    ----------
    patterns
        Shell patterns of record names.
    settle
        Seconds for which a record and all its files must not change.
    root
        Folder that relative paths in records start from.
    strategy, destinations, priority
        As with `labrelay.submit`.
    replace
        Submit a changed record as a new revision; otherwise it is refused.
    """

    root: Path
    patterns: tuple[str, ...] = DEFAULT_PATTERNS
    settle: float = 5.0
    strategy: str | None = None
    destinations: tuple[str, ...] = ()
    replace: bool = False
    priority: str | None = None


class FolderWatch:
    """One watched folder. Call `look` again and again.

    Parameters
    ----------
    folder
        The folder, absolute.
    client
        Submits.
    memory
        What became of earlier records.
    options
        How.
    tell
        Told what happens, each thing once.
    clock
        Seconds that only grow.
    """

    def __init__(
        self,
        folder: Path,
        client: Client,
        memory: Memory,
        options: WatchOptions,
        *,
        tell: Callable[[WatchEvent], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._client, self._memory, self._options = folder, client, memory, options
        self._tell, self._clock = tell, clock
        self._known = memory.all()
        self._refused_before = {record for record, known in self._known.items() if known.outcome == "refused"}
        self._pending: dict[str, Pending] = {}
        self._troubles: set[str] = set()
        self._flushed_at = float("-inf")
        if memory.notice:
            tell(WatchEvent(event="notice", said=memory.notice))

    @property
    def pending(self) -> list[str]:
        """Records that are there and not complete, or could not be handed over yet."""
        return sorted(self._pending)

    @property
    def refused(self) -> list[Remembered]:
        """Records that are there and cannot be submitted as they are."""
        return [known for known in self._known.values() if known.outcome == "refused"]

    @property
    def is_kept_waiting(self) -> bool:
        """Whether complete records could not be handed over, because neither ledger nor outbox took them."""
        return "ledger" in self._troubles

    def look(self, stop: Callable[[], bool] = lambda: False) -> None:
        """Look at every record once, and submit those that are complete; `stop` ends it between two records.

        Raises
        ------
        InvalidInput
            The memory cannot be written, so that nothing could be relied on after a restart.
        """
        self._send_what_waits()
        try:
            found = dict(records_in(self._folder, self._options.patterns))
        except OSError as error:
            self._once("folder", f"{self._folder} cannot be listed ({error.strerror}); it is looked for again")
            return
        self._troubles.discard("folder")
        self._note_gone(found)
        for record, stand in found.items():
            if stop():
                return
            if self._is_new(record, stand):
                self._step(record, stand)

    # --- what is new -------------------------------------------------------------------------------------

    def _is_new(self, record: str, stand: Stand) -> bool:
        known = self._known.get(record)
        if record in self._pending or known is None or known.outcome == "seen" or known.stand != stand:
            return True
        if known.is_submitted:
            return False
        # Settings may have been corrected before a restart; or a file that was missing has come.
        return record in self._refused_before or known.files != _stands(known.files)

    def _note_gone(self, found: Mapping[str, Stand]) -> None:
        gone = [record for record in self._known if record not in found]
        for record in gone:
            known = self._known.pop(record)
            self._pending.pop(record, None)
            if not known.is_submitted:
                self._tell(WatchEvent(event="gone", record=record, said="removed before it was submitted"))
        if gone:
            self._memory.forget(gone)

    # --- one record, one look ------------------------------------------------------------------------------

    def _step(self, record: str, stand: Stand) -> None:
        now = self._clock()
        pending = seen(self._pending.get(record), stand, now)
        if record not in self._known:
            self._remember(Remembered(record=record, stand=stand, outcome="seen"))
        self._refused_before.discard(record)
        if pending.is_worth_reading:
            pending = self._read(record, pending)
        if pending.contexts is not None:
            named = {path for context in pending.contexts for path in paths_of(context)}
            pending = pending.with_files({path: stand_of(path) for path in named}, now)
        self._pending[record] = pending
        if pending.is_complete(self._options.settle, now):
            self._hand_over(record, pending)

    def _read(self, record: str, pending: Pending) -> Pending:
        limit = self._client.settings.max_context_bytes
        try:
            contexts = tuple(read_contexts(str(self._folder / record), root=self._options.root, limit=limit))
        except Exception as error:  # noqa: BLE001  one odd record must not end the watch over the others
            return replace(pending, problem=error)
        return replace(pending, contexts=contexts)

    def _hand_over(self, record: str, pending: Pending) -> None:
        if pending.problem is not None:
            self._refuse(record, pending, str(pending.problem))
            return
        if coming := arriving(pending.files):
            # Its copy may stand still for a while, as slow networks do.
            self._pending[record] = replace(pending, since=self._clock())
            said = (
                f"{record}: a partial copy of {coming[0].name} lies beside it; remove one that nobody writes any more"
            )
            self._once(f"arriving {record}", said, "waiting")
            return
        try:
            submissions = self._client.submit_many(
                pending.contexts or (),
                self._options.strategy,
                destinations=self._options.destinations or None,
                replace=self._options.replace,
                priority=self._options.priority,
            )
        except StillBeingWritten:
            self._pending[record] = replace(pending, since=self._clock())
        except LedgerUnavailable as error:
            # It stays pending, and is handed over again at the next look.
            self._once("ledger", " ".join(str(error).split()), "waiting")
        except InvalidInput as error:
            if error.field == "destinations":  # a worker that serves them may start later
                self._once("ledger", str(error), "waiting")
            else:
                self._refuse(record, pending, str(error))
        except Exception as error:  # noqa: BLE001  see `_read`
            self._refuse(record, pending, f"{type(error).__name__}: {error}")
        else:
            self._troubles -= {"ledger", f"arriving {record}"}
            self._settle(record, pending, submissions)

    def _settle(self, record: str, pending: Pending, submissions: Sequence[Submission]) -> None:
        ids = tuple(submission.export_id for submission in submissions)
        conflicts = [submission.warnings[-1] for submission in submissions if submission.outcome == "conflict"]
        if conflicts:
            self._refuse(record, pending, f"{conflicts[0]} (or watch with --replace)", ids)
            return
        outcomes = {submission.outcome for submission in submissions}
        outcome = outcomes.pop() if len(outcomes) == 1 else "accepted"
        del self._pending[record]
        self._remember(Remembered(record=record, stand=pending.stand, outcome=outcome, export_ids=ids))
        said = "; ".join(dict.fromkeys(w for submission in submissions for w in submission.warnings))
        self._tell(WatchEvent(event="submitted", record=record, outcome=outcome, export_ids=ids, said=said))

    def _refuse(self, record: str, pending: Pending, reason: str, ids: tuple[str, ...] = ()) -> None:
        files = {str(path): stand for path, stand in pending.files.items()}
        refused = Remembered(
            record=record,
            stand=pending.stand,
            outcome="refused",
            export_ids=ids,
            files=files,
            reason=" ".join(reason.split()),
        )
        before = self._known[record]
        del self._pending[record]
        self._remember(refused)
        if refused.model_copy(update={"at": before.at}) != before:  # else it was told before a restart
            self._tell(WatchEvent(event="refused", record=record, export_ids=ids, said=refused.reason))

    # --- beside the records ----------------------------------------------------------------------------------

    def _remember(self, what: Remembered) -> None:
        self._known[what.record] = self._memory.put(what)

    def _once(self, what: str, said: str, event: Literal["waiting", "notice"] = "notice") -> None:
        if what not in self._troubles:
            self._troubles.add(what)
            self._tell(WatchEvent(event=event, said=said))

    def _send_what_waits(self) -> None:
        """Send what earlier records had to leave in the outbox, even if no new record comes."""
        if self._clock() - self._flushed_at < _FLUSH_EVERY:
            return
        self._flushed_at = self._clock()
        try:
            if not self._client.outbox.count():
                return
            report = self._client.flush(patience=0.0)
        except LedgerUnavailable as error:
            self._once("outbox", " ".join(str(error).split()))
            return
        if report.sent:
            self._tell(WatchEvent(event="notice", said=f"{report.sent} submissions left the outbox"))
        if report.conflicts:
            self._tell(
                WatchEvent(
                    event="notice",
                    said=f"{report.conflicts} submissions of the outbox are conflicts; `labrelay outbox list`",
                )
            )


def _stands(paths: Iterable[str]) -> dict[str, Stand]:
    return {path: stand_of(Path(path)) for path in paths}
