"""Submit what NexusLIMS built and did not export, and tell it how its exports ended.

``BUILT_NOT_EXPORTED`` is terminal in NexusLIMS: nothing there selects it, no command exports it again. Running this
again is harmless: a session is one export, and an outcome is one row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from labrelay.client import Client
from labrelay.context import ExportContext, export_id_of
from labrelay.errors import ExportConflict, InvalidInput, LedgerUnavailable, NoSuchExport
from labrelay.nexuslims.database import BUILT_NOT_EXPORTED, COMPLETED, LoggedSession, NexusDatabase
from labrelay.nexuslims.environment import nexuslims_settings
from labrelay.nexuslims.outcomes import finished, may_replace
from labrelay.nexuslims.records import Folders, context_of_session, move_uploaded
from labrelay.nexuslims.staging import stage, tidy
from labrelay.process_client import default_client
from labrelay.results import ExportResult, ExportState, ExportStatus


class SweptSession(BaseModel):
    """What a sweep did with one session."""

    model_config = ConfigDict(frozen=True)

    session_identifier: str
    instrument_pid: str
    outcome: str = Field(description="submitted, known, would submit, or refused")
    state: str = Field("", description="of its export")
    export_id: str = ""
    record: str = ""
    written: int = Field(0, description="rows written or changed in NexusLIMS's database")
    reason: str = Field("", description="why it was refused, and the cure")


class SweepReport(BaseModel):
    """What a sweep found and did."""

    model_config = ConfigDict(frozen=True)

    sessions: tuple[SweptSession, ...] = ()
    away: str = Field("", description="why the sweep ended early: Redis or the database is away")

    @property
    def refused(self) -> tuple[SweptSession, ...]:
        """Sessions that need a person."""
        return tuple(session for session in self.sessions if session.outcome == "refused")


def sweep(
    db_path: str | Path,
    *,
    write_back: bool = False,
    dry_run: bool = False,
    records: str | Path | None = None,
    strategy: str | None = None,
    destinations: Sequence[str] | None = None,
    settings: Mapping[str, str] | None = None,
    client: Client | None = None,
) -> SweepReport:
    """Submit every session that NexusLIMS left ``BUILT_NOT_EXPORTED``.

    Parameters
    ----------
    db_path
        NexusLIMS's database, the file of ``NX_DB_PATH``.
    write_back
        Also write what is finished into NexusLIMS's ``upload_log``, set delivered sessions ``COMPLETED`` and move
        their records to ``uploaded``, as NexusLIMS does. Sessions that it holds for completed because labrelay had
        accepted them, and that ended undelivered, go back to ``BUILT_NOT_EXPORTED``.
    dry_run
        Say what would be submitted; change nothing anywhere.
    records
        Folder of the records; default: as NexusLIMS's settings say.
    strategy, destinations
        As for `labrelay.Client.submit`; the strategy defaults to ``NX_EXPORT_STRATEGY``.
    settings
        NexusLIMS's ``NX_*`` settings; default: from the environment and ``.env``.
    client
        Default: the process's own.

    Raises
    ------
    InvalidInput
        The database or the folder of records is not what it should be.
    DatabaseUnusable
        The database is locked.
    """
    known = nexuslims_settings() if settings is None else settings
    folders = Folders.of(known, None if records is None else Path(records))
    database = NexusDatabase(Path(db_path))
    chosen = strategy or known.get("NX_EXPORT_STRATEGY")
    relay = client or default_client()
    swept: list[SweptSession] = []
    if not dry_run:
        tidy(folders.records, relay)
    for session in database.sessions(BUILT_NOT_EXPORTED, *([COMPLETED] if write_back else [])):
        try:
            one = _sweep_one(session, folders, relay, database, chosen, destinations, dry_run=dry_run)
            if one is not None and write_back and not dry_run:
                one = _write_back(one, session, folders, relay, database)
        except (InvalidInput, ExportConflict) as error:
            one = _swept(session, "refused", reason=str(error))
        except LedgerUnavailable as error:
            return SweepReport(sessions=tuple(swept), away=str(error))
        if one is not None and (session.status == BUILT_NOT_EXPORTED or one.written):
            swept.append(one)
    return SweepReport(sessions=tuple(swept))


def _sweep_one(
    session: LoggedSession,
    folders: Folders,
    client: Client,
    database: NexusDatabase,
    strategy: str | None,
    destinations: Sequence[str] | None,
    *,
    dry_run: bool,
) -> SweptSession | None:
    """Submit one session, unless it is an export already; None: it is completed, and none of labrelay's."""
    earlier = _status(client, session)
    if session.status == COMPLETED:
        return None if earlier is None else _swept(session, "known", earlier)
    # A record that is there only as its staged copy was accepted before and moved.
    if earlier is not None and not may_replace(earlier):
        return _swept(session, "known", earlier)
    try:
        context = context_of_session(session, folders)
    except InvalidInput:
        if earlier is None:
            raise
        return _swept(session, "known", earlier)
    done = database.own_successes(session)
    if done:
        destinations = _remaining(context, destinations, done, client)
        context = context.model_copy(update={"previous_results": done})
    if dry_run:
        return _swept(session, "would submit", earlier, record=str(context.xml_file_path))
    staged = stage(context.xml_file_path, context.export_id, folders.records)
    submission = client.submit(
        context.model_copy(update={"xml_file_path": staged}), strategy, destinations=destinations, replace=True
    )
    return SweptSession(
        session_identifier=session.identifier,
        instrument_pid=session.instrument,
        outcome="known" if submission.is_duplicate else "submitted",
        state=str(submission.state),
        export_id=submission.export_id,
        record=str(context.xml_file_path),
    )


