"""The CDCS test server answers as a real one was measured to (core_main_app 2.18 and 2.23)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from cdcs_parts import Cdcs, nexus
from tests.servers.cdcs import PUBLISHER, ROBOT, STAFF, SUPERUSER


def ask(
    cdcs: Cdcs,
    method: str,
    path: str,
    body: Any = None,
    *,
    token: str | None = SUPERUSER,
    kind: str = "application/json",
) -> tuple[int, Any]:
    """Return status and JSON (or text) of one request; a redirection is not followed."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{cdcs.url}/{path}", data, {"Content-Type": kind}, method=method)
    if token:
        request.add_header("Authorization", f"Token {token}")

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: Any) -> None:
            return None

    try:
        with urllib.request.build_opener(Stay).open(request, timeout=10) as answer:
            status, text = answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            status, text = error.code, error.read().decode()
    try:
        return status, json.loads(text)
    except ValueError:
        return status, text


def new(cdcs: Cdcs, **fields: Any) -> dict[str, Any]:
    template = cdcs.server.template.versions[-1]
    return {"template": template, "title": "t", "xml_content": nexus().decode(), **fields}


def test_nothing_is_unique_and_the_workspace_may_come_along(cdcs: Cdcs) -> None:
    workspace = cdcs.server.workspace.id
    first, second = (ask(cdcs, "POST", "rest/data/", new(cdcs, workspace=workspace)) for _ in range(2))
    assert (first[0], second[0]) == (201, 201)
    assert first[1]["id"] != second[1]["id"]
    assert first[1]["workspace"] == workspace
    assert ask(cdcs, "POST", "rest/data/", new(cdcs))[1]["workspace"] is None


@pytest.mark.parametrize(
    ("fields", "status", "text"),
    [
        ({"title": None}, 400, "required"),
        ({"title": "  "}, 400, "blank"),
        ({"title": "x" * 201}, 400, "200 characters"),
        ({"title": "a\x00"}, 400, "Null characters"),
        ({"title": ".."}, 500, ""),
        ({"title": "x" * 200}, 201, ""),
        ({"title": "a/../../b c é"}, 201, ""),
        ({"template": 999}, 400, "object does not exist"),
        ({"template": "x"}, 400, "Incorrect type"),
        ({"template": None}, 400, "required"),
        ({"workspace": 999}, 400, "object does not exist"),
        ({"xml_content": "<a>"}, 500, "line 1"),
        ({"xml_content": ""}, 500, "Document is empty"),
        ({"xml_content": nexus(inside="<user/>").decode()}, 500, "not expected"),
        ({"xml_content": f"<a>{'x' * 12_000_000}</a>"}, 500, "XML_PARSE_HUGE"),
        ({"xml_content": nexus(inside=f"<notes>{'x' * 3_000_000}</notes>").decode()}, 201, ""),
        ({"xml_content": '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///x">]><a>&x;</a>'}, 500, "Entity 'x' not defined"),
    ],
)
def test_a_new_record_is_refused_as_measured(cdcs: Cdcs, fields: dict[str, Any], status: int, text: str) -> None:
    answer = ask(cdcs, "POST", "rest/data/", new(cdcs, **fields))
    assert answer[0] == status
    assert text in json.dumps(answer[1])


def test_quirks_of_a_new_record(cdcs: Cdcs) -> None:
    server = cdcs.server
    assert ask(cdcs, "POST", "rest/data/", new(cdcs, title=" a "))[1]["title"] == "a"
    assert ask(cdcs, "POST", "rest/data", new(cdcs))[0] == 301
    assert ask(cdcs, "POST", "rest/data/", b"{")[0] == 500
    assert "Unsupported media type" in ask(cdcs, "POST", "rest/data/", b"<a/>", kind="text/xml")[1]["message"]
    wrong = ask(cdcs, "POST", "rest/data/", new(cdcs, template=server.other_template.versions[0]))
    assert wrong == (500, {"message": wrong[1]["message"]})
    assert "No matching global declaration" in wrong[1]["message"]
    server.store.templates[server.template.versions[0]].disabled = True
    assert ask(cdcs, "POST", "rest/data/", new(cdcs, template=server.template.versions[0]))[0] == 201
    content = new(cdcs) | {"content": nexus().decode()}
    del content["xml_content"]
    assert ask(cdcs, "POST", "rest/data/", content)[0] == 400
    server.takes_xml_content = False
    assert "content" in ask(cdcs, "POST", "rest/data/", content)[1]


