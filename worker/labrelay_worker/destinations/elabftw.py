"""Destination `elabftw`: one experiment per session, with the record attached."""

from __future__ import annotations

import asyncio
import json
from contextlib import AbstractAsyncContextManager
from typing import ClassVar

from pydantic import ByteSize, Field, HttpUrl, SecretStr

from labrelay.context import ExportContext
from labrelay.errors import Conflict, Misconfigured, Rejected, Transient
from labrelay.results import ExportResult, Receipt
from labrelay_worker.destinations import elabftw_entry as entries
from labrelay_worker.destinations.base import Destination, Options
from labrelay_worker.destinations.elabftw_answers import ARCHIVED, DELETED, NORMAL, Entry, JsonObject
from labrelay_worker.destinations.elabftw_api import ElabApi
from labrelay_worker.destinations.elabftw_checks import CHECK_SECONDS, Expected, own_key, what_is_wrong
from labrelay_worker.destinations.elabftw_entry import Wanted
from labrelay_worker.destinations.findings import Finding, differs, equal, missing
from labrelay_worker.http import HttpClient
from labrelay_worker.tls import TlsOptions

#: What a form needs round the file.
_FORM = 4096
#: Requests of an ordinary delivery that may each take nearly the time of one.
_SLOW_REQUESTS = 5


class ElabOptions(Options):
    """Options of ``type = "elabftw"``."""

    url: HttpUrl = Field(description="address of the server, as people open it")
    api_key: SecretStr = Field(min_length=1, description="of a user who may write; Settings, API keys")
    team: int | None = Field(None, ge=1, description="team that the key must belong to")
    category: int | None = Field(None, ge=1, description="id of the category of new experiments")
    status: int | None = Field(None, ge=1, description="id of the status of new experiments")
    title_prefix: str = Field("NexusLIMS Experiment - ", max_length=200, description="before the record's name")
    tags: bool = Field(True, description="tag with NexusLIMS, the instrument and the user")
    attach_previews: bool = Field(False, description="attach the preview images too")
    max_upload: ByteSize = Field(
        ByteSize(100 * 2**20), ge=2 * _FORM, description="largest request the server takes (its MAX_UPLOAD_SIZE)"
    )
    timeout: float = Field(60.0, gt=0, description="seconds for one request")
    tls: TlsOptions = Field(default_factory=TlsOptions)

    @property
    def base(self) -> str:
        """The address without a slash at its end, and without the API's path if that was given."""
        return str(self.url).rstrip("/").removesuffix("/api/v2").rstrip("/")


