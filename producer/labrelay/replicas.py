"""A write counts when enough replicas hold it: a failover forgets what only the old master had."""

from __future__ import annotations

from typing import Final

#: Milliseconds that a write waits for its replicas; a replica on the same network answers in one.
REPLICA_WAIT_MS: Final = 1000


def require_replicas(answer: object, wanted: int) -> None:
    """Check the answer of ``WAIT``.

    Raises
    ------
    redis.exceptions.ConnectionError
        Too few replicas hold the write. To a caller it is as if the answer had been lost: the write may survive, and
        repeating it is safe.
    """
    from redis.exceptions import ConnectionError as RedisConnectionError  # noqa: PLC0415

    if isinstance(answer, Exception):
        raise answer
    if not isinstance(answer, int) or answer < wanted:
        msg = (
            f"only {answer} of {wanted} replicas confirmed the write: start the missing ones, or lower "
            "LABRELAY_REDIS_REPLICAS"
        )
        raise RedisConnectionError(msg)
