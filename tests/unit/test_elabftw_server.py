"""The test server answers as a real eLabFTW does, in its odd ways too."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from elab import Elab, elab_server
from tests.servers.elabftw import SITE_URL, ElabServer
from tests.servers.elabftw_calls import ADMIN, OTHER, READER, WRITER
from tests.servers.elabftw_schema import DOCUMENT

from labrelay_worker.http import HttpClient
from labrelay_worker.http_answers import Answer
from labrelay_worker.tls import TlsOptions


@pytest.fixture
def elab() -> Iterator[Elab]:
    with elab_server() as elab:
        yield elab


def ask(
    elab: Elab, method: str, path: str, body: Any = None, *, key: str = WRITER, kind: str = "application/json"
) -> Answer:
    async def once() -> Answer:
        async with HttpClient(tls=TlsOptions(), timeout=5, headers={"Authorization": key}) as http:
            data = body if isinstance(body, aiohttp.FormData | None) else io.BytesIO(json.dumps(body).encode())
            headers = {} if isinstance(body, aiohttp.FormData | None) else {"Content-Type": kind}
            return await http.request(method, f"{elab.url}/api/v2/{path}", headers=headers, data=data)

    return asyncio.run(once())


def read(elab: Elab, path: str, *, key: str = WRITER) -> Any:
    answer = ask(elab, "GET", path, key=key)
    assert answer.status == 200
    return json.loads(answer.body)


def form(content: bytes = b"data", name: str = "a.xml", comment: str = "c") -> aiohttp.FormData:
    form = aiohttp.FormData(quote_fields=False)
    form.add_field("comment", comment)
    form.add_field("file", content, filename=name)
    return form


def make(elab: Elab, **fields: Any) -> str:
    return ask(elab, "POST", "experiments", fields).headers["Location"].rsplit("/", 1)[-1]


def test_what_is_made_is_named_by_an_address_of_another_host_and_an_empty_body(elab):
    answer = ask(elab, "POST", "experiments", {"title": "a"})
    assert (answer.status, answer.body) == (201, b"")
    assert answer.headers["Location"] == f"{SITE_URL}/api/v2/experiments/1"


@pytest.mark.parametrize(
    ("method", "path", "body", "key", "kind", "status"),
    [
        ("GET", "info", None, "nobody", "", 401),
        ("POST", "experiments", {}, READER, "application/json", 400),
        ("POST", "experiments", {}, WRITER, "application/json; charset=utf-8", 400),
        ("GET", "experiments/99", None, WRITER, "", 404),
        ("GET", "experiments/1", None, OTHER, "", 403),
        ("GET", "teams/1", None, WRITER, "", 403),
        ("GET", "teams/1", None, ADMIN, "", 200),
        ("GET", "nowhere", None, WRITER, "", 404),
        ("GET", "experiments?extended=what%3F%3F", None, WRITER, "", 400),
        ("PATCH", "experiments/1", {"tags": ["a"]}, WRITER, "application/json", 400),
        ("PATCH", "experiments/1", {"metadatamerge": {"extra_fields": {}}}, WRITER, "application/json", 400),
        ("PATCH", "experiments/1", {"metadata": {"extra_fields": {}}}, WRITER, "application/json", 500),
        ("PATCH", "experiments/1", {"metadata": "{}"}, WRITER, "application/json", 200),
    ],
)
def test_it_refuses_with_the_real_ones_status(elab, method, path, body, key, kind, status):
    make(elab, title="a")
    answer = ask(elab, method, path, body, key=key, kind=kind)
    assert answer.status == status
    if status == 500:
        assert answer.json()["code"] == 3140


def test_fields_of_one_change_are_stored_one_by_one(elab):
    # Given two experiments of one category with a number each
    for number in (1, 2):
        make(elab, title="a", category=1)
        ask(elab, "PATCH", f"experiments/{number}", {"custom_id": number})

    # When a change has a title and a number that is taken, then the title stays changed
    answer = ask(elab, "PATCH", "experiments/2", {"title": "b", "custom_id": 1})
    assert (answer.status, answer.json()["message"][:14]) == (400, "Custom ID is a")
    assert read(elab, "experiments/2")["title"] == "b"


def test_a_deleted_one_can_be_read_deleted_again_and_given_files_but_not_changed(elab):
    make(elab, title="a")
    assert [ask(elab, "DELETE", "experiments/1").status for _ in range(2)] == [204, 204]
    assert read(elab, "experiments/1")["state"] == 3
    refused = ask(elab, "PATCH", "experiments/1", {"title": "b"})
    assert (refused.status, refused.json()["code"]) == (400, 422)
    assert ask(elab, "POST", "experiments/1/uploads", form()).status == 201
    assert read(elab, "experiments") == []
    assert len(read(elab, "experiments?state=1,2,3")) == 1


def test_lists_are_short_newest_first_and_without_text(elab):
    for number in range(20):
        make(elab, title=f"t{number}", body="x")
    rows = read(elab, "experiments")
    assert [row["title"] for row in rows] == [f"t{n}" for n in range(19, 4, -1)]
    assert not {"body", "metadata"} & rows[0].keys()
    assert read(elab, "experiments?full=1&limit=1")[0]["body"] == "x"
    assert len(read(elab, "experiments?limit=15&offset=15")) == 5
    assert read(elab, "experiments", key=OTHER) == []


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ('extrafield:s:"my key":abc1', True),
        ('extrafield:s:"my key":ABC1', True),
        ('extrafield:s:"my key":abc', False),
        ('extrafield:"my key":bc', True),
        ('extrafield:s:"my key":ab%25', True),
        ('extrafield:s:"my key":abc_', True),
        ('extrafield:s:"other":abc1', False),
    ],
)
def test_the_search_folds_case_and_knows_wildcards(elab, query, found):
    make(elab, title="a", metadata={"extra_fields": {"my key": {"type": "text", "value": "abc1"}}})
    rows = read(elab, f"experiments?extended={query.replace(' ', '%20')}")
    assert bool(rows) is found
    assert all("metadata" in row for row in rows)


def test_tags_are_folded_and_deleting_them_deletes_all(elab):
    make(elab, title="a", tags=["TEM", "anna"])
    make(elab, title="b", tags=["tem"])
    assert read(elab, "experiments/2")["tags"] == "TEM"
    ask(elab, "PATCH", "experiments/1/tags/1", {"action": "unreference"})
    assert read(elab, "experiments/1")["tags"] == "anna"
    ask(elab, "POST", "experiments/1/tags", {"tag": "x"})
    ask(elab, "DELETE", "experiments/1/tags")
    assert read(elab, "experiments/1/tags") == []


def test_the_same_file_twice_is_there_twice_and_large_ones_have_no_hash(elab):
    make(elab, title="a")
    elab.server.hash_below = 5
    for content in (b"data", b"data", b"larger"):
        assert ask(elab, "POST", "experiments/1/uploads", form(content)).status == 201
    rows = read(elab, "experiments/1/uploads")
    assert [row["filesize"] for row in rows] == [6, 4, 4]
    assert (rows[0]["hash"], rows[1]["hash"][:8]) == (None, "3a6eb079")
    assert ask(elab, "GET", "experiments/1/uploads/3?format=binary").body == b"larger"


def test_a_replaced_file_is_archived(elab):
    make(elab, title="a")
    ask(elab, "POST", "experiments/1/uploads", form())
    ask(elab, "POST", "experiments/1/uploads/1", form(b"new"))
    assert [row["id"] for row in read(elab, "experiments/1/uploads")] == [2]
    assert [row["id"] for row in read(elab, "experiments/1/uploads?state=2")] == [1]


def test_file_names_lose_their_folders_and_php_is_refused(elab):
    make(elab, title="a")
    ask(elab, "POST", "experiments/1/uploads", form(name="a/b/c.xml"))
    assert read(elab, "experiments/1/uploads/1")["real_name"] == "c.xml"
    assert ask(elab, "POST", "experiments/1/uploads", form(name="a.php")).status == 400


def test_too_large_is_a_page_of_the_web_server_or_an_error_of_php(elab):
    make(elab, title="a")
    elab.server.max_file = 10
    answer = ask(elab, "POST", "experiments/1/uploads", form(b"x" * 11))
    assert (answer.status, answer.json()["message"]) == (400, "Error reading file!")
    elab.server.max_request = 100
    answer = ask(elab, "POST", "experiments/1/uploads", form(b"x" * 101))
    assert (answer.status, answer.body[:6]) == (413, b"<html>")


def test_a_refused_tag_leaves_the_experiment_behind(elab):
    elab.server.teams[1].user_create_tag = 0
    assert ask(elab, "POST", "experiments", {"title": "a", "tags": ["new"]}).status == 400
    assert len(elab.server.alive()) == 1


def test_the_text_is_purified_and_the_title_is_one_line(elab):
    body = '<h1 class="x">a</h1><script>alert(1)</script><img src="data:image/png;base64,AA" alt="x"><thead>b</thead>'
    make(elab, title=" a\r\nb ", body=body)
    entry = read(elab, "experiments/1")
    assert (entry["title"], entry["body"]) == ("a b", "<h1>a</h1><img>b")
    assert ask(elab, "POST", "experiments", {"body": "x" * 4_120_001}).status == 400


def test_links_are_named_oddly_and_some_fields_are_ignored(elab):
    make(elab, title="a", custom_id=5)
    make(elab, title="b")
    answer = ask(elab, "POST", "experiments/1/experiments_links/2", {})
    assert answer.headers["Location"].endswith("/experiments2experiments/2")
    assert read(elab, "experiments/1")["custom_id"] is None
    assert elab.server.ignored == ["POST experiments: custom_id"]


@pytest.mark.skipif(not DOCUMENT.exists(), reason="the OpenAPI document is not at hand")
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "experiments", {"title": 5}),
        ("POST", "experiments", {"content_type": 7}),
        ("POST", "experiments", {"metadata": {"extra_fields": {"a": {"type": "colour"}}}}),
        ("GET", "experiments?extendet=a", None),
        ("GET", "experiments?limit=many", None),
        ("POST", "experiments/1/tags", {"tagg": "a"}),
    ],
)
def test_what_contradicts_the_official_document_is_refused_and_remembered(elab, method, path, body):
    make(elab, title="a")
    assert ask(elab, method, path, body).status == 400
    assert len(elab.server.violations) == 1


def test_its_state_is_json():
    server = ElabServer()
    assert json.loads(json.dumps(server.state())).keys() >= {"experiments", "uploads", "tags", "links"}
