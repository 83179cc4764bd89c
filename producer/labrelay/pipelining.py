"""Commands sent while Redis still works on those before them: neither side waits for the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import redis

#: Answers are read when so many are outstanding, so that they never fill the buffers between the two.
_IN_FLIGHT = 8

Command = Sequence[str | int]
Item = TypeVar("Item")


def handfuls(items: Sequence[Item], size: Callable[[Item], int], most: int, largest: int) -> Iterator[Sequence[Item]]:
    """Yield items in order, at most so many at once and no larger together, save one that is larger by itself.

    Examples
    --------
    >>> list(handfuls(["a", "b", "c", "long", "d"], len, most=2, largest=3))
    [['a', 'b'], ['c'], ['long'], ['d']]
    """
    start = together = 0
    for end, item in enumerate(items):
        together += size(item)
        if end > start and (end - start == most or together > largest):
            yield items[start:end]
            start, together = end, size(item)
    if items:
        yield items[start:]


def answers_to(client: redis.Redis, commands: Sequence[Command]) -> list[Any]:
    """Return the answer to each command, in order; one that Redis refused is answered by its `ResponseError`.

    redis-py's own pipeline packs everything, sends everything and then waits. When the connection breaks, all are
    sent again, once, as that does: the commands must be harmless when repeated.
    """
    pool = client.connection_pool
    connection = pool.get_connection()
    try:
        return connection.retry.call_with_retry(
            lambda: _stream(connection, commands),
            lambda _: connection.disconnect(),  # type: ignore[no-untyped-call]
        )
    finally:
        pool.release(connection)


def _stream(connection: redis.Connection, commands: Sequence[Command]) -> list[Any]:
    answers: list[Any] = []
    try:
        for number, command in enumerate(commands):
            # A health check reads its own answer, so it must not come while others are outstanding.
            connection.send_packed_command(connection.pack_command(*command), check_health=number == 0)  # type: ignore[no-untyped-call]
            if number - len(answers) >= _IN_FLIGHT:
                answers.append(_answer(connection))
        while len(answers) < len(commands):
            answers.append(_answer(connection))
    except BaseException:
        # Answers may still be on their way, and would be taken for those of the next one who uses the connection.
        connection.disconnect()  # type: ignore[no-untyped-call]
        raise
    return answers


def _answer(connection: redis.Connection) -> Any:
    from redis.exceptions import ResponseError  # noqa: PLC0415  `import labrelay` must not load it

    try:
        return connection.read_response()
    except ResponseError as error:
        return error
