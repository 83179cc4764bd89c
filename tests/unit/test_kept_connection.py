"""Lone commands over a connection that is kept: answered here or not at all, and no answer is taken for another's."""

from __future__ import annotations

import time
from collections.abc import Iterator

import fakeredis
import pytest
from redis.exceptions import ConnectionError as ConnectionLost

from labrelay import kept_connection
from labrelay.errors import LedgerUnavailable
from labrelay.kept_connection import KeptConnection
from labrelay.patience import Patience

PING = ("PING",)


@pytest.fixture
def client() -> Iterator[fakeredis.FakeRedis]:
    with fakeredis.FakeRedis(decode_responses=True) as client:
        yield client


@pytest.fixture
def kept(client: fakeredis.FakeRedis) -> KeptConnection:
    kept = KeptConnection(client)
    kept.ask(PING, 1)
    kept.keep()
    return kept


def test_a_connection_is_kept_once_it_was_wanted(client: fakeredis.FakeRedis) -> None:
    # Given a client that nobody used for lone commands yet
    kept = KeptConnection(client)
    kept.keep()
    # When one is asked, then there is none; but for the next one there is
    assert kept.ask(PING, 1) is None
    kept.keep()
    assert kept.ask(PING, 1) == "PONG"


def test_a_silent_server_costs_the_time_given_and_its_late_answer_nobody_gets(
    client: fakeredis.FakeRedis, kept: KeptConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a server that does not answer
    kind, dropped = client.connection_pool.connection_class, list[bool]()
    drop = kind.disconnect
    with monkeypatch.context() as patched:
        patched.setattr(kind, "can_read", lambda *_, **__: False)
        patched.setattr(kind, "disconnect", lambda self, *_: (dropped.append(True), drop(self)))
        # When it is asked, then it is given up, and its connection with it
        with pytest.raises(TimeoutError):
            kept.ask(("ECHO", "late"), 1)
    assert dropped
    # Then the next one is answered over another
    assert kept.ask(PING, 1) is None
    kept.keep()
    assert kept.ask(PING, 1) == "PONG"


def test_a_connection_that_broke_is_made_again_the_usual_way(
    client: fakeredis.FakeRedis, kept: KeptConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a connection that breaks, when it is asked, then nobody waits for a new one
    def lost(*_: object, **__: object) -> None:
        raise ConnectionLost("it broke")

    with monkeypatch.context() as patched:
        patched.setattr(client.connection_pool.connection_class, "read_response", lost)
        assert kept.ask(PING, 1) is None
    kept.keep()
    assert kept.ask(PING, 1) == "PONG"


def test_what_redis_refuses_is_left_to_the_usual_way(kept: KeptConnection) -> None:
    # Given a script that the server lost, when it is asked for, then the answer is not an error
    assert kept.ask(("EVALSHA", "0" * 40, 0), 1) is None


def test_what_may_not_fit_into_the_buffers_is_not_sent(kept: KeptConnection) -> None:
    # Given a command that takes a reader to be sent, when it is asked, then it goes the usual way
    assert kept.ask(("ECHO", "x" * 2**20), 1) is None
    assert kept.ask(PING, 1) == "PONG"


@pytest.mark.parametrize("change", ["silence", "fork"])
def test_a_connection_that_may_be_dead_is_not_used(
    kept: KeptConnection, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    # Given a long silence, or another process since the last answer
    if change == "silence":
        monkeypatch.setattr(kept_connection, "_FRESH_SECONDS", -1.0)
    else:
        monkeypatch.setattr(kept_connection.os, "getpid", lambda: -1)
    # When it is asked, then no connection is ready
    assert kept.ask(PING, 1) is None


def test_who_finds_it_in_use_does_not_wait(kept: KeptConnection) -> None:
    # Given another thread that uses it, when it is asked, then it goes the usual way
    with kept._lock:
        assert kept.ask(PING, 60) is None


def test_a_call_answered_here_takes_no_thread() -> None:
    # Given a call that can be made here, when it is, then the other is not
    assert Patience(1).call(lambda: pytest.fail("in a thread"), here=lambda seconds: f"{seconds:g} s") == "1 s"


def test_a_call_that_cannot_be_made_here_is_made_in_a_thread() -> None:
    # Given one that cannot, when it is called, then the other answers
    assert Patience(1).call(lambda: "there", here=lambda _: None) == "there"


def test_waiting_here_uses_up_the_same_patience() -> None:
    # Given a second of patience
    patience = Patience(1)

    def silent(seconds: float) -> None:
        time.sleep(seconds)
        raise TimeoutError

    # When a call made here gets no answer, then it is an outage, and none of the patience is left for another
    with pytest.raises(LedgerUnavailable, match="within 1 s"):
        patience.call(lambda: "there", here=silent)
    assert patience.spent >= 1
    assert patience.call(lambda: False, here=lambda seconds: seconds == 0)
