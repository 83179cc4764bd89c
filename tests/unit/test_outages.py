"""Which answers of Redis mean that it serves nobody for now, and what a worker's broker connection makes of them."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from labrelay.outages import explain, is_demoted, is_full, is_outage
from labrelay_worker.broker import breaking_at_outages

SCRIPT = "Error running script (call to f_1): @user_script: 1: -"
READONLY = "READONLY You can't write against a read only replica."
MISCONF = "MISCONF Errors writing to the AOF file: No space left on device"
FULL = [
    OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),  # Redis 7 and later
    ResponseError(f"{SCRIPT}OOM command not allowed when used memory > 'maxmemory'."),
]
DEMOTED = [ReadOnlyError("You can't write against a read only replica."), ResponseError(f"{SCRIPT}{READONLY}")]
OTHER_OUTAGES = [
    RedisConnectionError("Connection refused"),
    RedisTimeoutError("Timeout reading from socket"),
    ResponseError(MISCONF),
    ResponseError(f"{SCRIPT}{MISCONF}"),
    ResponseError("LOADING Redis is loading the dataset in memory"),
    ResponseError("UNBLOCKED force unblock from blocking operation, instance state changed"),
]
#: The last one's context happens to hold a code.
MISTAKES = [
    ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"),
    ResponseError("Command # 1 (EVALSHA 1 BUSY) of pipeline caused error: WRONGTYPE wrong kind of value"),
    ValueError("OOM"),
]


@pytest.mark.parametrize("error", [*FULL, *DEMOTED, *OTHER_OUTAGES])
def test_what_ends_by_itself_is_an_outage_however_redis_says_it(error: Exception) -> None:
    # Given an answer of a server that serves nobody for now, when it is seen, then the call may be repeated
    assert is_outage(error)


@pytest.mark.parametrize("error", MISTAKES)
def test_a_mistake_is_not_waited_out(error: Exception) -> None:
    # Given an error that would come again for ever, when it is seen, then nobody waits for its end
    assert not is_outage(error)
    assert not is_full(error)
    assert not is_demoted(error)


def test_a_full_and_a_demoted_server_are_told_apart() -> None:
    # Given both, when seen, then only the demoted one's connections are dropped
    assert [is_full(error) for error in (*FULL, *DEMOTED)] == [True, True, False, False]
    assert [is_demoted(error) for error in (*FULL, *DEMOTED)] == [False, False, True, True]


@pytest.mark.parametrize(
    ("error", "cure"),
    [
        *((error, "free memory or raise maxmemory") for error in FULL),
        *((error, "if this goes on, let LABRELAY_REDIS_URL lead there") for error in DEMOTED),
        (ResponseError(f"{SCRIPT}{MISCONF}"), "free space there; its log says more"),
        (RedisConnectionError("Connection refused"), "start it or correct LABRELAY_REDIS_URL"),
    ],
)
def test_each_outage_has_its_cure(error: Exception, cure: str) -> None:
    # Given an outage, when a person is told, then with what to do about it
    assert explain(error)[1] == cure


class Connection:
    is_open = True

    def disconnect(self) -> None:
        self.is_open = False


def answering(error: Exception) -> Any:
    def parse_response(client: object, connection: Connection, command: str) -> None:
        raise error

    return breaking_at_outages(parse_response)


def test_a_wake_up_refused_by_a_replica_breaks_the_connection_and_not_the_worker() -> None:
    # Given a connection to a server that was made a replica
    connection = Connection()

    # When a worker takes a message over it, then Celery sees a lost connection, which it makes again
    with pytest.raises(RedisConnectionError, match="takes no wake-ups for now"):
        answering(ResponseError(READONLY))(None, connection, "BRPOP")
    assert not connection.is_open


def test_a_mistake_of_the_broker_code_is_seen_as_one() -> None:
    # Given an answer that is no outage, when it comes, then it is raised as it is
    connection = Connection()
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        answering(MISTAKES[0])(None, connection, "BRPOP")
    assert connection.is_open
