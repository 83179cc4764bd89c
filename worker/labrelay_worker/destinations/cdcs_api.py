"""The REST API of CDCS as typed calls; every answer is checked here."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Mapping
from typing import Any

import yarl

from labrelay.errors import Misconfigured, OutcomeUnknown, Rejected, Transient
from labrelay_worker.destinations.cdcs_answers import MissingRight, NotThere, as_json, refusal
from labrelay_worker.destinations.cdcs_kinship import StoredRecord
from labrelay_worker.destinations.cdcs_target import PidSettings, Template, Workspace
from labrelay_worker.http import HttpClient
from labrelay_worker.http_answers import Answer

#: Pages that a look-up turns: a title that more records have is no key.
_LONGEST_LIST = 50
_JSON = {"Content-Type": "application/json"}


class CdcsApi:
    """One server, one account.

    Parameters
    ----------
    url
        Address of the server.
    http
        Sends the token with every request.
    """

    def __init__(self, url: str, http: HttpClient) -> None:
        self._base = url.rstrip("/") + "/"
        self._http = http
        self._sees_all: bool | None = None

    @property
    def base(self) -> str:
        """The address, with a slash at its end."""
        return self._base

    async def templates(self) -> list[Template]:
        """Return the global templates, in no order."""
        found = await self._get("rest/template-version-manager/global/", "reading the templates")
        return [Template.of(entry) for entry in _entries(found)]

    async def schema(self, template: str) -> bytes:
        """Return the XSD of a template version."""
        doing = f"reading the schema of template {template}"
        return (await self._ask("GET", f"rest/template/{template}/download/", doing)).body

    async def workspaces(self) -> list[Workspace]:
        """Return the workspaces that the account can read."""
        found = await self._get("rest/workspace/read_access/", "reading the workspaces")
        return [Workspace.of(entry) for entry in _entries(found)]

    async def pid_settings(self) -> PidSettings | None:
        """Return how the server gives PIDs, or None if it gives none."""
        answer = await self._http.request("GET", self._url("pid/rest/settings/"))
        if answer.status == 404:  # noqa: PLR2004  the application for PIDs is not installed
            return None
        error = refusal(answer, "reading the PID settings", safe=True)
        if error is not None:
            raise error
        return PidSettings.of(as_json(answer, "reading the PID settings"))

    async def is_superuser(self) -> bool:
        """Return whether the account sees the records of every owner."""
        if self._sees_all is None:
            await self.records_titled("labrelay asks for its rights")
        return bool(self._sees_all)

    def forget_rights(self) -> None:
        """Ask for the account's rights anew: they may have changed."""
        self._sees_all = None

    async def records_titled(self, title: str) -> list[StoredRecord]:
        """Return the records of this very title: a superuser's account sees every owner's, another one its own."""
        doing = "looking for the record"
        if self._sees_all is not False:
            try:
                found = await self._get("rest/admin/data/", doing, title=title)
            except (MissingRight, NotThere):
                self._sees_all = False
            else:
                self._sees_all = True
                return _records(_entries(found))
        result: list[StoredRecord] = []
        for page in range(1, _LONGEST_LIST + 1):
            found = await self._get("rest/data/", doing, title=title, page=str(page))
            result += _records(_entries(found.get("results")))
            if not found.get("next"):
                return result
        raise Rejected(f"more than {len(result)} records are titled {title!r}; remove the surplus ones")

    async def records_with_pid(self, pid: str) -> list[StoredRecord]:
        """Return the record that has a PID, if the account can read it."""
        body = json.dumps({"query": {"Experiment.@pid": pid}}).encode()
        answer = await self._ask("POST", "rest/data/query/", "looking for the PID", body, safe=True)
        found = as_json(answer, "looking for the PID")
        return _records(_entries(found.get("results") if isinstance(found, dict) else found))

    async def record(self, record_id: str) -> StoredRecord | None:
        """Return a record, or None if it is not there (any more)."""
        try:
            found = await self._get(f"rest/data/{record_id}/", f"reading record {record_id}")
        except NotThere:
            return None
        except MissingRight as error:
            raise Rejected(f"{error}. The record belongs to somebody else; a superuser's token reaches it") from None
        return _record(found)

    async def create(self, template: str, title: str, text: str, *, workspace: str) -> StoredRecord:
        """Create a record, in a workspace unless that is empty.

        Raises
        ------
        WorkspaceRefused
            It does not take the workspace along; nothing was created.
        PidTaken
            There is one with this PID.
        """
        fields = {"template": template, "title": title, "xml_content": text}
        if workspace:
            fields["workspace"] = workspace
        body = await asyncio.to_thread(_encoded, fields)
        answer = await self._ask("POST", "rest/data/", "creating the record", body)
        try:
            return _record(json.loads(answer.body))
        except (ValueError, Misconfigured):
            text = f"creating the record: HTTP {answer.status} without a record; the next attempt looks for it"
            raise OutcomeUnknown(text) from None

    async def change(self, record_id: str, fields: Mapping[str, str]) -> None:
        """Change title or content of a record."""
        body = await asyncio.to_thread(_encoded, fields)
        try:
            await self._ask("PATCH", f"rest/data/{record_id}/", f"changing record {record_id}", body)
        except MissingRight as error:
            raise Rejected(f"{error}. The record belongs to somebody else; a superuser's token changes it") from None

    async def assign(self, record_id: str, workspace: str) -> None:
        """Put a record into a workspace."""
        # This address, unlike most, must have no slash at its end.
        doing = f"putting record {record_id} into workspace {workspace}"
        await self._ask("PATCH", f"rest/data/{record_id}/assign/{workspace}", doing)

    async def give_to(self, record_id: str, user: str) -> None:
        """Change the owner of a record."""
        doing = f"giving record {record_id} to user {user}"
        await self._ask("PATCH", f"rest/data/{record_id}/change-owner/{user}", doing)

    async def users(self) -> list[dict[str, str]]:
        """Return id, username and email of every account."""
        found = await self._get("rest/user/", "reading the users")
        names = ("id", "username", "email")
        return [{name: str(entry.get(name) or "") for name in names} for entry in _entries(found)]

    async def create_user(self, fields: Mapping[str, str]) -> str:
        """Create an account and return its id."""
        answer = await self._ask("POST", "rest/user/", "creating the user", _encoded(fields))
        return str(answer.json().get("id") or "")

    async def _get(self, path: str, doing: str, **query: str) -> Any:
        return as_json(await self._ask("GET", path, doing, query=query), doing)

    async def _ask(
        self,
        method: str,
        path: str,
        doing: str,
        body: bytes | None = None,
        *,
        safe: bool | None = None,
        query: Mapping[str, str] | None = None,
    ) -> Answer:
        harmless = method == "GET" if safe is None else safe
        headers = None if body is None else _JSON
        # As a stream: of a large body sent whole, aiohttp warns that it may hold up the loop.
        data = None if body is None else io.BytesIO(body)
        url = self._url(path, query)
        answer = await self._http.request(method, url, headers=headers, data=data, safe=harmless)
        error = refusal(answer, doing, safe=harmless)
        if error is not None:
            raise error
        return answer

    def _url(self, path: str, query: Mapping[str, str] | None = None) -> yarl.URL:
        url = yarl.URL(self._base + path)
        return url.with_query(query) if query else url


def _encoded(fields: Mapping[str, str]) -> bytes:
    return json.dumps(fields, ensure_ascii=False).encode()


def _entries(found: Any) -> list[dict[str, Any]]:
    if not isinstance(found, list):
        raise Transient("the server answered something else than a list")
    return [entry for entry in found if isinstance(entry, dict)]


def _records(entries: list[dict[str, Any]]) -> list[StoredRecord]:
    # Oldest first: of two alike, every worker takes the same one.
    return sorted(map(_record, entries), key=lambda record: (len(record.record_id), record.record_id))


def _record(entry: Any) -> StoredRecord:
    if not isinstance(entry, dict) or entry.get("id") is None:
        raise Misconfigured("the server answered no record; is the option url the address of a CDCS?")

    def text(name: str) -> str:
        value = entry.get(name)
        return "" if value is None else str(value)

    return StoredRecord(
        record_id=text("id"),
        template=text("template"),
        workspace=text("workspace"),
        owner=text("user_id"),
        title=text("title"),
        text=text("xml_content") or text("content"),
    )
