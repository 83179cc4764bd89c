"""Wake-ups: the Celery messages that tell workers to look, and the broker settings both sides share."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from labrelay.names import QUEUE_EXPORTS, TASK_EXPORT
from labrelay.redaction import redact
from labrelay.settings import ProducerSettings

if TYPE_CHECKING:
    from celery import Celery

#: After so long an unacknowledged message goes to another worker.
VISIBILITY_SECONDS = 3600

_SHOWN_SESSIONS = 5


class Named(Protocol):
    """What a wake-up says of one export to people who read Flower."""

    @property
    def export_id(self) -> str:
        """Which one."""

    @property
    def session(self) -> str:
        """The session it was made of."""

    @property
    def instrument(self) -> str:
        """The instrument of the session."""

    @property
    def strategy(self) -> str:
        """What was named; empty: routes and settings decide."""


@dataclass(frozen=True)
class Wake:
    """An export by what a wake-up says of it."""

    export_id: str
    session: str
    instrument: str
    strategy: str


def broker_settings(settings: ProducerSettings) -> dict[str, Any]:
    """Return the Celery settings that producer and worker must agree on (facts: celery-on-redis, section 7)."""
    address = settings.redis_address.broker()
    return {
        **address,
        # pickle would be code execution for anyone who can write to Redis
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "task_default_queue": QUEUE_EXPORTS,
        # the ledger is the truth; a result backend would add two round trips per task and a second truth
        "task_ignore_result": True,
        "task_send_sent_event": True,
        # without timeouts a publish to a frozen Redis blocks for ever
        "broker_pool_acquire_timeout": 10,
        "broker_transport_options": {
            "global_keyprefix": settings.key_prefix,
            # a wake-up that comes again meets a lease or a finished export, so this need only exceed a usual task
            "visibility_timeout": VISIBILITY_SECONDS,
            # the default sweep of unacknowledged messages takes about 100 s
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 25,
            **address["broker_transport_options"],
        },
        "task_publish_retry_policy": {
            "max_retries": 1,
            "interval_start": 0.1,
            "interval_step": 0.4,
            "interval_max": 1,
        },
    }


def producer_app(settings: ProducerSettings) -> Celery:
    """Return a Celery app that can publish wake-ups and nothing else."""
    from celery import Celery  # noqa: PLC0415  `import labrelay` must not load it

    app = Celery("labrelay", set_as_current=False)
    app.conf.update(broker_settings(settings))
    app.amqp  # noqa: B018  loads what publishing needs
    # The workers' longer timeouts would only keep a publish hanging that the submit has given up on.
    app.conf.broker_transport_options |= {
        "socket_timeout": settings.redis_timeout,
        "socket_connect_timeout": settings.redis_timeout,
    }
    return app


class WakeUps:
    """Publish wake-ups; losing or doubling one loses and doubles nothing."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def ring(self, count: int, wakes: Sequence[Named], *, again: bool = False) -> None:
        """Publish so many wake-ups, each good for as many ready exports as a worker takes at once.

        A first one for one export names it, and carries its id: Flower and `labrelay status` agree then.

        Parameters
        ----------
        count
            How many; the ledger says so.
        wakes
            What they are for, or the first of them, for people.
        again
            Some of them were woken before.

        Raises
        ------
        kombu.exceptions.OperationalError
            The broker is away; whether the messages arrived is unknown, and the reconciler settles it.
        """
        lone = wakes[0].export_id if len(wakes) == count == 1 and not again else None
        readable = _readable(wakes)
        with (
            _lost_channels_are_outages(),
            self._app.producer_or_acquire() as producer,
            _together(producer, count),
        ):
            for _ in range(count):
                self._app.send_task(
                    TASK_EXPORT,
                    kwargs={"ids": [lone] if lone else [], "looks": True},
                    task_id=lone or str(uuid.uuid4()),
                    argsrepr="()",
                    kwargsrepr=readable,
                    producer=producer,
                    queue=QUEUE_EXPORTS,
                )

    def close(self) -> None:
        """Close the connections to the broker."""
        self._app.close()


@contextmanager
def _lost_channels_are_outages() -> Iterator[None]:
    """Say of a channel that lost its connection what it means; kombu 5.7 stumbles over the None it left there."""
    try:
        yield
    except AttributeError as error:
        if error.obj is not None:
            raise
        from kombu.exceptions import OperationalError  # noqa: PLC0415  `import labrelay` must not load it

        raise OperationalError("the connection to the broker broke while a wake-up was published") from error


@contextmanager
def _together(producer: Any, count: int) -> Iterator[None]:
    """Publish several in one round trip. A lone one goes by itself: Celery repeats it when the connection breaks."""
    if count <= 1:
        yield
        return
    from kombu.exceptions import BatchPublishError, OperationalError  # noqa: PLC0415  `import labrelay` must not load it

    try:
        with producer.batch(max_size=2 * count):  # each message, and the event that it was sent
            yield
    except BatchPublishError as error:
        raise OperationalError("the connection to the broker broke while wake-ups were published") from error


def _readable(wakes: Sequence[Named]) -> str:
    shown = "; ".join(
        f"session={wake.session} instrument={wake.instrument} strategy={wake.strategy or 'by route'}"
        for wake in wakes[:_SHOWN_SESSIONS]
    )
    more = f"; and {len(wakes) - _SHOWN_SESSIONS} more" if len(wakes) > _SHOWN_SESSIONS else ""
    return redact(f"{{{shown}{more}}}")
