"""An eLabFTW with API v2 that keeps experiments, tags and uploads, and answers as the real one does.

``python -m tests.servers.elabftw --port N``; API keys: see `KEYS`. Requests are held against the official OpenAPI
document where it is at hand, and always against the checks below.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from aiohttp import web
from tests.servers.base import TestServer, run_alone
from tests.servers.elabftw_calls import KEYS, Account, Call, Refusal, Team, guarded
from tests.servers.elabftw_rules import LONGEST_BODY, cleaned_tag, filtered_title, folded, matches, purified

from labrelay_worker.conformance.faults import CONTROL

NORMAL, ARCHIVED, DELETED = 1, 2, 3
#: What the server calls itself; clients reach it at another address.
SITE_URL = "https://elab.example.org"
_KNOWN = frozenset({"title", "body", "tags", "metadata", "category", "status", "content_type"})
_COLUMNS = frozenset({"title", "body", "metadata", "category", "status", "content_type", "rating", "state", "date"})


class ElabServer(TestServer):
    """One instance with two teams."""

    def __init__(self) -> None:
        super().__init__()
        self.teams = {1: Team(1, "Microscopy"), 2: Team(2, "Other")}
        self.experiments: dict[int, dict[str, Any]] = {}
        self.uploads: dict[int, dict[str, Any]] = {}
        self.contents: dict[int, bytes] = {}
        self.links: list[tuple[int, int]] = []
        #: What of the requests was ignored without a word, as the real one does.
        self.ignored: list[str] = []
        self.violations: list[str] = []
        #: nginx refuses a larger request with a page, PHP a larger file with an error.
        self.max_request, self.max_file = 105_000_000, 104_857_600
        #: Files of this size and more are not hashed.
        self.hash_below = 100_000_000
        self._clock = 0

    def add_routes(self, router: web.UrlDispatcher) -> None:
        root = "/api/v2"
        one = f"{root}/experiments/{{id:[0-9]+}}"
        for method, path, handler in [
            ("GET", f"{root}/info", self._info),
            ("GET", f"{root}/apikeys", self._apikeys),
            ("GET", f"{root}/users/me", self._me),
            ("GET", f"{root}/teams/{{team}}", self._team),
            ("GET", f"{root}/teams/{{team}}/experiments_categories", self._categories),
            ("GET", f"{root}/teams/{{team}}/experiments_status", self._status),
            ("POST", f"{root}/experiments", self._create),
            ("GET", f"{root}/experiments", self._search),
            ("GET", one, self._read),
            ("PATCH", one, self._change),
            ("DELETE", one, self._delete),
            ("GET", f"{one}/tags", self._read_tags),
            ("POST", f"{one}/tags", self._add_tags),
            ("DELETE", f"{one}/tags", self._delete_tags),
            ("DELETE", f"{one}/tags/{{tag}}", self._delete_tags),
            ("PATCH", f"{one}/tags/{{tag}}", self._unreference_tag),
            ("POST", f"{one}/experiments_links/{{other}}", self._add_link),
            ("GET", f"{one}/uploads", self._read_uploads),
            ("POST", f"{one}/uploads", self._upload),
            ("GET", f"{one}/uploads/{{upload}}", self._read_upload),
            ("POST", f"{one}/uploads/{{upload}}", self._replace_upload),
            ("PATCH", f"{one}/uploads/{{upload}}", self._change_upload),
            ("DELETE", f"{one}/uploads/{{upload}}", self._delete_upload),
        ]:
            router.add_route(
                method, path, guarded(handler, max_request=lambda: self.max_request, violations=self.violations)
            )
        router.add_route("*", "/{path:(?!" + CONTROL.lstrip("/") + ").*}", self._nowhere)

    def state(self) -> dict[str, Any]:
        return {
            "experiments": [self._row(entry, full=True) for entry in self.experiments.values()],
            "uploads": list(self.uploads.values()),
            "tags": {team.id: team.tags for team in self.teams.values()},
            "links": self.links,
            "ignored": self.ignored,
            "violations": self.violations,
        }

    # --- for tests: what people do in the web pages ----------------------------------------------------------

    def alive(self) -> list[dict[str, Any]]:
        """Return the experiments that are not deleted, with their normal uploads and tags."""
        return [self._row(e, full=True) for e in self.experiments.values() if e["state"] != DELETED]

    def duplicate(self, number: int) -> int:
        """Copy an experiment as the button does: extra fields that say so are blanked."""
        copy = json.loads(json.dumps(self.experiments[number]))
        for extra in copy["metadata"]["extra_fields"].values():
            if extra.get("blank_value_on_duplicate"):
                extra["value"] = ""
        return self._store(copy | {"title": f"{copy['title']} I"})

    def content(self, number: int) -> dict[str, bytes]:
        """Return the attached files of an experiment by name."""
        return {row["real_name"]: self.contents[row["id"]] for row in self._uploads_of(number, {NORMAL})}

    async def _nowhere(self, request: web.Request) -> web.Response:
        return web.Response(status=404, text="<html><h1>404 Not Found</h1></html>", content_type="text/html")

    # --- about the account ---------------------------------------------------------------------------------

    async def _info(self, call: Call) -> web.Response:
        return web.json_response({"elabftw_version": "5.2.0", "elabftw_version_int": 50200})

    async def _apikeys(self, call: Call) -> web.Response:
        mine = {key: one for key, one in KEYS.items() if one.userid == call.account.userid}
        rows = [
            {"id": int(key.partition("-")[0]), "name": "a key", "can_write": int(one.can_write), "team": one.team}
            for key, one in mine.items()
        ]
        return web.json_response(rows)

    async def _me(self, call: Call) -> web.Response:
        account: Account = call.account
        teams = [{"id": account.team, "name": self.teams[account.team].name, "is_admin": int(account.admin)}]
        return web.json_response({"userid": account.userid, "fullname": "Some One", "teams": teams})

    async def _team(self, call: Call) -> web.Response:
        team, account = self._the_team(call), call.account
        if not account.admin:
            raise Refusal(403, "Forbidden", "Insufficient permissions")
        rows = {k: getattr(team, k) for k in ("id", "name", "user_create_tag", "force_exp_tpl")}
        return web.json_response(rows)

    async def _categories(self, call: Call) -> web.Response:
        return web.json_response([{"id": k, "title": v} for k, v in self._the_team(call).categories.items()])

    async def _status(self, call: Call) -> web.Response:
        return web.json_response([{"id": k, "title": v} for k, v in self._the_team(call).status.items()])

    def _the_team(self, call: Call) -> Team:
        named, own = call.ids["team"], call.account.team
        if named not in ("current", str(own)):
            raise Refusal(403, "Forbidden", "Insufficient permissions")
        return self.teams[own]

    # --- experiments -----------------------------------------------------------------------------------------

    async def _create(self, call: Call) -> web.Response:
        body, account = call.body, call.account
        if self.teams[account.team].force_exp_tpl:
            raise Refusal(400, "Experiments must use a template!")
        self.ignored += [f"POST experiments: {name}" for name in body if name not in _KNOWN]
        metadata = body.get("metadata")
        if isinstance(metadata, str):
            metadata = json.loads(metadata)
        number = self._store(
            {
                "userid": account.userid,
                "team": account.team,
                "title": filtered_title(body.get("title") or "Untitled"),
                "body": _body(body.get("body") or ""),
                "metadata": metadata,
                "category": body.get("category") or None,
                "status": body.get("status") or None,
                "content_type": body.get("content_type") or 1,
                "state": NORMAL,
                "locked": 0,
                "custom_id": self._next_custom_id(body.get("category")),
                "tags": [],
            }
        )
        # After the experiment, and without a transaction: a refusal here leaves it behind.
        for tag in body.get("tags") or []:
            self._tag(self.experiments[number], tag, account)
        return _made(f"experiments/{number}")

    async def _search(self, call: Call) -> web.Response:
        query, team = call.query, call.account.team
        states = {int(state) for state in query.get("state", "1").split(",")}
        extended = query.get("extended")
        found = [e for e in self.experiments.values() if e["team"] == team and e["state"] in states]
        if extended is not None:
            try:
                found = [entry for entry in found if matches(extended, entry)]
            except ValueError:
                raise Refusal(400, "Advanced search query could not be parsed.") from None
        if "q" in query:
            found = [e for e in found if query["q"].lower() in f"{e['title']} {e['body']}".lower()]
        found.sort(key=lambda entry: -entry["changed"])
        start, limit = int(query.get("offset", "0")), int(query.get("limit", "15"))
        whole = extended is not None or query.get("full") == "1"
        rows = [self._row(entry) for entry in found[start : start + limit]]
        brief = [{k: v for k, v in row.items() if k not in ("body", "metadata")} for row in rows]
        return web.json_response(rows if whole else brief)

    async def _read(self, call: Call) -> web.Response:
        return web.json_response(self._row(self._the_entry(call), full=True))

    async def _change(self, call: Call) -> web.Response:
        entry, body = self._the_entry(call), call.body
        if entry["state"] == DELETED:
            raise Refusal(400, "Only the Restore action is allowed on a deleted entity.", code=422)
        if entry["state"] == ARCHIVED:
            raise Refusal(400, "Only the Unarchive action is allowed on an archived entity.", code=422)
        if entry["locked"]:
            raise Refusal(403, "Forbidden", "Insufficient permissions")
        # Each field is stored by itself: one that is refused leaves those before it changed.
        for name, value in body.items():
            self._set(entry, name, value)
        return web.json_response(self._row(entry, full=True))

    def _set(self, entry: dict[str, Any], name: str, value: Any) -> None:
        if name == "metadatamerge":
            if not isinstance(value, str):
                raise Refusal(400, "Metadata to merge must be a JSON string.")
            fields = json.loads(value).get("extra_fields", {})
            present = entry["metadata"].setdefault("extra_fields", {})
            for key, extra in fields.items():
                present[key] = present[key] | {"value": extra.get("value")} if key in present else extra
        elif name == "metadata":
            try:
                entry["metadata"] = json.loads(value) if isinstance(value, str) else _no_json()
            except ValueError:
                raise Refusal(500, "Invalid JSON text in the column 'metadata'.", code=3140) from None
        elif name == "custom_id":
            same = (e for e in self.experiments.values() if e is not entry and e["category"] == entry["category"])
            if entry["category"] and any(e["custom_id"] == value for e in same):
                raise Refusal(400, "Custom ID is already used! Try another one.")
            entry["custom_id"] = value
        elif name not in _COLUMNS:
            raise Refusal(400, "Invalid update target.")
        else:
            entry[name] = {"title": filtered_title, "body": _body}.get(name, lambda v: v)(value)
        self._touch(entry)

    async def _delete(self, call: Call) -> web.Response:
        entry = self._the_entry(call)
        entry["state"] = DELETED
        for upload in self._uploads_of(entry["id"], {NORMAL}):
            upload["state"] = DELETED
        return web.Response(status=204)

    # --- tags and links --------------------------------------------------------------------------------------

    async def _read_tags(self, call: Call) -> web.Response:
        entry = self._the_entry(call)
        names = self.teams[entry["team"]].tags
        return web.json_response([{"tag_id": number, "tag": names[number]} for number in entry["tags"]])

    async def _add_tags(self, call: Call) -> web.Response:
        entry, body = self._the_entry(call), call.body
        numbers = [self._tag(entry, tag, call.account) for tag in body.get("tags") or [body["tag"]]]
        return _made(f"experiments/{entry['id']}/tags/{numbers[-1]}")

    def _tag(self, entry: dict[str, Any], tag: str, account: Account) -> int:
        team, name = self.teams[entry["team"]], cleaned_tag(tag)
        if not name:
            raise Refusal(400, "Input is too short! (minimum: 1)")
        number = next((n for n, known in team.tags.items() if folded(known) == folded(name)), 0)
        if not number:
            if not (team.user_create_tag or account.admin):
                raise Refusal(400, "Users cannot create tags.")
            if len(name) > 255:
                raise Refusal(500, "Data too long for column 'tag'", code=1406)
            number = len(team.tags) + 1
            team.tags[number] = name
        entry["tags"].append(number)
        return number

    async def _delete_tags(self, call: Call) -> web.Response:
        self._the_entry(call)["tags"] = []  # all of them, whatever the id
        return web.Response(status=204)

    async def _unreference_tag(self, call: Call) -> web.Response:
        entry, number = self._the_entry(call), int(call.ids["tag"])
        entry["tags"] = [tag for tag in entry["tags"] if tag != number]
        return web.json_response(self._row(entry, full=True))

    async def _add_link(self, call: Call) -> web.Response:
        entry, other = self._the_entry(call), int(call.ids["other"])
        self.links.append((entry["id"], other))
        return _made(f"experiments/{entry['id']}/experiments2experiments/{other}")

    # --- uploads ---------------------------------------------------------------------------------------------

    async def _read_uploads(self, call: Call) -> web.Response:
        states = {int(state) for state in call.query.get("state", "1").split(",")}
        return web.json_response(self._uploads_of(self._the_entry(call)["id"], states))

    async def _upload(self, call: Call) -> web.Response:
        entry = self._the_entry(call)  # a deleted one takes files, too
        number = self._keep(entry, call.body, call.account)
        return _made(f"experiments/{entry['id']}/uploads/{number}")

    async def _replace_upload(self, call: Call) -> web.Response:
        entry, old = self._the_entry(call), self._the_upload(call)
        old["state"] = ARCHIVED
        number = self._keep(entry, call.body | {"comment": old["comment"]}, call.account)
        return _made(f"experiments/{entry['id']}/uploads/{number}")

    async def _read_upload(self, call: Call) -> web.Response:
        upload = self._the_upload(call)
        if call.query.get("format") == "binary":
            return web.Response(body=self.contents[upload["id"]], content_type="application/octet-stream")
        return web.json_response(upload)

    async def _change_upload(self, call: Call) -> web.Response:
        upload = self._the_upload(call)
        upload |= {k: v for k, v in call.body.items() if k in ("real_name", "comment", "state")}
        self._touch(self._the_entry(call))
        return web.json_response(upload)

    async def _delete_upload(self, call: Call) -> web.Response:
        self._the_upload(call)["state"] = DELETED
        return web.Response(status=204)

    def _keep(self, entry: dict[str, Any], form: dict[str, Any], account: Account) -> int:
        if not isinstance(form.get("file"), tuple) or len(form["file"][1]) > self.max_file:
            raise Refusal(400, "Error reading file!")
        name, content = form["file"]
        name = name.replace("\\", "/").rsplit("/", 1)[-1]
        if name.lower().endswith(".php"):
            raise Refusal(400, "PHP files are forbidden!")
        hashed = len(content) < self.hash_below
        number = len(self.uploads) + 1
        self.contents[number] = content
        self.uploads[number] = {
            "id": number,
            "item_id": entry["id"],
            "type": "experiments",
            "userid": account.userid,
            "real_name": name,
            "long_name": f"ab/{number:032x}",
            "comment": form.get("comment"),
            "filesize": len(content),
            "hash": hashlib.sha256(content).hexdigest() if hashed else None,
            "hash_algorithm": "sha256" if hashed else None,
            "state": NORMAL,
            "storage": 1,
            "immutable": 0,
        }
        self._touch(entry)
        return number

    # --- rows ------------------------------------------------------------------------------------------------

    def _store(self, entry: dict[str, Any]) -> int:
        number = len(self.experiments) + 1
        self.experiments[number] = entry | {"id": number}
        self._touch(self.experiments[number])
        return number

    def _touch(self, entry: dict[str, Any]) -> None:
        self._clock += 1
        entry["changed"] = self._clock

    def _next_custom_id(self, category: int | None) -> int | None:
        used = [e["custom_id"] for e in self.experiments.values() if category and e["category"] == category]
        return max((one for one in used if one), default=0) + 1 if any(used) else None

    def _the_entry(self, call: Call) -> dict[str, Any]:
        entry = self.experiments.get(int(call.ids["id"]))
        if entry is None:
            raise Refusal(404, "Nothing to show with this id")
        if entry["team"] != call.account.team:
            raise Refusal(403, "Forbidden", "Insufficient permissions")
        return entry

    def _the_upload(self, call: Call) -> dict[str, Any]:
        upload = self.uploads.get(int(call.ids["upload"]))
        if upload is None or upload["item_id"] != self._the_entry(call)["id"]:
            raise Refusal(404, "Nothing to show with this id")
        return upload

    def _uploads_of(self, number: int, states: set[int]) -> list[dict[str, Any]]:
        rows = [row for row in self.uploads.values() if row["item_id"] == number and row["state"] in states]
        return rows[::-1]

    def _row(self, entry: dict[str, Any], *, full: bool = False) -> dict[str, Any]:
        names = self.teams[entry["team"]].tags
        metadata = entry["metadata"]
        row = entry | {
            "tags": "|".join(dict.fromkeys(names[number] for number in entry["tags"])) or None,
            "tags_id": ",".join(map(str, entry["tags"])) or None,
            "metadata": None if metadata is None else json.dumps(metadata),
        }
        if full:
            row |= {"uploads": self._uploads_of(entry["id"], {NORMAL}), "metadata_decoded": metadata}
            row["sharelink"] = f"{SITE_URL}/experiments.php?mode=view&id={entry['id']}"
        return row


def _made(path: str) -> web.Response:
    # An empty body of type text/html, and an address that may have another host than the one that was called.
    return web.Response(status=201, headers={"Location": f"{SITE_URL}/api/v2/{path}"}, content_type="text/html")


def _body(text: str) -> str:
    if len(text.encode()) > LONGEST_BODY:
        raise Refusal(400, "Content is too big! Cannot save!")
    return purified(text)


def _no_json() -> Any:
    raise ValueError


if __name__ == "__main__":
    run_alone(ElabServer)
