"""What an instrument pipeline calls: submit, watch, cancel and plan exports."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from labrelay.archive import Archive, archived_trail
from labrelay.context import ExportContext
from labrelay.deadletters import REPLAYABLE, Assumption, DeadLetters, Filter
from labrelay.errors import ExportConflict, InvalidInput, NoSuchExport, WaitTimeout
from labrelay.ledger import Answer, Entry, Ledger, connect
from labrelay.manifest import Manifest, make_manifest
from labrelay.plans import Plan, make_plan
from labrelay.results import ExportState, ExportStatus, Replayed, Submission, TrailEntry
from labrelay.settings import ProducerSettings, load_settings
from labrelay.strategies import parse_strategy
from labrelay.wakeups import Wake, WakeUps, producer_app

if TYPE_CHECKING:
    from types import TracebackType

_logger = logging.getLogger(__name__)

_PIPELINE = 500
_FIRST_LOOK, _SLOWEST_LOOK = 0.02, 0.5


class Client:
    """Submits exports and reads how they stand. Safe to share between threads; use as a context manager.

    Parameters
    ----------
    settings
        Default: from the environment and ``labrelay.toml``.
    """

    def __init__(self, settings: ProducerSettings | None = None) -> None:
        self.settings = settings or load_settings(ProducerSettings)
        self._redis = connect(self.settings)
        self.ledger = Ledger(self._redis, self.settings.keys, self.settings.wake_up_grace)
        self.dead_letters = DeadLetters(
            self._redis,
            self.settings.keys,
            self.ledger,
            wake_up_grace=self.settings.wake_up_grace,
            archive=Archive(self.settings.archive),
        )
        self._wake_ups = WakeUps(producer_app(self.settings))

    def submit(
        self,
        context: ExportContext,
        strategy: str | None = None,
        *,
        destinations: Sequence[str] | None = None,
        replace: bool = False,
    ) -> Submission:
        """Accept one session for export. Returns once the ledger holds it; submitting it again is harmless.

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

        Raises
        ------
        InvalidInput
            A field or file is not usable; nothing was accepted.
        ExportConflict
            Submitted before with other content, strategy or destinations, and `replace` is not set.
        LedgerUnavailable
            Redis cannot be reached.
        """
        submission = self.submit_many([context], strategy, destinations=destinations, replace=replace)[0]
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
    ) -> list[Submission]:
        """Accept many sessions in few round trips.

        Everything is validated before anything is accepted. A conflict does not stop the others: its
        submission has the outcome ``conflict``.
        """
        chosen = parse_strategy(strategy).value if strategy else ""
        named = tuple(destinations or ())
        manifests = [self._manifest(context) for context in contexts]
        self._refuse_unserved(named)
        submissions: list[Submission] = []
        for start in range(0, len(manifests), _PIPELINE):
            submissions += self._accept(manifests[start : start + _PIPELINE], chosen, named, replace)
        return submissions

    def status(self, export_id: str) -> ExportStatus:
        """Return how an export stands; raises `NoSuchExport`."""
        return self.ledger.status(export_id)

    def trail(self, export_id: str) -> list[TrailEntry]:
        """Return what happened to an export, oldest first; raises `NoSuchExport`."""
        try:
            return self.ledger.trail(export_id)
        except NoSuchExport:
            archived = self.ledger.status(export_id).archived
            if archived is None:
                raise
            return archived_trail(export_id, archived)

    def wait(self, export_id: str, timeout: float | None = None) -> ExportStatus:
        """Wait until labrelay does nothing more about an export by itself.

        Raises
        ------
        WaitTimeout
            It is not finished after `timeout` seconds; it goes on.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = _FIRST_LOOK
        while True:
            status = self.ledger.status(export_id)
            if status.state.is_final:
                return status
            if deadline is not None and time.monotonic() >= deadline:
                raise WaitTimeout(
                    f"export {export_id} is still {status.state} after {timeout:g} s; it goes on by itself"
                )
            time.sleep(pause)
            pause = min(pause * 1.5, _SLOWEST_LOOK)

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
        self._wake([wake for _, wake in answers if wake is not None])
        return [done for done, _ in answers]

    def plan(
        self, context: ExportContext, strategy: str | None = None, *, destinations: Sequence[str] | None = None
    ) -> Plan:
        """Explain what would happen to a context, from what the running workers announced. Sends nothing."""
        make_manifest(context, self.settings)
        return make_plan(context.instrument_pid, strategy, tuple(destinations or ()), self.ledger.workers())

    def close(self) -> None:
        """Close every connection."""
        self._wake_ups.close()
        self._redis.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _manifest(self, context: ExportContext) -> Manifest:
        manifest = make_manifest(context, self.settings)
        size, limit = len(manifest.context.to_json().encode()), self.settings.max_context_bytes
        if size > limit:
            raise InvalidInput(
                "context",
                f"{size / 2**20:.1f} MiB exceed the limit of {limit / 2**20:g} MiB",
                "Keep data in files and name them, or raise LABRELAY_MAX_CONTEXT_BYTES",
            )
        return manifest

    def _refuse_unserved(self, named: tuple[str, ...]) -> None:
        if not named:
            return
        workers = self.ledger.workers()
        served = {info.name for worker in workers for info in worker.destinations}
        for name in named:
            if workers and name not in served:
                raise InvalidInput(
                    "destinations", f"no running worker serves {name!r}", f"Use {', '.join(sorted(served))}"
                )

    def _accept(
        self, manifests: Sequence[Manifest], strategy: str, named: tuple[str, ...], replace: bool
    ) -> list[Submission]:
        entries = [
            Entry(
                export_id=manifest.context.export_id,
                digest=manifest.digest,
                context=manifest.context.to_json(),
                session=manifest.context.session_identifier,
                instrument=manifest.context.instrument_pid,
                strategy=strategy,
                destinations=named,
            )
            for manifest in manifests
        ]
        answers = self.ledger.submit(entries, replace=replace)
        wakes = [
            Wake(entry.export_id, entry.session, entry.instrument, strategy)
            for entry, answer in zip(entries, answers, strict=True)
            if answer.outcome in ("accepted", "replaced")
        ]
        late = self._wake(wakes)
        submissions = []
        for entry, manifest, answer in zip(entries, manifests, answers, strict=True):
            warnings = manifest.warnings + late
            if answer.outcome == "conflict":
                warnings = (_conflict(entry, answer),)
            submissions.append(
                Submission(
                    export_id=entry.export_id,
                    outcome=answer.outcome,
                    state=answer.state,
                    revision=answer.revision,
                    warnings=warnings,
                )
            )
        return submissions

    def _wake(self, wakes: Sequence[Wake]) -> tuple[str, ...]:
        from kombu.exceptions import OperationalError  # noqa: PLC0415

        try:
            self._wake_ups.publish(wakes)
        except (OperationalError, OSError) as error:
            # The row is in the ledger: the reconciler wakes it when its due time comes.
            _logger.warning("wake-up not sent (%s); a worker picks the export up by itself", type(error).__name__)
            return (f"the wake-up may be lost; a worker picks it up within {self.settings.wake_up_grace:g} s",)
        return ()


