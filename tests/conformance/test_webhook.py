"""The webhook holds the contract, with a receiver that honours keys and with one that does not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from repositories import Webhook

from labrelay_worker.conformance.destinations import HttpDestinationConformance, Server


class WebhookConformance(HttpDestinationConformance):
    honours_keys: bool

    @pytest.fixture
    def server(self) -> Iterator[Server]:
        self.receiver = Webhook(honours_keys=self.honours_keys)
        with self.receiver.serving() as server:
            yield server

    def make(self, url: str) -> Any:
        return self.receiver.destination(url, timeout=5, attach="multipart" if self.honours_keys else "inline")


class TestReceiverThatHonoursKeys(WebhookConformance):
    honours_keys = True


class TestReceiverThatKnowsNoKeys(WebhookConformance):
    honours_keys = False
