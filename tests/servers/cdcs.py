"""A CDCS server for tests, with the quirks of a real one: 500 for bad XML, 403 for a bad token, nothing unique.

``python -m tests.servers.cdcs --port N``; tokens ``superuser-token``, ``staff-token``, ``robot-token`` (may not
publish) and ``publisher-token``. Attributes switch what differs between servers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from html import escape
from typing import Any

from aiohttp import web
from tests.servers.base import TestServer, run_alone
from tests.servers.cdcs_pids import Pids
from tests.servers.cdcs_store import (
    MAX_DOCUMENT_LIST,
    OTHER_XSD,
    XSD,
    Data,
    Failure,
    Store,
    User,
    checked_title,
    page_of,
    require_valid,
    value_at,
)

SUPERUSER, STAFF, ROBOT, PUBLISHER = "superuser-token", "staff-token", "robot-token", "publisher-token"
TEMPLATE = "Nexus Experiment Schema"
WORKSPACE = "Global Public Workspace"

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_NO_RIGHT = "You do not have permission to perform this action."
_HTML_404 = "<!doctype html><html><head><title>Not Found</title></head><body><h1>Not Found</h1></body></html>"


class CdcsServer(TestServer):
    """One server with a Nexus template, another template, a global public workspace and a private one."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store()
        self.pids = Pids(self.store)
        #: False: as settings with BACKWARD_COMPATIBILITY_DATA_XML_CONTENT off.
        self.takes_xml_content = True
        #: What becomes of ``workspace`` in the body of a new record: taken, ignored or refused (400).
        self.workspace_in_body = "taken"
        #: Whether ``query/`` misses new records, as with MongoDB and asynchronous saving.
        self.query_lags = False
        self._turn = 0
        store = self.store
        store.add_user("admin", email="admin@example.org", token=SUPERUSER, is_staff=True, is_superuser=True)
        store.add_user("staff", token=STAFF, is_staff=True)
        store.add_user("robot", token=ROBOT)
        store.add_user("publisher", token=PUBLISHER, may_publish=True)
        self.template = store.add_template(TEMPLATE, XSD, XSD)
        self.other_template = store.add_template("Another Schema", OTHER_XSD)
        self.workspace = store.add_workspace(WORKSPACE, is_public=True)
        self.private_workspace = store.add_workspace("Group A", owner="1")

    def state(self) -> dict[str, Any]:
        """Return everything it keeps."""
        return {**self.store.state(), "pids": dict(self.pids.taken)}

    @property
    def records(self) -> list[Data]:
        """The records, oldest first."""
        return list(self.store.records.values())

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Add what the real server answers to."""
        for method, path, handler in (
            ("GET", "/rest/template-version-manager/global/", self._managers),
            ("GET", "/rest/template/{id}/download/", self._schema),
            ("GET", "/rest/workspace/read_access/", self._workspaces),
            ("GET", "/rest/data/", self._own_records),
            ("POST", "/rest/data/", self._create),
            ("GET", "/rest/admin/data/", self._all_records),
            ("POST", "/rest/data/query/", self._query),
            ("POST", "/rest/data/query/keyword/", self._keywords),
            ("GET", "/rest/data/download/{id}/", self._download),
            ("GET", "/rest/data/{id}/", self._read),
            ("PATCH", "/rest/data/{id}/", self._change),
            ("DELETE", "/rest/data/{id}/", self._delete),
            ("PUT", "/rest/data/{id}/", self._put),
            ("PATCH", "/rest/data/{id}/assign/{workspace}", self._assign),
            ("PATCH", "/rest/data/{id}/change-owner/{user}", self._change_owner),
            ("GET", "/rest/user/", self._users),
            ("POST", "/rest/user/", self._create_user),
            ("GET", "/pid/rest/settings/", self._pid_settings),
            ("GET", "/pid/rest/local/cdcs/{name}", self._resolve),
            ("GET", "/pid/rest/retrieve-data-pid", self._pid_of),
        ):
            router.add_route(method, path, _answering(handler))
        router.add_post("/rest/data", self._without_slash)
        router.add_get("/data", self._page)
        router.add_route("*", "/{rest:.*}", self._nowhere)

    # --- who asks ---------------------------------------------------------------------------------------------

    def _user(self, request: web.Request, *, anonymous: bool = False) -> User | None:
        self.pids.server_uri = self.pids.server_uri or str(request.url.origin())
        header = request.headers.get("Authorization")
        if header is None:
            if anonymous:
                return None
            raise Failure(403, "Authentication credentials were not provided.", key="detail")
        for user in self.store.users.values():
            if user.token and header == f"Token {user.token}":
                return user
        raise Failure(403, "Invalid token.", key="detail")

    def _known(self, request: web.Request) -> User:
        user = self._user(request)
        assert user is not None
        return user

    def _staff(self, request: web.Request) -> User:
        user = self._known(request)
        if not user.is_staff:
            raise Failure(403, _NO_RIGHT, key="detail")
        return user

    def _record(self, request: web.Request) -> Data:
        if not request.match_info["id"].isdigit():
            raise Failure(500, f"Field 'id' expected a number but got '{request.match_info['id']}'.")
        found = self.store.records.get(int(request.match_info["id"]))
        if found is None:
            raise Failure(404, "Data not found.")
        return found

    def _readable(self, request: web.Request) -> Data:
        user, record = self._user(request, anonymous=True), self._record(request)
        if user is not None and (user.is_superuser or record.user_id == str(user.id)):
            return record
        if record.workspace is None or not self.store.workspaces[record.workspace].is_public:
            raise Failure(403, "The user doesn't have enough rights to access this document.")
        return record

    def _writable(self, request: web.Request) -> Data:
        user, record = self._known(request), self._record(request)
        if not user.is_superuser and record.user_id != str(user.id):
            raise Failure(403, "The user doesn't have enough rights to write to this document.")
        return record

    def _may_publish(self, user: User, workspace: int) -> None:
        if self.store.workspaces[workspace].is_public and not (user.is_superuser or user.may_publish):
            raise Failure(403, "The user doesn't have enough rights to publish.")

    # --- templates and workspaces -----------------------------------------------------------------------------

    async def _managers(self, request: web.Request) -> Any:
        self._known(request)
        entries = [
            {
                "id": manager.id,
                "title": manager.title,
                "versions": [str(version) for version in manager.versions],
                "current": str(manager.versions[-1]),
                "is_disabled": manager.is_disabled,
                "disabled_versions": [str(v) for v in manager.versions if self.store.templates[v].disabled],
                "user": None,
            }
            for manager in self.store.managers.values()
        ]
        return self._in_no_order(entries)

    async def _schema(self, request: web.Request) -> web.Response:
        self._known(request)
        template = self.store.templates.get(int(request.match_info["id"]))
        if template is None:
            raise Failure(404, "Template not found.")
        return web.Response(body=template.xsd, content_type="application/xsd")

    async def _workspaces(self, request: web.Request) -> Any:
        user = self._known(request)
        every = self.store.workspaces.values()
        return self._in_no_order(
            [asdict(one) for one in every if one.is_public or user.is_superuser or one.owner == str(user.id)]
        )

    def _in_no_order(self, entries: list[Any]) -> list[Any]:
        # PostgreSQL promises no order, and did change it: here it changes every time.
        self._turn += 1
        cut = self._turn % max(len(entries), 1)
        return entries[cut:] + entries[:cut]

    # --- records ----------------------------------------------------------------------------------------------

    async def _without_slash(self, request: web.Request) -> web.Response:
        return web.Response(status=301, headers={"Location": "/rest/data/"})

    async def _create(self, request: web.Request) -> web.Response:
        user, fields = self._known(request), await _body(request)
        template, title = self._template(fields.get("template")), checked_title(fields.get("title"))
        workspace = self._workspace_for(fields.get("workspace"), user)
        xml = self._content(fields, required=True)
        if template not in self.store.templates:
            raise Failure(400, {"template": [f'Invalid pk "{template}" - object does not exist.']})
        require_valid(xml, self.store.templates[template])
        xml, pid = self.pids.written(xml, None)
        record = self.store.insert(
            {"template": template, "title": title, "xml_content": xml, "workspace": workspace}, user
        )
        self.pids.register(record, pid)
        return web.json_response(self._shown(record), status=201)

    def _template(self, value: Any) -> int:
        if value is None:
            raise Failure(400, {"template": ["This field is required."]})
        try:
            number = int(value)
        except (TypeError, ValueError):
            raise Failure(400, {"template": ["Incorrect type. Expected pk value, received str."]}) from None
        if number not in self.store.templates:
            raise Failure(400, {"template": [f'Invalid pk "{number}" - object does not exist.']})
        return number

    def _workspace_for(self, value: Any, user: User) -> int | None:
        if value is None or self.workspace_in_body == "ignored":
            return None
        if self.workspace_in_body == "refused" or not str(value).isdigit() or int(value) not in self.store.workspaces:
            raise Failure(400, {"workspace": [f'Invalid pk "{value}" - object does not exist.']})
        try:
            self._may_publish(user, int(value))
        except Failure as error:  # the handler of POST lets the access error through as a failure of the server
            raise Failure(500, error.body["message"]) from None
        return int(value)

    def _content(self, fields: dict[str, Any], *, required: bool) -> str:
        name = "xml_content" if self.takes_xml_content else "content"
        if name not in fields and required:
            raise Failure(
                400, {name: ["This field is required. Either set `content` or `xml_content` (deprecated)."]}
            )
        return str(fields.get(name, ""))

    def _shown(self, record: Data) -> dict[str, Any]:
        fields = asdict(record) | {"checksum": None, "last_change_date": record.last_modification_date}
        if not self.takes_xml_content:
            fields["content"] = fields.pop("xml_content")
        return fields

    async def _read(self, request: web.Request) -> Any:
        return self._shown(self._readable(request))

    async def _download(self, request: web.Request) -> web.Response:
        body = self._readable(request).xml_content.encode()
        return web.Response(body=body, headers={"Content-Type": "text/xml"})  # without a charset

    async def _change(self, request: web.Request) -> Any:
        record, fields = self._writable(request), await _body(request)
        title = checked_title(fields["title"]) if "title" in fields else record.title
        xml = self._content(fields, required=False) or record.xml_content
        require_valid(xml, self.store.templates[record.template])
        xml, pid = self.pids.written(xml, record.id)
        record.title, record.xml_content = title, xml
        self.pids.register(record, pid)
        return self._shown(record)

    async def _delete(self, request: web.Request) -> web.Response:
        record = self._writable(request)
        del self.store.records[record.id]
        self.pids.forget(record.id)
        return web.Response(status=204)

    async def _put(self, request: web.Request) -> Any:
        raise Failure(405, 'Method "PUT" not allowed.', key="detail")

    async def _assign(self, request: web.Request) -> Any:
        value = request.match_info["workspace"]
        user, record = self._known(request), self._record(request)
        if not value.isdigit():
            raise Failure(500, f"Field 'id' expected a number but got '{value}'.")
        if int(value) not in self.store.workspaces:
            raise Failure(404, "Data or workspace not found.")
        self._writable(request)
        self._may_publish(user, int(value))
        record.workspace = int(value)
        return {}

    async def _change_owner(self, request: web.Request) -> Any:
        self._staff(request)
        record, value = self._writable(request), request.match_info["user"]
        if not value.isdigit() or int(value) not in self.store.users:
            raise Failure(500, "User matching query does not exist.")
        record.user_id = value
        return {}

    # --- look-ups ---------------------------------------------------------------------------------------------

    def _filtered(self, request: web.Request, records: list[Data]) -> list[Data]:
        query = request.query
        if "title" in query and query.get("regex") == "true":
            records = [one for one in records if re.search(query["title"], one.title, re.IGNORECASE)]
        elif "title" in query:
            records = [one for one in records if one.title == query["title"]]
        for name in ("workspace", "template"):
            if name in query:
                records = [one for one in records if str(getattr(one, name)) == query[name]]
        return records

    async def _own_records(self, request: web.Request) -> Any:
        user = self._known(request)
        own = [record for record in self.records if record.user_id == str(user.id)]
        shown = [self._shown(one) for one in self._filtered(request, own)]
        return page_of(shown, request.query.get("page", "1"), f"{request.url.origin()}/rest/data/")

    async def _all_records(self, request: web.Request) -> Any:
        if not self._staff(request).is_superuser:
            raise Failure(403, "Only a superuser can use this feature.")
        return [self._shown(one) for one in self._filtered(request, self.records)]

    def _readable_by(self, user: User) -> list[Data]:
        public = {one.id for one in self.store.workspaces.values() if one.is_public}
        return [
            one for one in self.records if user.is_superuser or one.user_id == str(user.id) or one.workspace in public
        ]

    async def _query(self, request: web.Request) -> Any:
        user, fields = self._known(request), await _body(request)
        found = [] if self.query_lags else self._readable_by(user)
        if "title" in fields:
            found = [one for one in found if one.title == fields["title"]]
        query = fields.get("query") or {}
        query = json.loads(query) if isinstance(query, str) else query
        for path, value in query.items():
            found = [one for one in found if value_at(one, path) == value]
        if str(fields.get("all", "")).lower() == "true":
            if len(found) > MAX_DOCUMENT_LIST:
                raise Failure(400, "Number of documents is over the limit.")
            return [self._shown(one) for one in found]
        shown = [self._shown(one) for one in found]
        return page_of(shown, request.query.get("page", "1"), f"{request.url.origin()}/rest/data/query/")

    async def _keywords(self, request: web.Request) -> Any:
        """Full text, and fuzzy: any word that begins alike will do, so it is no key."""
        user, fields = self._known(request), await _body(request)
        words = [word[:4].lower() for word in re.split(r"\W+", str(fields.get("query", ""))) if word]
        found = [one for one in self._readable_by(user) if any(word in one.xml_content.lower() for word in words)]
        shown = [self._shown(one) for one in found]
        return page_of(shown, request.query.get("page", "1"), f"{request.url.origin()}/rest/data/query/keyword/")

    async def _page(self, request: web.Request) -> web.Response:
        # 200 whether or not the caller may see the record: it proves nothing.
        number = request.query.get("id", "")
        record = self.store.records.get(int(number)) if number.isdigit() else None
        page = "<h1>No such record</h1>" if record is None else self._as_html(record)
        return web.Response(text=f"<!doctype html><meta charset=utf-8>{page}", content_type="text/html")

    def _as_html(self, record: Data) -> str:
        owner = self.store.users[int(record.user_id)].username
        workspace = "none: private" if record.workspace is None else self.store.workspaces[record.workspace].title
        facts = {"id": record.id, "owner": owner, "workspace": workspace, "template": TEMPLATE}
        rows = "".join(f"<tr><th>{name}<td>{escape(str(value))}" for name, value in facts.items())
        return f"<h1>{escape(record.title)}</h1><table>{rows}</table><pre>{escape(record.xml_content)}</pre>"

    async def _nowhere(self, request: web.Request) -> web.Response:
        return web.Response(status=404, text=_HTML_404, content_type="text/html")

    # --- users ------------------------------------------------------------------------------------------------

    async def _users(self, request: web.Request) -> Any:
        self._staff(request)
        return [{"id": one.id, "username": one.username, "email": one.email} for one in self.store.users.values()]

    async def _create_user(self, request: web.Request) -> web.Response:
        self._staff(request)
        fields = await _body(request)
        wrong = {
            name: ["This field is required."] for name in ("username", "password") if not str(fields.get(name) or "")
        }
        username, email = str(fields.get("username") or ""), str(fields.get("email") or "")
        if username and not re.fullmatch(r"[\w.@+-]{1,150}", username):
            wrong["username"] = [
                "Enter a valid username. This value may contain only letters, numbers, and @/./+/-/_."
            ]
        if any(one.username == username for one in self.store.users.values()):
            wrong["username"] = ["A user with that username already exists."]
        if email and "@" not in email:
            wrong["email"] = ["Enter a valid email address."]
        if wrong:
            return web.json_response(wrong, status=400)
        user = self.store.add_user(username, email=email)  # first_name and last_name are ignored
        return web.json_response({"id": user.id, "username": username, "email": email}, status=201)

    # --- PIDs -------------------------------------------------------------------------------------------------

    async def _pid_settings(self, request: web.Request) -> Any:
        if not self.pids.installed:
            return await self._nowhere(request)
        self._known(request)
        return self.pids.settings()

    async def _resolve(self, request: web.Request) -> Any:
        holder = self.pids.taken.get(f"{self.pids.provider}/cdcs/{request.match_info['name']}")
        if holder is None:
            raise Failure(404, "PID not found.")
        return self._shown(self.store.records[holder])

    async def _pid_of(self, request: web.Request) -> Any:
        self._known(request)
        wanted = int(request.query.get("data_id", "0"))
        return {"pid": next((pid for pid, holder in self.pids.taken.items() if holder == wanted), None)}


def _answering(handler: Callable[[web.Request], Awaitable[Any]]) -> _Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            result = await handler(request)
        except Failure as failure:
            return web.json_response(failure.body, status=failure.status)
        return result if isinstance(result, web.StreamResponse) else web.json_response(result)

    return answer


async def _body(request: web.Request) -> dict[str, Any]:
    if request.content_type != "application/json":
        raise Failure(500, f'Unsupported media type "{request.content_type}" in request.')
    try:
        fields = json.loads(await request.read())
    except ValueError as error:
        raise Failure(500, f"JSON parse error - {error}") from None
    if not isinstance(fields, dict):
        raise Failure(400, {"non_field_errors": ["Invalid data. Expected a dictionary."]})
    return fields


if __name__ == "__main__":
    run_alone(CdcsServer)
