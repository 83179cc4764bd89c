"""Who calls an eLabFTW, with what, and how it refuses: what every request passes before anything is done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from tests.servers.elabftw_schema import as_documented, request_schemas


@dataclass(frozen=True)
class Account:
    """An API key with whom it stands for."""

    userid: int
    team: int
    can_write: bool = True
    admin: bool = False


#: The accounts; the number before the dash is the key's id.
KEYS = {
    "1-4f7cwriter0001": Account(userid=1, team=1),
    "2-4f7creader0002": Account(userid=1, team=1, can_write=False),
    "3-4f7cother00003": Account(userid=2, team=2),
    "4-4f7cadmin00004": Account(userid=3, team=1, admin=True),
}
WRITER, READER, OTHER, ADMIN = KEYS


@dataclass
class Team:
    """A team's settings."""

    id: int
    name: str
    user_create_tag: int = 1
    force_exp_tpl: int = 0
    categories: dict[int, str] = field(default_factory=lambda: {1: "Routine", 2: "Development"})
    status: dict[int, str] = field(default_factory=lambda: {1: "Running", 2: "Done"})
    tags: dict[int, str] = field(default_factory=dict)


class Refusal(Exception):
    """An answer that is an error; the body's code is not always the status."""

    def __init__(self, status: int, message: str, description: str = "", *, code: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"code": code or status, "message": message, "description": description}


@dataclass(frozen=True)
class Call:
    """One request of somebody who may make it."""

    account: Account
    ids: Mapping[str, str]
    query: Mapping[str, str]
    #: The JSON, or the fields of a form: texts, and files as name and content.
    body: dict[str, Any]


Handler = Callable[[Call], Awaitable[web.Response]]


def guarded(
    handler: Handler, *, max_request: Callable[[], int], violations: list[str]
) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Return a handler that knows who calls, and refuses as the real one does.

    Parameters
    ----------
    max_request
        Bytes of a form above which the web server in front refuses with a page.
    violations
        Gets what contradicts the OpenAPI document.
    """

    async def answer(request: web.Request) -> web.Response:
        try:
            account = KEYS.get(request.headers.get("Authorization", ""))
            if account is None:
                raise Refusal(401, "Authentication required", "No corresponding API key found!")
            if request.method != "GET" and not account.can_write:
                raise Refusal(400, "You are using a read-only key to execute a write action.")
            if int(request.headers.get("Content-Length", "0")) > max_request():
                page = "<html>\r\n<head><title>413 Request Entity Too Large</title></head>\r\n</html>"
                return web.Response(status=413, text=page, content_type="text/html")
            kind = request.headers.get("Content-Type", "") if request.can_read_body else ""
            body = await _body(request, kind)
            if fault := _contradiction(request, kind.partition(";")[0], body):
                violations.append(fault)
                raise Refusal(400, "The request contradicts the OpenAPI document.", fault)
            return await handler(Call(account, request.match_info, request.query, body))
        except Refusal as refusal:
            return web.json_response(refusal.body, status=refusal.status)

    return answer


async def _body(request: web.Request, kind: str) -> dict[str, Any]:
    if not request.can_read_body:
        return {}
    if kind.startswith("multipart/form-data"):
        fields: dict[str, Any] = {}
        async for part in await request.multipart():
            data = bytes(await part.read(decode=False))
            fields[part.name] = data.decode() if part.filename is None else (part.filename, data)
        return fields
    if kind != "application/json":
        raise Refusal(400, "Incorrect content-type header.", "It must be application/json")
    try:
        body = await request.json()
    except ValueError as error:
        raise Refusal(400, f"Error decoding json payload: {error}") from None
    return body


def _contradiction(request: web.Request, kind: str, body: dict[str, Any]) -> str | None:
    schemas = request_schemas()
    if schemas is None:
        return None
    if kind == "application/json":
        content = as_documented(request.method, body)
    else:
        content = {name: value if isinstance(value, str) else "a file" for name, value in body.items()}
    return schemas.fault(
        request.method, request.path.removeprefix("/api/v2"), list(request.query.items()), kind, content
    )
