"""Threads of a blocking destination: who holds one, and who gives it back."""

from __future__ import annotations

import asyncio
import threading

import pytest

from labrelay.errors import RateLimited
from labrelay.redaction import redact
from labrelay.results import DestinationInfo
from labrelay_worker.guarding import RecordGuard
from labrelay_worker.hosting import HostedDestination


class Hangs:
    """A destination whose every call hangs until the test lets it go."""

    name, priority, enabled = "hangs", 0, True

    def __init__(self) -> None:
        self.free = threading.Event()

    def validate_config(self) -> tuple[bool, str | None]:
        self.free.wait(30)
        return True, None

    def export(self, context: object) -> None:
        self.free.wait(30)


def host(destination: Hangs, timeout: float) -> HostedDestination:
    info = DestinationInfo(name="hangs", type="hangs")
    return HostedDestination(
        destination, info, records=RecordGuard(()), redact=redact, call_timeout=timeout, threads=1
    )


def test_a_probe_that_hangs_neither_takes_nor_gives_a_thread():
    async def scenario() -> None:
        # Given a destination with one thread, and a probe that is given up while it hangs
        destination = Hangs()
        hosted = host(destination, 0.05)
        assert await hosted.validate_config() == (False, "no answer within 0.05 s")
        destination.free.set()
        while any(thread.name == "labrelay-hangs" for thread in threading.enumerate()):
            await asyncio.sleep(0.005)

        # Then there is one place still, not two
        async with hosted.slot():
            with pytest.raises(RateLimited, match="busy or hung"):
                async with hosted.slot():
                    pytest.fail("a second place appeared")

    asyncio.run(scenario())
