"""The shelf of docs/writing-a-destination.md: records under keys, for those who have the token."""

from __future__ import annotations

import hashlib
from typing import Any

from aiohttp import web
from tests.servers.base import TestServer

TOKEN = "librarian-0123456789"


class ShelfServer(TestServer):
    def __init__(self) -> None:
        super().__init__()
        self._books: dict[str, bytes] = {}

    def books_of(self, key: str) -> list[bytes]:
        return [self._books[key]] if key in self._books else []

    def state(self) -> dict[str, Any]:
        return {key: hashlib.sha256(book).hexdigest() for key, book in self._books.items()}

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_get("/books/", self._list)
        router.add_get("/books/{key}", self._tell)
        router.add_put("/books/{key}", self._put)

    async def _list(self, request: web.Request) -> web.Response:
        _require_token(request)
        return web.json_response(sorted(self._books))

    async def _tell(self, request: web.Request) -> web.Response:
        _require_token(request)
        key = request.match_info["key"]
        if key not in self._books:
            raise web.HTTPNotFound
        return web.json_response({"url": str(request.url), "sha256": hashlib.sha256(self._books[key]).hexdigest()})

    async def _put(self, request: web.Request) -> web.Response:
        _require_token(request)
        self._books[request.match_info["key"]] = await request.read()
        return web.Response(status=201)


def _require_token(request: web.Request) -> None:
    if request.headers.get("Authorization") != f"Bearer {TOKEN}":
        raise web.HTTPUnauthorized
