"""A connection kept for lone commands: they are sent and answered right here, within a time.

Handing a call to another thread, so that it can be given up whatever hangs, costs as much as the call itself. Over a
connection that answered a moment ago nothing can hang but the answer, and that can be waited for in so many seconds.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any

import hiredis

from labrelay.pipelining import Command

if TYPE_CHECKING:
    import redis

#: What is larger might not fit into the buffers on the way, and sending it wait for whoever reads.
_LARGEST = 16 * 2**10
#: After such a silence the other side may be gone, and to find out takes longer than a send.
_FRESH_SECONDS = 20.0


class KeptConnection:
    """Keeps one connection of a client's pool once somebody wanted it. Threads may share it: one at a time has it.

    Parameters
    ----------
    client
        Connections are made as its others are.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._pool = client.connection_pool
        self._lock = threading.Lock()
        self._connection: redis.Connection | None = None
        self._answered = 0.0
        self._is_wanted = False

    def ask(self, command: Command, seconds: float) -> Any:
        """Return the answer, or None where it takes more: no connection is ready, it broke, or Redis refused.

        What got None may have been carried out, so the command must be harmless when repeated.

        Raises
        ------
        TimeoutError
            No answer came within so many seconds.
        """
        packed = hiredis.pack_command(tuple(command))  # type: ignore[arg-type]
        if len(packed) > _LARGEST or not self._lock.acquire(blocking=False):
            return None
        try:
            connection = self._ready()
            return None if connection is None else self._answer(connection, packed, seconds)
        finally:
            self._lock.release()

    def keep(self) -> None:
        """Have a connection ready if one was wanted; where it has to be made, that may take long."""
        if not self._is_wanted or not self._lock.acquire(blocking=False):
            return
        try:
            if self._connection is None:
                self._connection = self._pool.get_connection()
                self._answered = time.monotonic()
        finally:
            self._lock.release()

    def _ready(self) -> redis.Connection | None:
        self._is_wanted = True
        connection = self._connection
        if connection is not None and (
            connection.pid != os.getpid() or time.monotonic() - self._answered > _FRESH_SECONDS
        ):
            self._let_go()
        return self._connection

    def _answer(self, connection: redis.Connection, packed: bytes, seconds: float) -> Any:
        from redis.exceptions import RedisError  # noqa: PLC0415  `import labrelay` must not load it

        try:
            connection.send_packed_command([packed], check_health=False)  # type: ignore[no-untyped-call]
            if not connection.can_read(timeout=seconds):
                raise TimeoutError
            answer = connection.read_response()
        except RedisError:
            self._let_go(broken=True)
            return None
        except BaseException:
            # An answer may still be on its way, and would be taken for that of the next one.
            self._let_go(broken=True)
            raise
        self._answered = time.monotonic()
        return answer

    def _let_go(self, *, broken: bool = False) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if broken:
            connection.disconnect()  # type: ignore[no-untyped-call]
        # In a forked child the pool does not know it any more, and leaves it to its parent.
        self._pool.release(connection)
