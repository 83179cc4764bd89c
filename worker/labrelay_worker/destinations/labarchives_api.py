"""The LabArchives API as typed calls: signed, paced, and with every failure typed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yarl

from labrelay.errors import DeliveryError, Misconfigured, OutcomeUnknown, Transient
from labrelay.redaction import Redactor
from labrelay_worker.destinations.account import Account
from labrelay_worker.destinations.labarchives_answers import (
    Access,
    Entry,
    Node,
    WrongClock,
    access_of,
    entries_of,
    epoch_of,
    error_in,
    max_file_size_of,
    nodes_of,
)
from labrelay_worker.destinations.labarchives_signing import Credentials, encoded
from labrelay_worker.destinations.uploads import checked_chunks
from labrelay_worker.http import HttpClient
from labrelay_worker.http_answers import Answer

#: Parent of a notebook's uppermost folders.
ROOT = "0"
_FORM = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}


@dataclass(frozen=True)
class Upload:
    """A file on its way into an attachment."""

    path: Path
    name: str
    caption: str
    size: int
    sha256: str


@dataclass(frozen=True)
class _Request:
    path: str
    parameters: Mapping[str, str]
    verb: str = "GET"
    safe: bool = True
    is_file: bool = False
    headers: Mapping[str, str] | None = None
    body: Callable[[], Any] | None = None

    def error_in(self, answer: Answer) -> DeliveryError | None:
        """Return the error that an answer to it stands for."""
        return error_in(answer, safe=self.safe, is_file=self.is_file)


class LabArchivesApi:
    """Calls of one user; nothing is repeated here but a request that was refused for a wrong clock.

    Parameters
    ----------
    url
        Address of the API, ending in ``/api``.
    credentials
        Who signs.
    http
        Sends the requests.
    account
        Says when the next request may go out.
    """

    def __init__(self, url: str, credentials: Credentials, http: HttpClient, account: Callable[[], Account]) -> None:
        self._url = url.rstrip("/")
        self._credentials, self._http, self._account = credentials, http, account
        self._clock_offset = 0
        self._rested_from = float("-inf")
        known = (credentials.access_password, credentials.user_id, credentials.access_key_id)
        self._redact = Redactor(secret for secret in known if secret)

    def arrive(self) -> None:
        """Begin a walk that follows upon another user's: that one's last request may have ended just now."""
        self._rested_from = time.monotonic()

    async def tree_level(self, notebook: str, parent: str) -> list[Node]:
        """Return the folders and pages of a folder; `ROOT`: of the notebook."""
        return nodes_of(await self._get("tree_tools/get_tree_level", nbid=notebook, parent_tree_id=parent))

    async def insert_node(self, notebook: str, parent: str, text: str, *, folder: bool) -> str:
        """Make a folder or page and return its tree id. LabArchives takes it with GET, and it makes one each time."""
        made = nodes_of(
            await self._get(
                "tree_tools/insert_node", safe=False,
                nbid=notebook, parent_tree_id=parent, display_text=text, is_folder=str(folder).lower(),
            )
        )  # fmt: skip
        return _the_id([node.tree_id for node in made])

    async def rename_node(self, notebook: str, tree_id: str, text: str) -> None:
        """Give a page or folder another name."""
        await self._get("tree_tools/update_node", safe=False, nbid=notebook, tree_id=tree_id, display_text=text)

    async def entries(self, notebook: str, page: str) -> list[Entry]:
        """Return the entries of a page with their content."""
        answer = await self._get(
            "tree_tools/get_entries_for_page", nbid=notebook, page_tree_id=page, entry_data="true"
        )
        return entries_of(answer)

    async def add_entry(self, notebook: str, page: str, html: str) -> str:
        """Add a text entry and return its eid."""
        place = {"nbid": notebook, "pid": page, "part_type": "text entry"}
        answer = await self._post("entries/add_entry", place, lambda: _form(html), _FORM)
        return _the_id([entry.eid for entry in entries_of(answer)])

    async def update_entry(self, eid: str, html: str) -> None:
        """Replace the content of a text entry."""
        await self._post("entries/update_entry", {"eid": eid}, lambda: _form(html), _FORM)

    async def add_attachment(self, notebook: str, page: str, upload: Upload) -> str:
        """Attach a file and return its eid.

        Raises
        ------
        Rejected
            The file changed since it was submitted; nothing of it was kept.
        """
        answer = await self._upload("entries/add_attachment", upload, nbid=notebook, pid=page)
        return _the_id([entry.eid for entry in entries_of(answer)])

    async def update_attachment(self, eid: str, upload: Upload) -> None:
        """Replace the file of an attachment; see `add_attachment`."""
        await self._upload("entries/update_attachment", upload, eid=eid)

    async def attachment_sha256(self, eid: str) -> str:
        """Read the file of an attachment and return its checksum."""
        return (await self._get("entries/entry_attachment", is_file=True, eid=eid)).sha256

    async def max_file_size(self) -> int | None:
        """Return the largest file that the account may attach, bytes; None: it does not say."""
        return max_file_size_of(await self._get("users/max_file_size"))

    async def access_info(self, email: str, token: str) -> Access:
        """Exchange an e-mail address with a password token or authorisation code for a user id."""
        access = access_of(await self._get("users/user_access_info", login_or_email=email, password=token))
        if not access.user_id:
            raise Transient("LabArchives answered the login without a user id")
        return access

    async def _get(self, path: str, *, safe: bool = True, is_file: bool = False, **parameters: str) -> Answer:
        return await self._call(_Request(path, parameters, safe=safe, is_file=is_file))

    async def _post(
        self, path: str, parameters: Mapping[str, str], body: Callable[[], Any], headers: Mapping[str, str]
    ) -> Answer:
        return await self._call(_Request(path, parameters, "POST", safe=False, headers=headers, body=body))

    async def _upload(self, path: str, upload: Upload, **parameters: str) -> Answer:
        named = {"filename": upload.name, "caption": upload.caption, "change_description": "sent by labrelay"}
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(upload.size)}
        return await self._post(
            path, {**parameters, **named}, lambda: checked_chunks(upload.path, sha256=upload.sha256), headers
        )

    async def _call(self, request: _Request) -> Answer:
        answer = await self._send(request)
        error = request.error_in(answer)
        if isinstance(error, WrongClock):
            await self._set_clock()
            answer = await self._send(request)
            error = request.error_in(answer)
        if error is not None:
            error.args = (self._redact(str(error)),)
            raise error
        return answer

    async def _send(self, request: _Request, *, is_signed: bool = True) -> Answer:
        account = self._account()
        await account.pace()
        await asyncio.sleep(max(0.0, self._rested_from + account.interval - time.monotonic()))
        # Signed after the wait: a signature grows old.
        query = encoded({"akid": self._credentials.access_key_id})
        if is_signed:
            method, expires = request.path.rpartition("/")[2], _now_ms() + self._clock_offset
            query = self._credentials.query(method, expires, request.parameters)
        url = yarl.URL(f"{self._url}/{request.path}?{query}", encoded=True)
        body = None if request.body is None else request.body()
        try:
            return await self._http.request(
                request.verb, url, headers=request.headers, data=body, safe=request.safe, hashed=request.is_file
            )
        finally:
            self._rested_from = time.monotonic()

    async def _set_clock(self) -> None:
        request = _Request("utilities/epoch_time", {})
        answer = await self._send(request, is_signed=False)
        now = epoch_of(answer)
        if request.error_in(answer) is not None or now is None:
            raise Misconfigured("LabArchives finds this machine's clock wrong and does not tell its own; correct it")
        self._clock_offset = now - _now_ms()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _form(html: str) -> bytes:
    return urlencode({"entry_data": html}).encode()


def _the_id(ids: list[str]) -> str:
    """Return the id of what was made; without one, what was made must be looked for."""
    if not ids or not ids[0]:
        raise OutcomeUnknown("LabArchives answered a creating request without the id of what it made")
    return ids[0]
