"""Keep a worker alive when Redis dies under it: the one place where labrelay reaches into kombu.

When the broker connection breaks, Celery closes the channel. kombu 5.7 then tries to give back the messages that the
channel holds, and later to acknowledge those whose tasks end, over the connection that is gone. Both raise
``AttributeError`` on None, which Celery takes for a programming error and ends the worker. Nothing needs to be done
instead: the messages are in Redis's ``unacked`` hash and come back some time, waking exports that are done does
nothing, and the ledger wakes the others.

A Redis that hands over to its replica keeps its connections and refuses writes on them; one that is full or has no
room on its disk does so too. Celery takes such an answer for a programming error as well and ends the worker; here it
is what it means: this connection serves nobody for now, and Celery makes another until one does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from kombu.transport import redis as kombu_redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from labrelay.outages import is_outage

_logger = logging.getLogger(__name__)


class SurvivingQoS(kombu_redis.QoS):
    """Acknowledges and gives back messages only while there is a connection to do it over."""

    def restore_unacked(self, client: Any = None) -> None:
        """Put back what is not acknowledged."""
        if self._is_connected():
            super().restore_unacked(client)  # type: ignore[no-untyped-call]
            return
        _logger.warning(
            "the broker connection is gone; %d wake-ups stay behind, and the ledger wakes their exports again",
            len(self._delivered),
        )
        self._delivered.clear()

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge a message."""
        if self._is_connected():
            super().ack(delivery_tag)  # type: ignore[no-untyped-call]

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Refuse a message, or put it back."""
        if self._is_connected():
            super().reject(delivery_tag, requeue=requeue)  # type: ignore[no-untyped-call]

    def _is_connected(self) -> bool:
        transport = self.channel.connection
        return transport is not None and transport.client is not None


def breaking_at_outages(parse_response: Callable[..., Any]) -> Callable[..., Any]:
    """Return how a Redis client parses answers, with those of an outage taken for the end of the connection."""

    def parse(client: Any, connection: Any, command_name: str, **options: Any) -> Any:
        try:
            return parse_response(client, connection, command_name, **options)
        except ResponseError as error:
            if not is_outage(error):
                raise
            connection.disconnect()
            raise RedisConnectionError(f"Redis takes no wake-ups for now: {error}") from error

    return parse


def install() -> None:
    """Make every Redis channel of this process survive the loss of its connection; to be called once."""
    kombu_redis.Channel.QoS = SurvivingQoS
    mixin = kombu_redis.GlobalKeyPrefixMixin
    setattr(mixin, "parse_response", breaking_at_outages(mixin.parse_response))  # noqa: B010  mypy knows no patches