class ElabDestination(Destination):
    """Looks first, then makes, completes and verifies; each step can be repeated without making a second object."""

    name = "elabftw"
    priority = 85
    waits_for = ("cdcs",)
    Options: ClassVar[type[Options]] = ElabOptions

    def __init__(self, name: str, options: ElabOptions) -> None:
        super().__init__(name, options)
        self._options: ElabOptions = options
        self.timeout = options.timeout * _SLOW_REQUESTS
        self._http = self._client(options.timeout, paced=True)
        self._api = ElabApi(self._http, options.base)

    def validate_config(self) -> tuple[bool, str | None]:
        """Ask the server about the key, its rights, the team, the category and the status; changes nothing."""
        options = self._options
        expected = Expected(
            api_key=options.api_key.get_secret_value(),
            team=options.team,
            category=options.category,
            status=options.status,
            tags=options.tags,
        )

        async def ask() -> str | None:
            async with self._client(min(CHECK_SECONDS, options.timeout)) as http:
                return await what_is_wrong(ElabApi(http, options.base), expected)

        wrong = asyncio.run(ask())
        return wrong is None, wrong

    async def export(self, context: ExportContext) -> ExportResult:
        """Make the experiment, or complete the one that an earlier try made."""
        want = await self._wanted(context)
        async with self._alone(want):
            entry = await self._look_up(want.key) or await self._read(await self._make(want))
            return await self._complete(entry, want)

    async def find(self, context: ExportContext) -> ExportResult | None:
        """Return the result if an experiment holds this very revision, whole; None otherwise."""
        want = await self._wanted(context)
        entry = await self._look_up(want.key)
        if entry is None or not entries.is_whole(entry, want):
            return None
        return self._result(entry, want)

    async def check(self, context: ExportContext, receipt: Receipt) -> Finding:
        """Compare revision and attachments of the receipt's experiment; text that people changed is theirs."""
        want = await self._wanted(context)
        entry = await self._api.entry(receipt.record_id) if receipt.record_id else None
        if entry is None or entry.state == DELETED:
            return missing(f"experiment {receipt.record_id} is not there, or deleted")
        if not _is_of(entry, want.key):
            return differs(f"experiment {entry.id} has lost the key of this session")
        if not entries.is_current(entry, want):
            held = entries.revision_of(entry)
            return differs(f"experiment {entry.id} says that it holds revision {held}, or another record")
        if absent := entries.missing_files(entry, want):
            names = ", ".join(file.name for file in absent)
            return differs(f"experiment {entry.id} has not attached as delivered: {names}")
        return equal(_verified(entry, want))

    async def update(self, context: ExportContext, receipt: Receipt) -> ExportResult:
        """Change the experiment of the receipt in place; one that somebody deleted is made anew."""
        want = await self._wanted(context)
        async with self._alone(want):
            entry = await self._api.entry(receipt.record_id) if receipt.record_id else None
            if entry is not None and entry.state != DELETED and _is_of(entry, want.key):
                return await self._complete(entry, want)
        return await self.export(context)

    async def link(self, context: ExportContext, receipt: Receipt) -> ExportResult:
        """Add the links that are known by now to text and extra fields; a link that is there is left alone."""
        want = await self._wanted(context)
        async with self._alone(want):
            entry = await self._look_up(want.key)
            if entry is None:
                raise Rejected(f"experiment {receipt.record_id} is gone or deleted, so it cannot get a link")
            if not _has_links(entry, want):
                # Of the extra fields only the links: what the experiment holds otherwise is not looked at here.
                await self._write(entry, want, entries.merged(entry.metadata, want.links))
                entry = await self._read(entry.id)
                if not _has_links(entry, want):
                    raise Transient(f"experiment {entry.id} does not show its link after it was added")
            return self._result(entry, want, receipt.verified)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()

    def _alone(self, want: Wanted) -> AbstractAsyncContextManager[None]:
        """Keep two workers from making two: no field of an experiment is unique to the server."""
        return self.account.lock(f"experiment {want.key}")

    # --- the steps of a delivery ---------------------------------------------------------------------------

    async def _look_up(self, key: str) -> Entry | None:
        """Return the experiment of a key with its uploads; a copy that people made has the key blanked."""
        rows = [row for row in await self._api.search(entries.KEY_FIELD, key) if _is_of(row, key)]
        if not rows:
            return None
        first = min(rows, key=lambda row: (row.state != NORMAL, int(row.id)))
        return await self._api.entry(first.id)

    async def _make(self, want: Wanted) -> str:
        fields: dict[str, object] = {
            "title": want.title,
            "body": want.body,
            "content_type": 1,  # HTML, whatever the user of the key prefers
            "metadata": want.metadata,
        }
        options = self._options
        if options.team is not None:
            key = own_key(await self._api.read("apikeys"), options.api_key.get_secret_value())
            if key.get("team") not in (None, options.team):
                raise Misconfigured(f"the api_key belongs to team {key['team']}, not to team {options.team}")
        chosen = {"category": options.category, "status": options.status}
        tags = {"tags": list(want.tags)} if options.tags else {}
        return await self._api.create(fields | tags | {k: v for k, v in chosen.items() if v is not None})

    async def _complete(self, entry: Entry, want: Wanted) -> ExportResult:
        self._require_place(entry, want)
        if entries.is_whole(entry, want):
            return self._result(entry, want)
        _require_writable(entry)
        tags = entries.missing_tags(entry, want) if self._options.tags else []
        if tags:
            await self._api.add_tags(entry.id, tags)
        for file in entries.missing_files(entry, want):
            await self._api.attach(entry.id, file)
        entry = await self._read(entry.id)
        absent = entries.missing_files(entry, want)
        if absent:
            raise Transient(f"{absent[0].name} did not arrive as it was sent; experiment {entry.id} is incomplete")
        if not entries.is_current(entry, want):
            # A link that the new text has not is taken out of the fields too, so that it is added again later.
            stale = {entries.link_field(name) for name in self.waits_for}
            fields = {**want.fields, **want.links}
            await self._write(entry, want, entries.merged(entry.metadata, fields, without=stale - fields.keys()))
        # Only now: until here the experiment has a whole record, the old one or the new one.
        for upload in entries.superseded(entry, want):
            await self._api.archive(entry.id, upload)
        entry = entry if entries.is_whole(entry, want) else await self._read(entry.id)
        if not entries.is_whole(entry, want):
            raise Transient(f"experiment {entry.id} is not yet as it should be; somebody else may be changing it")
        return self._result(entry, want)

    async def _write(self, entry: Entry, want: Wanted, metadata: JsonObject) -> None:
        """Write title and text, then the extra fields: who finds those knows that the rest was written before."""
        _require_writable(entry)
        body = entries.with_notes_of(entry.body, want)
        await self._api.change(entry.id, {"title": want.title, "body": body})
        await self._api.change(entry.id, {"metadata": json.dumps(metadata, ensure_ascii=False)})

    async def _read(self, record_id: str) -> Entry:
        entry = await self._api.entry(record_id)
        if entry is None or entry.state == DELETED:
            raise Transient(f"experiment {record_id} was deleted meanwhile; the next try makes another")
        return entry

    async def _wanted(self, context: ExportContext) -> Wanted:
        return await asyncio.to_thread(
            entries.wanted,
            context,
            self.name,
            links_to=self.waits_for,
            title_prefix=self._options.title_prefix,
            attach_previews=self._options.attach_previews,
            max_upload=int(self._options.max_upload) - _FORM,
        )

    def _require_place(self, entry: Entry, want: Wanted) -> None:
        held = entries.revision_of(entry)
        if held > want.revision:
            raise Conflict(
                f"experiment {entry.id} holds revision {held} of this session, newer than revision {want.revision};"
                " delete it there if this one is right, and replay the export"
            )
        team = self._options.team
        if team is not None and entry.team not in (None, team):
            raise Misconfigured(
                f"experiment {entry.id} is in team {entry.team}, not in team {team}; use an API key of that team"
            )

    def _result(self, entry: Entry, want: Wanted, verified: str | None = None) -> ExportResult:
        address = f"{self._options.base}/experiments.php?mode=view&id={entry.id}"
        result = self.succeeded(entry.id, address, verified=verified or _verified(entry, want))
        unlinked = entries.unlinked(entry, want, self.waits_for)
        return (
            result.model_copy(update={"metadata": result.metadata | {"unlinked": unlinked}}) if unlinked else result
        )

    def _client(self, timeout: float, *, paced: bool = False) -> HttpClient:
        key = self._options.api_key.get_secret_value()
        return HttpClient(
            tls=self._options.tls,
            timeout=timeout,
            headers={"Authorization": key},
            before=self._pace if paced else None,
        )

    async def _pace(self) -> None:
        await self.account.pace()  # looked up each time: the worker gives it later


def _is_of(entry: Entry, key: str) -> bool:
    return entries.value_of(entry.metadata, entries.KEY_FIELD) == key


def _verified(entry: Entry, want: Wanted) -> str:
    hashed = any(upload.sha256 for upload in entry.uploads if upload.holds(want.record))
    how = "sha256" if hashed else "size; eLabFTW hashes no file this large"
    return f"read back: revision {want.revision}, {want.record.name} attached, same {how}"


def _has_links(entry: Entry, want: Wanted) -> bool:
    return all(entries.value_of(entry.metadata, name) == field["value"] for name, field in want.links.items())


def _require_writable(entry: Entry) -> None:
    what = "locked" if entry.locked else "archived" if entry.state == ARCHIVED else ""
    if what:
        raise Rejected(f"experiment {entry.id} is {what}; undo that in eLabFTW and replay the export")