def test_authentication_is_always_403(cdcs: Cdcs) -> None:
    without = ask(cdcs, "GET", "rest/data/", token=None)
    assert without == (403, {"detail": "Authentication credentials were not provided."})
    assert ask(cdcs, "GET", "rest/data/", token="x") == (403, {"detail": "Invalid token."})
    assert ask(cdcs, "GET", "rest/user/", token=ROBOT)[1] == {
        "detail": "You do not have permission to perform this action."
    }
    assert ask(cdcs, "GET", "rest/admin/data/", token=STAFF) == (
        403,
        {"message": "Only a superuser can use this feature."},
    )


def test_changing(cdcs: Cdcs) -> None:
    number = ask(cdcs, "POST", "rest/data/", new(cdcs), token=ROBOT)[1]["id"]
    one, workspace = f"rest/data/{number}", cdcs.server.workspace.id
    assert ask(cdcs, "PATCH", f"{one}/assign/{workspace}", token=ROBOT)[0] == 403
    assert ask(cdcs, "PATCH", f"{one}/assign/{workspace}", token=PUBLISHER)[0] == 403
    assert [ask(cdcs, "PATCH", f"{one}/assign/{workspace}") for _ in range(2)] == [(200, {})] * 2
    slash = ask(cdcs, "PATCH", f"{one}/assign/{workspace}/")
    assert (slash[0], "<html>" in slash[1]) == (404, True)
    assert ask(cdcs, "PATCH", f"{one}/assign/999") == (404, {"message": "Data or workspace not found."})
    assert ask(cdcs, "PATCH", f"rest/data/999/assign/{workspace}")[0] == 404
    assert ask(cdcs, "PATCH", f"{one}/assign/None")[0] == 500
    assert ask(cdcs, "PATCH", f"{one}/change-owner/1", token=ROBOT)[0] == 403
    assert ask(cdcs, "PATCH", f"{one}/change-owner/1/")[0] == 404
    assert ask(cdcs, "PATCH", f"{one}/change-owner/999")[0] == 500
    assert ask(cdcs, "PATCH", f"{one}/change-owner/1") == (200, {})
    assert ask(cdcs, "GET", "rest/data/?title=t", token=ROBOT)[1]["count"] == 0
    assert ask(cdcs, "PATCH", f"{one}/", {"title": "u"})[1]["title"] == "u"
    assert ask(cdcs, "PATCH", f"{one}/", {"xml_content": "<a/>"})[0] == 500
    assert ask(cdcs, "PATCH", f"{one}/", {"title": "v"}, token=ROBOT)[0] == 403
    assert ask(cdcs, "PUT", f"{one}/", {})[0] == 405
    assert (ask(cdcs, "DELETE", f"{one}/")[0], ask(cdcs, "DELETE", f"{one}/")[0]) == (204, 404)


def test_reading(cdcs: Cdcs) -> None:
    number = ask(cdcs, "POST", "rest/data/", new(cdcs))[1]["id"]
    assert ask(cdcs, "GET", f"rest/data/{number}/", token=None)[0] == 403
    assert ask(cdcs, "GET", f"rest/data/{number}/", token=ROBOT)[0] == 403
    assert ask(cdcs, "GET", f"data?id={number}", token=None)[0] == 200
    ask(cdcs, "PATCH", f"rest/data/{number}/assign/{cdcs.server.workspace.id}")
    assert ask(cdcs, "GET", f"rest/data/{number}/", token=None)[0] == 200
    assert ask(cdcs, "GET", "rest/data/999/")[0] == 404
    assert ask(cdcs, "GET", "rest/data/x/")[0] == 500
    with urllib.request.urlopen(f"{cdcs.url}/rest/data/download/{number}/") as answer:
        assert (answer.headers["Content-Type"], answer.read()) == ("text/xml", nexus())


