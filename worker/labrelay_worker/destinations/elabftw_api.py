"""eLabFTW's API v2 as typed calls: what it answers, read; what it refuses, typed by what to do about it.

Its own rules that shape the requests: a JSON body must be announced as ``application/json`` and nothing more; a
created object is named by the last segment of ``Location``, whose host may be another; ``metadata`` is an object when
an experiment is made and a JSON string when it is changed.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
import yarl

from labrelay.errors import Misconfigured, OutcomeUnknown, Rejected, Transient
from labrelay_worker.destinations.elabftw_answers import ARCHIVED, NORMAL, Attachment, Entry, Upload, read_entry
from labrelay_worker.destinations.uploads import checked_chunks
from labrelay_worker.http import HttpClient
from labrelay_worker.http_answers import Answer, error_of

#: Rows asked for at once; a shorter page is the last one.
PAGE = 50
_ERROR_TEXT = 300
_NOT_FOUND = 404
_NO_SUCH_ACCESS = frozenset({403, _NOT_FOUND, 405})
_REFUSALS = frozenset({400, 403, 404, 405, 413, 415, 422})
#: Refusals that mean the account or its team, not this record. Servers that speak another language give the
#: general text instead.
_CURES = {
    "read-only key": "make an API key that may write",
    "cannot create tags": "let the users of the team create tags, use an admin's API key, or set tags = false",
    "must use a template": "stop enforcing templates for experiments in the team, or use a key of another team",
}
#: What the server says when a JSON column got something else.
_NO_JSON_COLUMN = 3140


class ElabApi:
    """The calls of one account.

    Parameters
    ----------
    http
        Carries the API key in its headers.
    base
        Address of the server, without ``/api/v2`` and without a slash at its end.
    """

    def __init__(self, http: HttpClient, base: str) -> None:
        self._http = http
        self._root = yarl.URL(f"{base}/api/v2/", encoded=True)

    async def search(self, field: str, value: str) -> list[Entry]:
        """Return the experiments that are not deleted and may have this value in this extra field.

        The server folds case and knows wildcards, so the caller compares again.
        """
        found: list[Entry] = []
        offset = 0
        while True:
            query = {"extended": f'extrafield:s:"{field}":{value}', "state": f"{NORMAL},{ARCHIVED}"}
            page = await self.read("experiments", {**query, "limit": str(PAGE), "offset": str(offset)})
            if not isinstance(page, list):
                raise Transient("eLabFTW answered a search with something that is no list")
            for row in page:
                whole = isinstance(row, dict) and "metadata" in row
                entry = read_entry(row) if whole else await self.entry(str(row["id"]))
                found += [entry] if entry is not None else []
            if len(page) < PAGE:
                return found
            offset += PAGE

    async def entry(self, record_id: str) -> Entry | None:
        """Return one experiment with its uploads; None if there is none of this id."""
        path = f"experiments/{record_id}"
        answer = await self._http.request("GET", self._url(path))
        return None if answer.status == _NOT_FOUND else read_entry(_json(answer, path))

    async def create(self, fields: Mapping[str, object]) -> str:
        """Make an experiment and return its id.

        Raises
        ------
        OutcomeUnknown
            It may have been made; a refusal of the tags, too, comes after the experiment was made.
        """
        answer = await self._send("POST", "experiments", fields)
        return _created(answer)

    async def change(self, record_id: str, fields: Mapping[str, object]) -> None:
        """Change fields in the order given. Each is stored by itself: when one fails, those before it stay.

        Raises
        ------
        OutcomeUnknown
            Something answered that is no eLabFTW, a login page for instance.
        """
        await self._patch(f"experiments/{record_id}", fields)

    async def add_tags(self, record_id: str, tags: Sequence[str]) -> None:
        """Add tags; the server folds them to the spelling of its own."""
        answer = await self._send("POST", f"experiments/{record_id}/tags", {"tags": list(tags)})
        _created(answer)

    async def attach(self, record_id: str, file: Attachment) -> None:
        """Send a file, streamed and checked; the same file twice makes two uploads.

        Raises
        ------
        Rejected
            It is not what was submitted, or the server does not take it.
        Transient
            It cannot be read on this worker at the moment.
        """
        path = f"experiments/{record_id}/uploads"
        payload = aiohttp.payload.AsyncIterablePayload(checked_chunks(file.path, sha256=file.sha256))
        payload._size = file.size  # so the request has a length, which stricter servers ask for
        # PHP takes file names as they are written: percent signs would stay in them.
        form = aiohttp.FormData(quote_fields=False)
        form.add_field("comment", file.comment)
        form.add_field("file", payload, filename=file.name)
        answer = await self._http.request("POST", self._url(path), data=form)
        _require(answer, path, safe=False)

    async def archive(self, record_id: str, upload: Upload) -> None:
        """Put an upload among the archived ones, where people still find it."""
        await self._patch(f"experiments/{record_id}/uploads/{upload.id}", {"state": ARCHIVED})

    async def read(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """Return the JSON of a path.

        Raises
        ------
        Transient
            The answer is no JSON: a proxy's page, for instance.
        """
        return _json(await self._http.request("GET", self._url(path).with_query(query)), path)

    async def _patch(self, path: str, fields: Mapping[str, object]) -> None:
        answer = await self._send("PATCH", path, fields)
        if "id" not in answer.json():
            raise OutcomeUnknown(f"HTTP {answer.status} without what was changed")

    async def _send(self, method: str, path: str, fields: Mapping[str, object]) -> Answer:
        # A stream, because the client library warns of a large body in one piece; `replace` is for lone surrogates.
        body = io.BytesIO(json.dumps(fields, ensure_ascii=False).encode(errors="replace"))
        headers = {"Content-Type": "application/json"}
        answer = await self._http.request(method, self._url(path), headers=headers, data=body)
        _require(answer, path, safe=False)
        return answer

    def _url(self, path: str) -> yarl.URL:
        return self._root.joinpath(path, encoded=True)


def _json(answer: Answer, path: str) -> Any:
    _require(answer, path, safe=True)
    try:
        return json.loads(answer.body)
    except ValueError:
        text = "the answer is no JSON; is there an eLabFTW at the url, or a login page before it?"
        raise Transient(text) from None


def _require(answer: Answer, path: str, *, safe: bool) -> None:
    """Raise what the answer stands for unless it is a success; classified by the status, never by the body's code."""
    status, text = answer.status, f"HTTP {answer.status}: {_explanation(answer)}"
    if status == 401:  # noqa: PLR2004
        raise Misconfigured(f"{text} (eLabFTW does not know the api_key; make one under Settings, API keys)")
    if status == 413:  # noqa: PLR2004
        raise Rejected(f"{text} (larger than the server or a proxy before it takes; see max_upload)")
    if status in _NO_SUCH_ACCESS and "/" not in path:
        # About no single experiment: every session would be refused like this.
        raise Misconfigured(f"{text} (check the url, and that the user of the api_key may use {path})")
    if status in _REFUSALS:
        cure = next((cure for sign, cure in _CURES.items() if sign in text.lower()), None)
        raise Rejected(text) if cure is None else Misconfigured(f"{text} ({cure})")
    if status == 500 and answer.json().get("code") == _NO_JSON_COLUMN:  # noqa: PLR2004
        raise Rejected(text)
    error = error_of(answer, safe=safe)
    if error is not None:
        raise error


def _explanation(answer: Answer) -> str:
    fields = answer.json()
    told = " ".join(str(fields[name]) for name in ("message", "description") if fields.get(name))
    page = re.sub(r"<[^>]*>|\s+", " ", answer.body[: 4 * _ERROR_TEXT].decode(errors="replace"))
    return (told or page).strip()[:_ERROR_TEXT] or "no explanation"


def _created(answer: Answer) -> str:
    location = answer.headers.get("Location", "")
    name = location.rstrip("/").rsplit("/", 1)[-1]
    if not re.fullmatch(r"[0-9]+", name):
        raise OutcomeUnknown(f"HTTP {answer.status} without the id of what was made")
    return name
