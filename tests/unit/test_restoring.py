"""What `labrelay restored` does to one export, without a server."""

from __future__ import annotations

import json
from typing import Any

import fakeredis
import pytest

from labrelay.errors import NotPermitted
from labrelay.ledger import Entry, Ledger
from labrelay.names import Keys
from labrelay.results import ExportState
from labrelay.scripts import script_source

_ID = "11111111-1111-5111-8111-111111111111"


@pytest.fixture
def client() -> fakeredis.FakeRedis:
    return fakeredis.FakeRedis(decode_responses=True)


@pytest.fixture
def ledger(client: fakeredis.FakeRedis) -> Ledger:
    ledger = Ledger(client, Keys("labrelay:"), 30)
    entry = Entry(_ID, "digest", "{}", "session", "TEM", "all", ())
    ledger.submit([entry], replace=False)
    return ledger


def doubt(client: fakeredis.FakeRedis, *names: str) -> int:
    script: Any = client.register_script(script_source("labrelay_worker", "doubt"))
    return int(script(args=["labrelay:", _ID, "here", *names]))


def test_what_has_no_receipt_is_in_doubt_and_what_has_one_is_not(client: fakeredis.FakeRedis, ledger: Ledger) -> None:
    # Given a receipt of one destination of two
    client.hset(f"labrelay:export:{_ID}", "r:cdcs", "{}")

    # When the export is doubted
    doubts = doubt(client, "cdcs", "archive")

    # Then the other one is asked first, of this revision, and somebody looks at once
    row = client.hgetall(f"labrelay:export:{_ID}")
    assert doubts == 1
    assert "i:cdcs" not in row
    assert json.loads(row["i:archive"])["revision"] == 1
    assert row["state"] == ExportState.QUEUED
    assert client.zscore("labrelay:due", _ID) <= float(row["updated"])


def test_a_worker_that_outlived_the_restore_is_fenced_off(client: fakeredis.FakeRedis, ledger: Ledger) -> None:
    # Given an export that a worker held when the backup was made
    key = f"labrelay:export:{_ID}"
    client.hset(key, mapping={"state": "running", "lease_owner": "old", "lease_until": "9999999999999", "token": "7"})
    client.zrem("labrelay:state:queued", _ID)
    client.zadd("labrelay:state:running", {_ID: 1})

    # When it is doubted, then its token is void and its lease gone
    doubt(client, "archive")
    row = client.hgetall(key)
    assert row["token"] == "8"
    assert "lease_until" not in row
    assert client.zscore("labrelay:state:running", _ID) is None


def test_an_intent_of_before_is_kept_as_it_was(client: fakeredis.FakeRedis, ledger: Ledger) -> None:
    client.hset(f"labrelay:export:{_ID}", "i:archive", '{"attempt": 3, "revision": 1}')
    assert doubt(client, "archive") == 1
    assert json.loads(client.hget(f"labrelay:export:{_ID}", "i:archive"))["attempt"] == 3


@pytest.mark.parametrize("state", ["delivered", "dead", "unknown", "cancelled"])
def test_what_is_finished_is_left_alone(client: fakeredis.FakeRedis, ledger: Ledger, state: str) -> None:
    client.hset(f"labrelay:export:{_ID}", "state", state)
    before = client.hgetall(f"labrelay:export:{_ID}")
    assert doubt(client, "archive") == -1
    assert client.hgetall(f"labrelay:export:{_ID}") == before


@pytest.mark.parametrize(
    "said",
    ["this user has no permissions to run the 'hset' command", "The user executing the script can't access a key"],
)
def test_a_user_without_rights_is_told_so_in_words(ledger: Ledger, said: str) -> None:
    from redis.exceptions import NoPermissionError, ResponseError

    kind = NoPermissionError if said.startswith("this user") else ResponseError
    with pytest.raises(NotPermitted, match="may not do that"), ledger.reachable():
        raise kind(said)
