"""Commands sent while Redis still works on those before them: neither side waits for the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import hiredis

if TYPE_CHECKING:
    import redis
    from redis.exceptions import ResponseError

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


def answers_to(
    client: redis.Redis, commands: Callable[[], Iterable[Command]], read: Callable[[Any], Item]
) -> list[Item | ResponseError]:
    """Return what is read from the answer to each command, in order; one that Redis refused is a `ResponseError`.

    redis-py's own pipeline packs everything, sends everything and then waits. When the connection breaks, all are
    sent again, once, as that does: the commands must be harmless when repeated.

    Parameters
    ----------
    client
        Whose connection is used.
    commands
        Begins to make them; each is made while Redis works on those before it.
    read
        Makes of an answer what is wanted of it.
    """
    pool = client.connection_pool
    connection = pool.get_connection()
    try:
        return connection.retry.call_with_retry(
            lambda: _stream(connection, commands(), read),
            lambda _: connection.disconnect(),  # type: ignore[no-untyped-call]
        )
    finally:
        pool.release(connection)


def _stream(
    connection: redis.Connection, commands: Iterable[Command], read: Callable[[Any], Item]
) -> list[Item | ResponseError]:
    answers: list[Item | ResponseError] = []
    sent = 0
    try:
        for command in commands:
            packed = hiredis.pack_command(tuple(command))  # type: ignore[arg-type]
            # A health check reads its own answer, so it must not come while others are outstanding.
            connection.send_packed_command([packed], check_health=not sent)  # type: ignore[no-untyped-call]
            sent += 1
            if sent - len(answers) > _IN_FLIGHT:
                answers.append(_answer(connection, read))
        while len(answers) < sent:
            answers.append(_answer(connection, read))
    except BaseException:
        # Answers may still be on their way, and would be taken for those of the next one who uses the connection.
        connection.disconnect()  # type: ignore[no-untyped-call]
        raise
    return answers


def _answer(connection: redis.Connection, read: Callable[[Any], Item]) -> Item | ResponseError:
    from redis.exceptions import ResponseError  # noqa: PLC0415  `import labrelay` must not load it

    try:
        answer = connection.read_response()
    except ResponseError as error:
        return error
    return read(answer)