def _remaining(
    context: ExportContext, named: Sequence[str] | None, done: Mapping[str, ExportResult], client: Client
) -> list[str]:
    """Return the destinations that NexusLIMS had not delivered to.

    Raises
    ------
    InvalidInput
        None is left, or nobody says which there are.
    """
    wanted = list(named or ())
    if not wanted and client.ledger.workers():
        wanted = [step.destination for step in client.plan(context).steps if step.runs]
    if not wanted:
        raise InvalidInput(
            context.session_identifier,
            f"NexusLIMS delivered it to {', '.join(done)}, and no worker says what other destinations there are",
            "Start a worker, or name destinations",
        )
    if left := [name for name in wanted if name not in done]:
        return left
    raise InvalidInput(
        context.session_identifier,
        f"NexusLIMS delivered it to every destination ({', '.join(done)})",
        "Set its record_status to COMPLETED",
    )


def _write_back(
    one: SweptSession, session: LoggedSession, folders: Folders, client: Client, database: NexusDatabase
) -> SweptSession:
    status = _status(client, session)
    if status is None or not status.state.is_final:
        return one
    delivered = status.state is ExportState.DELIVERED
    wanted = COMPLETED if delivered else BUILT_NOT_EXPORTED
    outcomes = [(_mark(status, result), result) for result in finished(status)]
    written = database.write_back(session, wanted if wanted != session.status else None, outcomes)
    if delivered and session.status == BUILT_NOT_EXPORTED:
        move_uploaded(session, folders)
    return one.model_copy(update={"written": written, "state": str(status.state)})


def _mark(status: ExportStatus, result: ExportResult) -> str:
    """Return what makes an outcome this one: a later attempt that fails in another way is another."""
    tail = "delivered" if result.success else f"{status.state}.{result.error_message}"
    return f"{status.export_id}.{status.revision}.{result.destination_name}.{tail}"


def _status(client: Client, session: LoggedSession) -> ExportStatus | None:
    try:
        return client.status(export_id_of(session.instrument, session.identifier))
    except NoSuchExport:
        return None


def _swept(
    session: LoggedSession, outcome: str, status: ExportStatus | None = None, *, record: str = "", reason: str = ""
) -> SweptSession:
    return SweptSession(
        session_identifier=session.identifier,
        instrument_pid=session.instrument,
        outcome=outcome,
        state="" if status is None else str(status.state),
        export_id="" if status is None else status.export_id,
        record=record,
        reason=reason,
    )
