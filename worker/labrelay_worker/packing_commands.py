"""Commands to Redis are packed in C: redis-py's asyncio half does it in Python."""

from __future__ import annotations

from typing import Any

import hiredis
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import DataError


def pack_in_c(client: Redis) -> None:
    """Let every connection that a client will make pack with hiredis, as those of redis-py's blocking half do."""
    pool = client.connection_pool
    pool.connection_class = _packing(pool.connection_class)


def _packing(kind: type[AbstractConnection]) -> type[AbstractConnection]:
    class Packing(kind):  # type: ignore[valid-type, misc]  # whichever kind the address asks for
        def pack_command(self, *args: Any) -> list[bytes]:
            # The name may be of several words, which the server expects one by one.
            name = args[0].encode() if isinstance(args[0], str) else args[0]
            try:
                return [hiredis.pack_command((*name.split(), *args[1:]))]
            except TypeError as error:
                raise DataError(str(error)) from None

    return Packing
