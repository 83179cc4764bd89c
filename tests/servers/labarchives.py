"""A LabArchives of our own: signatures, user ids and access are checked, names need not be unique, all is kept.

Built from what the API's documents and its clients say. What a caller must cope with is all there: children in any
order, the request (user id and signature included) repeated in every answer, errors under several statuses, a GET
that makes an object. ``arrivals`` in the state says when each access key's requests came, on one monotonic clock.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import random
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qsl, urlencode
from xml.etree.ElementTree import Element, SubElement, tostring

from aiohttp import web
from aiohttp.typedefs import Handler
from tests.servers.base import TestServer, run_alone
from tests.servers.labarchives_methods import METHODS, Call, add_texts
from tests.servers.labarchives_store import ApiError, Entry, Store, User

from labrelay_worker.conformance.faults import CONTROL

WINDOW_MS = 120_000


class LabArchivesServer(TestServer):
    """One server.

    Parameters
    ----------
    clock_ahead_ms
        How far its clock is ahead of this machine's.
    error_status
        HTTP status of every error; None: as each error has it.
    """

    def __init__(self, *, clock_ahead_ms: int = 0, error_status: int | None = None) -> None:
        super().__init__()
        self.store = Store()
        self.clock_ahead_ms, self.error_status = clock_ahead_ms, error_status
        self.arrivals: defaultdict[str, list[float]] = defaultdict(list)
        self._auth_codes: dict[str, str] = {}
        self._lock = threading.Lock()
        self._order = random.Random(4)

    def app(self) -> web.Application:
        """Return the application; arrivals are noted before any fault happens."""
        app = super().app()
        app.middlewares.insert(0, self._note_arrival)
        return app

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_get("/api_user_login", self._login_page)
        router.add_route("*", "/api/{group}/{method}", self._answer)

    def state(self) -> dict[str, Any]:
        with self._lock:
            return {
                "tree": self.store.tree(),
                "arrivals": {akid: list(times) for akid, times in self.arrivals.items()},
            }

    def gaps(self, akid: str) -> list[float]:
        """Return the seconds between the requests of an access key."""
        with self._lock:
            return [later - earlier for earlier, later in pairwise(self.arrivals[akid])]

    @property
    def pages(self) -> list[dict[str, Any]]:
        """Every page with its path and entries."""
        return [node for node in self.state()["tree"] if node["is_page"]]

    @web.middleware
    async def _note_arrival(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not request.path.startswith(CONTROL):
            with self._lock:
                self.arrivals[request.query.get("akid", "")].append(time.monotonic())
        return await handler(request)

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.read()  # a body that breaks off ends here, and nothing of it is kept
        path = f"{request.match_info['group']}/{request.match_info['method']}"
        parameters = dict(request.query)
        if request.content_type == "application/x-www-form-urlencoded":
            parameters |= dict(parse_qsl(body.decode(), keep_blank_values=True))
        try:
            verb, handler = METHODS.get(path, ("", None))
            if handler is None or verb != request.method:
                return web.Response(
                    status=404, text="<html><body>no such page</body></html>", content_type="text/html"
                )
            with self._lock:
                root = handler(self.store, Call(parameters, body, self._user(path, parameters), self._now_ms()))
        except ApiError as error:
            return self._refusal(error)
        if isinstance(root, Entry):
            headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{urlencode({'': root.file_name})[1:]}"}
            return web.Response(body=root.content, content_type="application/octet-stream", headers=headers)
        _add_request(root, path, parameters)
        self._shuffle(root)
        return web.Response(body=tostring(root, "utf-8", xml_declaration=True), content_type="text/xml")

    async def _login_page(self, request: web.Request) -> web.Response:
        """Redirect as after a login: the signature is that of the address to return to."""
        target = request.query.get("redirect_uri", "")
        try:
            self._check_signature(request.query, target)
        except ApiError as error:
            return self._refusal(error)
        user = next(user for user in self.store.users if user.akid == request.query["akid"])
        code = f"code-{len(self._auth_codes) + 1}"
        self._auth_codes[code] = user.uid
        raise web.HTTPFound(f"{target}?{urlencode({'auth_code': code, 'email': user.email})}")

    def _user(self, path: str, parameters: Mapping[str, str]) -> User | None:
        """Check who asks."""
        if path == "utilities/epoch_time":
            if parameters.get("akid") not in self.store.passwords:
                raise ApiError(4506, "invalid access key id", 401)
            return None
        self._check_signature(parameters, path.partition("/")[2])
        if path == "users/user_access_info":
            return self._by_login(parameters)
        uid, akid = parameters.get("uid"), parameters["akid"]
        if uid is None:
            raise ApiError(4500, "uid: mandatory parameter is missing")
        user = next((user for user in self.store.users if (user.uid, user.akid) == (uid, akid)), None)
        if user is None:
            raise ApiError(4514, f"login or password incorrect for uid={uid}", 401)  # errors may repeat what was sent
        return user

    def _check_signature(self, parameters: Mapping[str, str], method: str) -> None:
        for name in ("akid", "expires", "sig"):
            if not parameters.get(name):
                raise ApiError(4500, f"{name}: mandatory parameter is missing")
        password = self.store.passwords.get(parameters["akid"])
        if password is None:
            raise ApiError(4506, "invalid access key id", 401)
        if not parameters["expires"].isdigit() or abs(self._now_ms() - int(parameters["expires"])) > WINDOW_MS:
            raise ApiError(4504, "the value of expires is too old", 401)
        message = f"{parameters['akid']}{method}{parameters['expires']}".encode()
        right = base64.b64encode(hmac.new(password.encode(), message, hashlib.sha512).digest()).decode()
        if not hmac.compare_digest(right, parameters["sig"]):
            raise ApiError(4520, f"the signature is invalid: {parameters['sig']}", 401)

    def _by_login(self, parameters: Mapping[str, str]) -> User:
        for name in ("login_or_email", "password"):
            if not parameters.get(name):
                raise ApiError(4500, f"{name}: mandatory parameter is missing")
        password = parameters["password"]
        by_code = self._auth_codes.pop(password, None)
        for user in self.store.users:
            is_named = (user.akid, user.email) == (parameters["akid"], parameters["login_or_email"])
            if is_named and (password == user.token or by_code == user.uid):
                return user
        raise ApiError(4514, "login or password incorrect", 401)

    def _refusal(self, error: ApiError) -> web.Response:
        root = Element("error")
        SubElement(root, "error-code").text = str(error.code)
        SubElement(root, "error-description").text = error.description
        self._shuffle(root)
        return web.Response(
            status=self.error_status or error.status, body=tostring(root, "utf-8"), content_type="text/xml"
        )

    def _now_ms(self) -> int:
        return time.time_ns() // 1_000_000 + self.clock_ahead_ms

    def _shuffle(self, root: Element) -> None:
        for element in root.iter():
            children = list(element)
            if element.get("type") != "array":  # the order of folders and entries means something
                self._order.shuffle(children)
            element[:] = children


def _add_request(root: Element, path: str, parameters: Mapping[str, str]) -> None:
    """Repeat the request in the answer, with everything that was signed with."""
    group, _, method = path.partition("/")
    shown = {name.replace("_", "-"): value for name, value in parameters.items() if name != "entry_data"}
    add_texts(SubElement(root, "request"), {"class": group, "method": method, **shown})


if __name__ == "__main__":
    run_alone(LabArchivesServer)
