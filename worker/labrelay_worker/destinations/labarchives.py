"""Destination `labarchives`: a page for each session, with an HTML entry and the record as an attachment.

``{folder} / {instrument} / {YYYY-MM-DD} — {session}``. LabArchives knows neither unique names nor deletion, so every
walk looks first, by page name and by the key in entry and caption, and completes what an earlier one left unfinished.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import quote

from labrelay.context import ExportContext
from labrelay.errors import DeliveryError, Rejected, Transient
from labrelay.results import ExportResult, Receipt
from labrelay_worker.destinations.account import OwnAccount
from labrelay_worker.destinations.base import Destination, Limits, Options
from labrelay_worker.destinations.findings import Finding, differs, equal, missing
from labrelay_worker.destinations.labarchives_answers import Node
from labrelay_worker.destinations.labarchives_api import ROOT, LabArchivesApi, Upload
from labrelay_worker.destinations.labarchives_notebook import Notebook, Page
from labrelay_worker.destinations.labarchives_options import LabArchivesOptions
from labrelay_worker.destinations.labarchives_page import Key, caption, clean_name, entry_html, page_name
from labrelay_worker.destinations.labarchives_signing import Credentials
from labrelay_worker.http import HttpClient

#: Of one access key, over all workers ("Requirements and best practices" of the API: at least a second apart).
REQUESTS_PER_SECOND = 1.0
#: A delivery makes about ten requests; one that takes long mostly ends it.
_REQUESTS, _SLOW_ONES = 15, 4
_PROBE_SECONDS = 10.0
_LIMIT_KEPT_SECONDS = 3600.0

_ENTRY, _ATTACHMENT = "the entry", "the attachment"


@dataclass(frozen=True)
class Wanted:
    """What shall be on the page."""

    html: str
    key: Key
    record: Upload


class LabArchivesDestination(Destination):
    """Keeps sessions in a LabArchives notebook."""

    name = "labarchives"
    priority = 90
    waits_for = ("cdcs",)
    Options: ClassVar[type[Options]] = LabArchivesOptions

    def __init__(self, name: str, options: LabArchivesOptions) -> None:
        super().__init__(name, options)
        self._options: LabArchivesOptions = options
        akid = options.access_key_id.get_secret_value()
        self.limits = Limits(
            account=f"labarchives:{hashlib.sha256(akid.encode()).hexdigest()[:16]}",
            concurrent=1,
            requests_per_second=REQUESTS_PER_SECOND,
        )
        self.account = OwnAccount(1 / REQUESTS_PER_SECOND)
        self.timeout = _SLOW_ONES * options.timeout + _REQUESTS / REQUESTS_PER_SECOND
        self._http = HttpClient(tls=options.tls, timeout=options.timeout, headers={})
        self._api = self._api_with(self._http)
        self._notebook = Notebook(self._api, options.notebook_id, options.folder)
        self._largest: tuple[float, int | None] | None = None

    def validate_config(self) -> tuple[bool, str | None]:
        """Return whether the notebook can be read and its folder written, with one request."""
        try:
            level = asyncio.run(self._probe())
        except Rejected as error:
            return False, f"notebook_id: {error}; `labrelay labarchives login` lists the user's notebooks"
        except DeliveryError as error:
            return False, str(error)
        folder = clean_name(self._options.folder)
        if any(clean_name(node.text) == folder and not node.is_page and not node.can_write for node in level):
            return False, f"folder: the user may not write to {folder!r}; share it with the right to write"
        return True, None

    async def export(self, context: ExportContext) -> ExportResult:
        """Put the session on its page, or complete what is there of it."""
        return await self._deliver(context, None)

    async def update(self, context: ExportContext, receipt: Receipt) -> ExportResult:
        """Replace entry and attachment of the revision before, in place; a page that was moved is found by its id."""
        return await self._deliver(context, receipt)

    async def link(self, context: ExportContext, receipt: Receipt) -> ExportResult:
        """Write the entry with the links that there are by now; one that has them stays as it is."""
        return await self._deliver(context, receipt)

    async def find(self, context: ExportContext) -> ExportResult | None:
        """Return the result if entry and attachment are there as this revision has them."""
        wanted = await self._wanted(context)
        name = page_name(context)
        async with self.account.lock("notebook"):
            self._api.arrive()
            page = await self._known_page(context, context.previous_receipts.get(self.name))
            if page is None:
                page = (await self._notebook.look(context.instrument_pid, name, context.export_id)).page
            if page is None or await self._lacks(page, wanted):
                return None
        return self._result(context, page, wanted)

    async def check(self, context: ExportContext, receipt: Receipt) -> Finding:
        """Compare entry and attachment of the receipt's page with this revision."""
        wanted = await self._wanted(context)
        async with self.account.lock("notebook"):
            self._api.arrive()
            page = await self._known_page(context, receipt)
            if page is None:
                return missing(f"page {receipt.metadata.get('tree_id')} has nothing of this session, or is gone")
            lacks = await self._lacks(page, wanted)
        if not lacks:
            return equal(self._how_verified())
        gone = {what for what, part in ((_ENTRY, page.text), (_ATTACHMENT, page.record)) if part is None}
        words = [f"{what} is {'gone' if what in gone else 'not as delivered'}" for what in sorted(lacks)]
        return differs(f"page {page.tree_id}: {', '.join(words)}")

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()

    async def _deliver(self, context: ExportContext, receipt: Receipt | None) -> ExportResult:
        wanted = await self._wanted(context)
        async with self.account.lock("notebook"):
            self._api.arrive()
            await self._require_room(wanted.record)
            page = await self._find_or_make(context, receipt)
            if lacks := await self._lacks(page, wanted):
                await self._complete(page, wanted, lacks)
                page = await self._notebook.read(page.tree_id, context.export_id)
                if lost := await self._lacks(page, wanted):
                    raise Transient(f"LabArchives did not keep {' and '.join(sorted(lost))} as sent")
        return self._result(context, page, wanted)

    async def _wanted(self, context: ExportContext) -> Wanted:
        html, key = await asyncio.to_thread(
            entry_html, context, links=self._linked(context), preview_bytes=self._options.preview_bytes
        )
        size, sha256 = await asyncio.to_thread(_fingerprint, context)
        path = context.xml_file_path
        name = clean_name(path.name, ending=path.suffix)
        return Wanted(html, key, Upload(path, name, caption(context, sha256), size, sha256))

    async def _find_or_make(self, context: ExportContext, receipt: Receipt | None) -> Page:
        name = page_name(context)
        page = await self._known_page(context, receipt)
        if page is None:
            place = await self._notebook.look(context.instrument_pid, name, context.export_id)
            return place.page or await self._notebook.make(place, context.instrument_pid, name)
        # Only if the session's own name changed: people may have given the page another one since.
        if receipt is not None and receipt.metadata.get("page", name) != name:
            await self._api.rename_node(self._options.notebook_id, page.tree_id, name)
        return page

    async def _known_page(self, context: ExportContext, receipt: Receipt | None) -> Page | None:
        tree_id = None if receipt is None else receipt.metadata.get("tree_id")
        return await self._notebook.read_known(tree_id, context.export_id) if isinstance(tree_id, str) else None

    async def _lacks(self, page: Page, wanted: Wanted) -> set[str]:
        """Return what is missing on the page, or is not as it should be."""
        lacks = set() if page.text_key == wanted.key else {_ENTRY}
        record = page.record
        if record is None or (record.caption, record.file_size) != (wanted.record.caption, wanted.record.size):
            return lacks | {_ATTACHMENT}
        if self._options.read_back and await self._api.attachment_sha256(record.eid) != wanted.record.sha256:
            return lacks | {_ATTACHMENT}
        return lacks

    async def _complete(self, page: Page, wanted: Wanted, lacks: set[str]) -> None:
        if _ENTRY in lacks:
            if page.text is None:
                await self._api.add_entry(self._options.notebook_id, page.tree_id, wanted.html)
            else:
                await self._api.update_entry(page.text.eid, wanted.html)
        if _ATTACHMENT in lacks:
            if page.record is None:
                await self._api.add_attachment(self._options.notebook_id, page.tree_id, wanted.record)
            else:
                await self._api.update_attachment(page.record.eid, wanted.record)

    async def _require_room(self, record: Upload) -> None:
        if self._largest is None or self._largest[0] < time.monotonic():
            try:
                limit = await self._api.max_file_size()
            except Rejected:
                limit = None  # who may not ask finds out by sending
            self._largest = time.monotonic() + _LIMIT_KEPT_SECONDS, limit
        limit = self._largest[1]
        if limit is not None and record.size > limit:
            text = f"{record.path} has {record.size} bytes; this LabArchives account takes files up to {limit}"
            raise Rejected(f"{text}. Ask LabArchives for a higher limit, then replay it")

    def _linked(self, context: ExportContext) -> list[str]:
        return [name for name in self.waits_for if context.has_successful_export(name)]

    def _result(self, context: ExportContext, page: Page, wanted: Wanted) -> ExportResult:
        eid = "" if page.text is None else page.text.eid
        url = f"{self._options.web_address}/#/{quote(self._options.notebook_id, safe='')}/"
        result = self.succeeded(eid, url + quote(page.tree_id, safe=""), verified=self._how_verified())
        facts = {
            **result.metadata,
            "tree_id": page.tree_id,
            "eid": eid,
            "attachment_eid": "" if page.record is None else page.record.eid,
            "page": page_name(context),
            "previews": wanted.html.count("<img "),
        }
        if unlinked := [name for name in self.waits_for if name not in self._linked(context)]:
            facts["unlinked"] = unlinked
        return result.model_copy(update={"metadata": facts})

    def _how_verified(self) -> str:
        how = "attachment read back with the same checksum" if self._options.read_back else "attachment of same size"
        return f"entry listed, {how}"

    async def _probe(self) -> list[Node]:
        timeout = min(_PROBE_SECONDS, self._options.timeout)
        async with HttpClient(tls=self._options.tls, timeout=timeout, headers={}) as http:
            return await self._api_with(http).tree_level(self._options.notebook_id, ROOT)

    def _api_with(self, http: HttpClient) -> LabArchivesApi:
        options = self._options
        credentials = Credentials(
            options.access_key_id.get_secret_value(),
            options.access_password.get_secret_value(),
            options.user_id.get_secret_value(),
        )
        # A worker puts another account here later.
        return LabArchivesApi(str(options.url), credentials, http, lambda: self.account)


def _fingerprint(context: ExportContext) -> tuple[int, str]:
    """Return size and sha256 of the record; refuse one that changed since it was submitted."""
    path = context.xml_file_path
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Transient(f"cannot read {path} on this worker ({reason}); is its share mounted here?") from None
    if context.xml_sha256 not in (None, sha256):
        raise Rejected(f"{path} changed since it was submitted; submit it again with --replace")
    return size, sha256
