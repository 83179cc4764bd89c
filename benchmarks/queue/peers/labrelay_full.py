"""labrelay as shipped: full ledger, three webhooks of which two wait for the first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from labrelay.client import Client
from labrelay.context import ExportContext


class Producer:
    def __init__(self, client: Client) -> None:
        self._client = client

    def single(self, documents: list[dict[str, Any]]) -> None:
        for context in documents:
            self._client.submit(ExportContext.parse(context))

    def urgent(self, documents: list[dict[str, Any]]) -> None:
        for context in documents:
            self._client.submit(ExportContext.parse(context), priority="urgent")

    def bulk(self, documents: list[dict[str, Any]]) -> None:
        self._client.submit_many([ExportContext.parse(context) for context in documents])


@contextmanager
def producer() -> Iterator[Producer]:
    with Client() as client:
        yield Producer(client)
