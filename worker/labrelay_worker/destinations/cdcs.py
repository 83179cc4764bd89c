"""Destination `cdcs`: publish the record in a CDCS repository (NIST's Configurable Data Curation System, NexusLIMS).

A delivery looks for the session's record, makes or changes it, puts it into its workspace, gives it to its owner and
reads it back. CDCS has no unique names: the title is the key, and PIDs where the server gives them.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import ClassVar

from labrelay.context import ExportContext, ReservationEvent
from labrelay.errors import Misconfigured, OutcomeUnknown, Transient
from labrelay.results import ExportResult, Receipt
from labrelay_worker.destinations.base import Destination, Options
from labrelay_worker.destinations.cdcs_answers import MissingRight, NotThere, PidTaken, WorkspaceRefused
from labrelay_worker.destinations.cdcs_api import CdcsApi
from labrelay_worker.destinations.cdcs_check import check, headers_of
from labrelay_worker.destinations.cdcs_kinship import (
    Kinship,
    StoredRecord,
    Titles,
    free_title,
    kinship,
    pid_of,
    titles_of,
)
from labrelay_worker.destinations.cdcs_options import CdcsOptions
from labrelay_worker.destinations.cdcs_owner import find_or_create_user, find_user
from labrelay_worker.destinations.cdcs_record import MIB, RecordText, read_record
from labrelay_worker.destinations.cdcs_schema import Schemas
from labrelay_worker.destinations.cdcs_target import Target, choose_template, choose_workspace, pid_prefix
from labrelay_worker.destinations.findings import Finding, differs, equal, missing
from labrelay_worker.http import HttpClient

#: A delivery makes about five requests; one of them may take its full time, hardly all.
_REQUESTS = 4


class CdcsDestination(Destination):
    """Publishes in CDCS; a new revision changes the record in place."""

    name = "cdcs"
    priority = 100
    Options: ClassVar[type[Options]] = CdcsOptions

    def __init__(self, name: str, options: CdcsOptions) -> None:
        super().__init__(name, options)
        self.timeout = _REQUESTS * options.timeout
        self._options: CdcsOptions = options
        self._http = HttpClient(
            tls=options.tls, timeout=options.timeout, headers=headers_of(options), before=self._pace
        )
        self._api = CdcsApi(str(options.url), self._http)
        self._schemas = Schemas(self._api.schema)
        self._target: tuple[float, Target] | None = None

    def validate_config(self) -> tuple[bool, str | None]:
        """Return whether the server takes records as the options say; every wrong option is named with its cure."""
        return asyncio.run(check(self._options))

    async def export(self, context: ExportContext) -> ExportResult:
        """Publish the record, or complete what an earlier attempt left."""
        return await self._deliver(context, context.previous_receipts.get(self.name))

    async def update(self, context: ExportContext, receipt: Receipt) -> ExportResult:
        """Change the previous revision's record in place; one that somebody deleted is made anew."""
        return await self._deliver(context, receipt)

    async def find(self, context: ExportContext) -> ExportResult | None:
        """Return the result if the record is there as this revision has it, published and owned as it should be."""
        session = await self._session(context, context.previous_receipts.get(self.name))
        found, _ = await self._look(session)
        if found is None:
            return None
        owner = await find_user(self._api, session.reservation) if session.reservation else ""
        held = await asyncio.to_thread(session.as_sent_to(found).is_held_by, found.text)
        if owner is None or _missing(found, held, session.target, owner):
            return None
        return self._result(session, found, held)

    async def check(self, context: ExportContext, receipt: Receipt) -> Finding:
        """Read the record of the receipt back and compare it, and whether people still find it."""
        stored = await self._api.record(receipt.record_id) if receipt.record_id else None
        if stored is None:
            return missing(f"record {receipt.record_id} is not there")
        sent = await asyncio.to_thread(read_record, context, longest=int(self._options.max_record_mib * MIB))
        pid = str(receipt.metadata.get("pid") or "")
        held = await asyncio.to_thread(sent.with_pid(pid).is_held_by, stored.text)
        if not held:
            return differs(f"record {stored.record_id} reads back with other content")
        if receipt.metadata.get("workspace") and not stored.workspace:
            return differs(f"record {stored.record_id} is in no workspace any more, so it is private")
        return equal(f"read back: {held}")

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()

    async def _pace(self) -> None:
        await self.account.pace()  # the worker exchanges the account after this object was made

    async def _deliver(self, context: ExportContext, receipt: Receipt | None) -> ExportResult:
        session = await self._session(context, receipt)
        # Two that look at the same moment would make two records.
        async with self.account.lock(f"cdcs record {session.titles.plain}"):
            found, occupants = await self._look(session)
            sent = session.as_sent_to(found)
            await self._schemas.require_valid(sent, found.template if found else session.target.template.current)
            owner = (
                await find_or_create_user(self._api, self.account, session.reservation) if session.reservation else ""
            )
            if found is None:
                found = await self._create(session, sent, free_title(occupants, session.titles, context))
            await self._complete(session, sent, found, owner)
        return await self._read_back(session, sent, found.record_id, owner)

    async def _session(self, context: ExportContext, receipt: Receipt | None) -> _Session:
        longest = int(self._options.max_record_mib * MIB)
        record = await asyncio.to_thread(read_record, context, longest=longest)
        target = await self._choose()
        pid = f"{target.pid_prefix}{pid_of(context)}" if target.pid_prefix else ""
        reservation = context.reservation_event if self._options.assign_owner else None
        reserved = reservation if reservation is not None and reservation.username else None
        return _Session(context, receipt, record, titles_of(context), target, pid, reserved)

    async def _choose(self) -> Target:
        if self._target is not None and time.monotonic() - self._target[0] < self._options.refresh_seconds:
            return self._target[1]
        self._api.forget_rights()
        options = self._options
        template = choose_template(await self._api.templates(), options.template)
        workspaces = [] if options.workspace == "" else await self._api.workspaces()
        prefix = pid_prefix(await self._api.pid_settings(), self._api.base, options.pid_prefix)
        target = Target(template, choose_workspace(workspaces, options.workspace), prefix)
        self._target = (time.monotonic(), target)
        return target

    async def _look(self, session: _Session) -> tuple[StoredRecord | None, list[tuple[StoredRecord, Kinship]]]:
        """Return the session's record, if there is one, else whose the records are that have its plain title."""
        if session.receipt is not None and session.receipt.record_id:
            found = await self._api.record(session.receipt.record_id)
            if found is not None:
                return found, []
        titles = session.titles
        occupants: list[tuple[StoredRecord, Kinship]] = []
        for title in dict.fromkeys((titles.plain, titles.own)):
            for stored in await self._api.records_titled(title):
                whose = await asyncio.to_thread(kinship, stored, session.record, titles, pid_of(session.context))
                if whose is Kinship.SAME:
                    return stored, []
                occupants.append((stored, whose))
        if session.pid:  # a curator may have given it another title
            for stored in await self._api.records_with_pid(session.record.own_pid or session.pid):
                return stored, []
        return None, occupants

    async def _create(self, session: _Session, sent: RecordText, title: str) -> StoredRecord:
        workspace = session.target.workspace
        template, place = session.target.template.current, workspace.workspace_id if workspace else ""
        try:
            try:
                return await self._api.create(template, title, sent.text, workspace=place)
            except WorkspaceRefused:
                return await self._api.create(template, title, sent.text, workspace="")
        except PidTaken:
            for stored in await self._api.records_with_pid(sent.pid):
                return stored
            raise
        except MissingRight as error:
            raise self._may_not_publish(session.target, error) from None
        except NotThere as error:
            raise self._stale(error) from None

    async def _complete(self, session: _Session, sent: RecordText, found: StoredRecord, owner: str) -> None:
        changes = {}
        if not await asyncio.to_thread(sent.is_held_by, found.text):
            changes["xml_content"] = sent.text
        if title := await self._new_title(session, found):
            changes["title"] = title
        if changes:
            await self._api.change(found.record_id, changes)
        try:
            # A record that somebody moved to another workspace stays there.
            if session.target.workspace and not found.workspace:
                await self._api.assign(found.record_id, session.target.workspace.workspace_id)
            if owner and found.owner != owner:
                await self._api.give_to(found.record_id, owner)
        except MissingRight as error:
            raise self._may_not_publish(session.target, error) from None
        except NotThere as error:
            raise self._stale(error) from None

    async def _new_title(self, session: _Session, found: StoredRecord) -> str:
        """Return the title to give to a record whose file was renamed since; empty: it keeps its own."""
        titles, receipt = session.titles, session.receipt
        known = receipt.metadata.get("title") if receipt is not None else None
        if found.title in (titles.plain, titles.own) or found.title != known:
            return ""  # right already, or somebody chose it by hand
        return titles.own if await self._api.records_titled(titles.plain) else titles.plain

    async def _read_back(self, session: _Session, sent: RecordText, record_id: str, owner: str) -> ExportResult:
        stored = await self._api.record(record_id)
        if stored is None:
            raise OutcomeUnknown(f"record {record_id} was made or changed, but is not there to be read back")
        held = await asyncio.to_thread(sent.is_held_by, stored.text)
        missing = _missing(stored, held, session.target, owner)
        if missing:
            raise OutcomeUnknown(f"record {record_id} was sent, but reads back {' and '.join(missing)}")
        return self._result(session, stored, held)

    def _result(self, session: _Session, stored: StoredRecord, held: str) -> ExportResult:
        place = f", in workspace {stored.workspace}" if stored.workspace else ", private"
        result = self.succeeded(
            stored.record_id, f"{self._api.base}data?id={stored.record_id}", verified=f"read back: {held}{place}"
        )
        more = {
            "title": stored.title,
            "template": stored.template,
            "workspace": stored.workspace,
            "owner": stored.owner,
            "pid": session.as_sent_to(stored).pid,
        }
        return result.model_copy(update={"metadata": {**result.metadata, **{k: v for k, v in more.items() if v}}})

    def _stale(self, error: NotThere) -> Transient:
        self._target = None  # what was remembered of the server is no longer true
        return Transient(f"{error}; templates and workspaces are read anew at the next attempt")

    def _may_not_publish(self, target: Target, error: MissingRight) -> Misconfigured:
        place = f"into workspace {target.workspace}" if target.workspace else "records of this template"
        return Misconfigured(
            f"{error}. The token's account may not publish {place}: give it that right in CDCS, use a superuser's"
            ' token, or set workspace = "" to keep records private'
        )


@dataclass(frozen=True)
class _Session:
    """What is to be delivered, and where."""

    context: ExportContext
    receipt: Receipt | None
    record: RecordText
    titles: Titles
    target: Target
    pid: str
    #: Names the person who shall own the record; None: it stays with the uploader.
    reservation: ReservationEvent | None

    def as_sent_to(self, stored: StoredRecord | None) -> RecordText:
        """Return the record with its PID; a stored one keeps the PID that it has."""
        return self.record.with_pid((stored.pid if stored else "") or self.pid)


def _missing(stored: StoredRecord, held: str, target: Target, owner: str) -> list[str]:
    """Return what a stored record lacks."""
    return [
        lack
        for lack, lacks in (
            ("with other content", not held),
            ("in no workspace", target.workspace is not None and not stored.workspace),
            ("with another owner", bool(owner) and stored.owner != owner),
        )
        if lacks
    ]
