"""Wake-ups: the Celery messages that name exports, and the broker settings both sides share."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from labrelay.names import IDS_PER_WAKE_UP, QUEUE_EXPORTS, TASK_EXPORT
from labrelay.redaction import redact
from labrelay.settings import ProducerSettings

if TYPE_CHECKING:
    from celery import Celery

_SHOWN_SESSIONS = 5


@dataclass(frozen=True)
class Wake:
    """What a wake-up says of one export: its id travels, the rest is for people reading Flower."""

    export_id: str
    session: str
    instrument: str
    strategy: str

    def __str__(self) -> str:
        return f"session={self.session} instrument={self.instrument} strategy={self.strategy or 'by route'}"


def broker_settings(settings: ProducerSettings) -> dict[str, Any]:
    """Return the Celery settings that producer and worker must agree on (facts: celery-on-redis, section 7)."""
    return {
        "broker_url": celery_url(settings.resolve_redis_url()),
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
            "visibility_timeout": 3600,
            # the default sweep of unacknowledged messages takes about 100 s
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 25,
        },
        "task_publish_retry_policy": {
            "max_retries": 1,
            "interval_start": 0.1,
            "interval_step": 0.4,
            "interval_max": 1,
        },
    }


def celery_url(redis_url: str) -> str:
    """Return a Redis address in Celery's spelling, which differs for Unix sockets."""
    if not redis_url.startswith("unix://"):
        return redis_url
    # Flower does not decode percent signs, and macOS has a blank in its state folder.
    path, mark, options = redis_url.removeprefix("unix://").partition("?")
    return f"redis+socket://{unquote(path)}{mark}{options}"


def producer_app(settings: ProducerSettings) -> Celery:
    """Return a Celery app that can publish wake-ups and nothing else."""
    from celery import Celery  # noqa: PLC0415  `import labrelay` must not load it

    app = Celery("labrelay", set_as_current=False)
    app.conf.update(broker_settings(settings))
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

    def publish(self, wakes: Sequence[Wake], *, again: bool = False) -> None:
        """Publish the exports in as few messages as allowed.

        Raises
        ------
        kombu.exceptions.OperationalError
            The broker is away; whether the message arrived is unknown, and the reconciler settles it.
        """
        by_id = {wake.export_id: wake for wake in wakes}
        with self._app.producer_or_acquire() as producer:
            for ids in _batches(list(by_id)):
                # A lone first wake-up carries the export's own id, so that Flower and `labrelay status` agree.
                task_id = ids[0] if len(ids) == 1 and not again else str(uuid.uuid4())
                self._app.send_task(
                    TASK_EXPORT,
                    kwargs={"ids": list(ids)},
                    task_id=task_id,
                    argsrepr="()",
                    kwargsrepr=_readable([by_id[i] for i in ids]),
                    producer=producer,
                    queue=QUEUE_EXPORTS,
                )

    def close(self) -> None:
        """Close the connections to the broker."""
        self._app.close()


def _readable(wakes: Sequence[Wake]) -> str:
    shown = "; ".join(str(wake) for wake in wakes[:_SHOWN_SESSIONS])
    more = f"; and {len(wakes) - _SHOWN_SESSIONS} more" if len(wakes) > _SHOWN_SESSIONS else ""
    return redact(f"{{{shown}{more}}}")


def _batches(export_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(export_ids), IDS_PER_WAKE_UP):
        yield export_ids[start : start + IDS_PER_WAKE_UP]
