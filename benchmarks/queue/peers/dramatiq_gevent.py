"""dramatiq with its gevent worker: the fastest durable peer of the fact sheet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import dramatiq
import gevent
import urllib3
from benchmarks.queue.workload import FIRST, LATER, RECEIVER, REDIS
from dramatiq.brokers.redis import RedisBroker

broker = RedisBroker(url=REDIS)
dramatiq.set_broker(broker)
_http = urllib3.HTTPConnectionPool(urlsplit(RECEIVER).hostname or "", urlsplit(RECEIVER).port, maxsize=400)


@dramatiq.actor(max_retries=2)
def export(context: dict[str, Any]) -> None:
    linked = {**context, "record": _post(FIRST, context)["id"]}
    later = [gevent.spawn(_post, name, linked) for name in LATER]
    gevent.joinall(later, raise_error=True)


def _post(name: str, body: dict[str, Any]) -> dict[str, Any]:
    headers = {"Content-Type": "application/json", "Idempotency-Key": f"{body['session_identifier']}.{name}"}
    answer = _http.request("POST", f"/{name}", body=json.dumps(body), headers=headers)
    if answer.status >= 400:
        raise RuntimeError(answer.status)
    found: dict[str, Any] = answer.json()
    return found


class Producer:
    def single(self, documents: list[dict[str, Any]]) -> None:
        for context in documents:
            export.send(context)

    def bulk(self, documents: list[dict[str, Any]]) -> None:
        self.single(documents)  # it has no bulk way


@contextmanager
def producer() -> Iterator[Producer]:
    yield Producer()
    broker.close()