def test_looking_up(cdcs: Cdcs) -> None:
    for number in range(101):
        inside = f"<id>LR-{number}</id>" if number else "<id>0012345</id>"
        ask(cdcs, "POST", "rest/data/", new(cdcs, title=f"T{number}", xml_content=nexus(inside=inside).decode()))
    own = ask(cdcs, "GET", "rest/data/?page_size=50")[1]
    assert (own["count"], len(own["results"]), own["next"] is None) == (101, 10, False)
    assert ask(cdcs, "GET", "rest/data/?page=11")[1]["next"] is None
    assert ask(cdcs, "GET", "rest/data/?title=t7")[1]["count"] == 0
    assert ask(cdcs, "GET", "rest/data/?title=t7$&regex=true")[1]["count"] == 1
    assert ask(cdcs, "GET", "rest/data/?title=T7", token=PUBLISHER)[1]["count"] == 0
    assert [one["title"] for one in ask(cdcs, "GET", "rest/admin/data/?title=T7")[1]] == ["T7"]
    assert ask(cdcs, "POST", "rest/data/query/", {"query": {}, "title": "T7"})[1]["count"] == 1
    assert ask(cdcs, "POST", "rest/data/query/", {"query": {"Experiment.id": "LR-9"}})[1]["count"] == 1
    assert ask(cdcs, "POST", "rest/data/query/", {"query": {"Experiment.id": "0012345"}})[1]["count"] == 0
    everything = ask(cdcs, "POST", "rest/data/query/", {"query": {}, "all": "true"})
    assert everything == (400, {"message": "Number of documents is over the limit."})
    assert ask(cdcs, "POST", "rest/data/query/keyword/", {"query": "titleless"})[1]["count"] == 101


def test_users(cdcs: Cdcs) -> None:
    fields = {"username": "alice", "email": "a@b.org", "password": "p", "first_name": "Alice"}
    status, user = ask(cdcs, "POST", "rest/user/", fields)
    assert (status, set(user)) == (201, {"id", "username", "email"})
    assert ask(cdcs, "POST", "rest/user/", fields)[0] == 400
    assert ask(cdcs, "POST", "rest/user/", fields | {"username": "alice2"})[0] == 201
    assert ask(cdcs, "POST", "rest/user/", {"username": "bob"})[0] == 400
    assert ask(cdcs, "POST", "rest/user/", fields | {"username": "a b!"})[0] == 400
    assert ask(cdcs, "POST", "rest/user/", fields, token=ROBOT)[0] == 403
    assert len(ask(cdcs, "GET", "rest/user/?username=alice")[1]) == 6


def test_pids(cdcs: Cdcs) -> None:
    server, prefix = cdcs.server, f"{cdcs.url}/pid/rest/local/cdcs"
    assert ask(cdcs, "GET", "pid/rest/settings/")[1]["auto_set_pid"] is False
    server.pids.automatic = True
    given = ask(cdcs, "POST", "rest/data/", new(cdcs))[1]
    assert re.search(rf'pid="{prefix}/\w{{16}}"', given["xml_content"])
    assert "\r" not in given["xml_content"]
    own = new(cdcs, xml_content=nexus(root=f' pid="{prefix}/LR-1"').decode())
    status, first = ask(cdcs, "POST", "rest/data/", own)
    assert status == 201
    assert ask(cdcs, "POST", "rest/data/", own) == (500, {"message": "PID already defined for another instance"})
    assert ask(cdcs, "POST", "rest/data/query/", {"query": {"Experiment.@pid": f"{prefix}/LR-1"}})[1]["count"] == 1
    assert ask(cdcs, "GET", "pid/rest/local/cdcs/LR-1")[0] == 200
    assert ask(cdcs, "GET", "pid/rest/local/cdcs/LR-2")[0] == 404
    assert ask(cdcs, "GET", f"pid/rest/retrieve-data-pid?data_id={first['id']}")[1] == {"pid": f"{prefix}/LR-1"}
    changed = ask(cdcs, "PATCH", f"rest/data/{first['id']}/", {"xml_content": nexus().decode()})[1]
    assert "LR-1" not in changed["xml_content"]
    assert ask(cdcs, "POST", "rest/data/", own)[0] == 201
    foreign = new(cdcs, xml_content=nexus(root=' pid="https://other/1"').decode())
    assert ask(cdcs, "POST", "rest/data/", foreign)[0] == 500
    server.pids.installed = False
    assert ask(cdcs, "GET", "pid/rest/settings/")[0] == 404


def test_the_lists_have_no_order(cdcs: Cdcs) -> None:
    firsts = {ask(cdcs, "GET", "rest/template-version-manager/global/")[1][0]["title"] for _ in range(4)}
    assert len(firsts) == 2


def test_it_runs_alone_and_shows_its_state() -> None:
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.servers.cdcs"],
        cwd=root,
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with urllib.request.urlopen(f"{url}/_control/state") as answer:
            state = json.loads(answer.read())
        process.terminate()
        assert process.wait(20) == 0
    assert {"users", "workspaces", "templates", "records", "pids"} <= state.keys()