def _conflict(entry: Entry, answer: Answer) -> str:
    return (
        f"session {entry.session} was submitted before with other {answer.differs} (export {entry.export_id}, "
        f"revision {answer.revision}); pass replace=True (--replace) to make a new revision"
    )


@functools.cache
def default_client() -> Client:
    """Return the process's client with settings from the environment."""
    return Client()


def submit(
    context: ExportContext,
    strategy: str | None = None,
    *,
    destinations: Sequence[str] | None = None,
    replace: bool = False,
) -> Submission:
    """See `Client.submit`."""
    return default_client().submit(context, strategy, destinations=destinations, replace=replace)


def submit_many(
    contexts: Iterable[ExportContext],
    strategy: str | None = None,
    *,
    destinations: Sequence[str] | None = None,
    replace: bool = False,
) -> list[Submission]:
    """See `Client.submit_many`."""
    return default_client().submit_many(contexts, strategy, destinations=destinations, replace=replace)


def status(export_id: str) -> ExportStatus:
    """See `Client.status`."""
    return default_client().status(export_id)


def wait(export_id: str, timeout: float | None = None) -> ExportStatus:
    """See `Client.wait`."""
    return default_client().wait(export_id, timeout)


def cancel(export_id: str) -> str:
    """See `Client.cancel`."""
    return default_client().cancel(export_id)


def plan(context: ExportContext, strategy: str | None = None, *, destinations: Sequence[str] | None = None) -> Plan:
    """See `Client.plan`."""
    return default_client().plan(context, strategy, destinations=destinations)


__all__ = ["Client", "ExportState", "cancel", "plan", "status", "submit", "submit_many", "wait"]
