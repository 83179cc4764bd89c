"""What the tests of the CDCS destination share: a server, sessions with Nexus records, one delivery at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.servers.cdcs import SUPERUSER, TEMPLATE, CdcsServer

from labrelay.context import ExportContext
from labrelay.redaction import Redactor
from labrelay.results import DestinationInfo, ExportResult, Receipt, utc_now
from labrelay_worker.conformance.serving import ServerThread
from labrelay_worker.destinations.account import Account
from labrelay_worker.destinations.cdcs import CdcsDestination
from labrelay_worker.destinations.cdcs_options import CdcsOptions
from labrelay_worker.guarding import RecordGuard
from labrelay_worker.hosting import HostedDestination

NAMESPACE = "https://data.nist.gov/od/dm/nexus/experiment/v1.0"
ALICE = {"username": "alice", "user_email": "alice@example.org", "user_first_name": "Alice"}


def nexus(title: str = "Ånström", *, files: tuple[str, ...] = (), inside: str = "", root: str = "") -> bytes:
    """Return a record with line ends and characters that are easily spoilt."""
    datasets = "".join(f"<dataset><location>{name}</location></dataset>" for name in files)
    activity = f"<acquisitionActivity seqno='0'>{datasets}</acquisitionActivity>" if files else ""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\r\n<!-- µ -->\r\n'
        f'<Experiment xmlns="{NAMESPACE}"{root}>\r\n  <title>{title}</title>\r\n{inside}{activity}</Experiment>\r\n'
    ).encode()


SUMMARY = (
    '<summary><experimenter>Alice</experimenter><instrument pid="FEI-Titan-TEM">Titan</instrument>'
    "<reservationStart>2026-11-20T10:00:00+01:00</reservationStart></summary>"
)


class Cdcs:
    """A running test server with a destination that delivers to it."""

    def __init__(self, server: CdcsServer, url: str, folder: Path, build: Callable[..., ExportContext]) -> None:
        self.server, self.url = server, url
        self._folder, self._build = folder, build

    def session(
        self, number: int = 1, record: bytes | None = None, *, stem: str = "", **fields: Any
    ) -> ExportContext:
        """Write a record and return its context, as the first revision."""
        folder = self._folder / "data" / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{stem or f'record-{number}'}.xml"
        path.write_bytes(nexus(f"Å {number}") if record is None else record)
        return self._build(number, xml_file_path=str(path), **fields)

    def destination(self, account: Account | None = None, **options: Any) -> CdcsDestination:
        given = {"url": self.url, "token": SUPERUSER, "template": TEMPLATE, "timeout": 30} | options
        made = CdcsDestination("cdcs", CdcsOptions.model_validate(given))
        if account is not None:
            made.account = account
        return made

    def send(self, context: ExportContext, receipt: Receipt | None = None, **options: Any) -> ExportResult:
        """Deliver once, or update what a receipt proves."""

        def call(made: CdcsDestination) -> Awaitable[ExportResult]:
            return made.export(context) if receipt is None else made.update(context, receipt)

        return self._once(call, **options)

    def find(self, context: ExportContext, **options: Any) -> ExportResult | None:
        return self._once(lambda made: made.find(context), **options)

    def hosted(self, **options: Any) -> HostedDestination:
        """Return a destination as a worker hosts it."""
        return HostedDestination(
            self.destination(**options),
            DestinationInfo(name="cdcs", type="cdcs"),
            records=RecordGuard(()),
            redact=Redactor([SUPERUSER]),
            call_timeout=20,
            threads=1,
        )

    def _once(self, call: Callable[[CdcsDestination], Awaitable[Any]], **options: Any) -> Any:
        async def run() -> Any:
            made = self.destination(**options)
            try:
                return await call(made)
            finally:
                await made.close()

        return asyncio.run(run())


def receipt_of(result: ExportResult) -> Receipt:
    return Receipt(destination="cdcs", record_id=result.record_id, at=utc_now(), metadata=result.metadata)


def asked(cdcs: Cdcs) -> list[str]:
    """Return the requests so far as ``METHOD /path``, without queries."""
    return [f"{one.method} {one.target.partition('?')[0]}" for one in cdcs.server.faults.seen]


@pytest.fixture
def cdcs(tmp_path: Path, make_context: Callable[..., ExportContext]) -> Iterator[Cdcs]:
    server = CdcsServer()
    with ServerThread(server.app()) as thread:
        yield Cdcs(server, thread.url, tmp_path, make_context)
