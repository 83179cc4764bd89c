"""Commands that are sent while Redis works: answers in order, errors as answers, and nothing left in a connection."""

from __future__ import annotations

import fakeredis
import pytest
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import ResponseError
from redis.retry import Retry

from labrelay.pipelining import Command, answers_to


@pytest.fixture
def client() -> fakeredis.FakeRedis:
    client = fakeredis.FakeRedis(decode_responses=True)
    client.set_retry(Retry(NoBackoff(), 1, supported_errors=(ConnectionLost,)))
    client.ping()  # connected before anything breaks
    return client


def pushes(count: int) -> list[Command]:
    return [("RPUSH", "list", number) for number in range(count)]


@pytest.mark.parametrize("count", [0, 1, 8, 9, 100])
def test_every_command_gets_its_own_answer(client: fakeredis.FakeRedis, count: int) -> None:
    # Given more or fewer commands than are outstanding at once, when they are sent, then none is missed
    assert answers_to(client, lambda: pushes(count), int) == list(range(1, count + 1))
    assert client.lrange("list", 0, -1) == [str(number) for number in range(count)]


def test_a_refused_command_does_not_stop_the_others(client: fakeredis.FakeRedis) -> None:
    # Given one that Redis refuses, when they are sent, then its answer is the error
    refused, taken = answers_to(client, lambda: [("LPUSH",), ("RPUSH", "list", 1)], int)
    assert isinstance(refused, ResponseError)
    assert taken == 1


def test_a_connection_that_breaks_is_made_again_once(
    client: fakeredis.FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a connection that breaks while answers are outstanding
    kind, broken = client.connection_pool.connection_class, list[bool]()
    read = kind.read_response

    def break_once(connection: object, *arguments: object, **named: object) -> object:
        if not broken:
            broken.append(True)
            raise ConnectionLost("it broke")
        return read(connection, *arguments, **named)

    monkeypatch.setattr(kind, "read_response", break_once)
    # When commands are sent, then they are all sent again
    assert len(answers_to(client, lambda: pushes(3), int)) == 3
    assert broken


def test_what_interrupts_leaves_no_answer_for_the_next_one(
    client: fakeredis.FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given somebody who gives up while answers are outstanding
    kind, dropped = client.connection_pool.connection_class, list[bool]()
    drop = kind.disconnect

    def interrupt(*_: object, **__: object) -> object:
        raise KeyboardInterrupt

    def counted(connection: object, *arguments: object) -> None:
        dropped.append(True)
        drop(connection, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(kind, "read_response", interrupt)
        patched.setattr(kind, "disconnect", counted)
        with pytest.raises(KeyboardInterrupt):
            answers_to(client, lambda: pushes(3), int)
    # Then the connection is not used again as it is
    assert dropped
