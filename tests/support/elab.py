"""An eLabFTW and a destination that delivers to it, driven as the engine drives it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from tests.servers.elabftw import ElabServer
from tests.servers.elabftw_calls import WRITER

from labrelay.context import ExportContext
from labrelay.errors import DeliveryError, OutcomeUnknown, Transient
from labrelay.redaction import Redactor
from labrelay.results import DestinationInfo, ExportResult, Receipt
from labrelay_worker.destinations.account import Account
from labrelay_worker.destinations.elabftw import ElabDestination, ElabOptions
from labrelay_worker.guarding import RecordGuard
from labrelay_worker.hosting import HostedDestination

Result = TypeVar("Result")
CDCS_URL = "https://cdcs.example.org/data?id=507f&a=1"


@dataclass
class Elab:
    """A server with its address."""

    server: ElabServer
    url: str

    def destination(self, name: str = "elabftw", **options: Any) -> ElabDestination:
        given = {"url": self.url, "api_key": WRITER, "timeout": 30}
        return ElabDestination(name, ElabOptions.model_validate(given | options))

    def run(self, do: Callable[[HostedDestination], Awaitable[Result]], **options: Any) -> Result:
        """Do something with a destination of its own, as a worker that just started would."""
        host = hosted(self.destination(**options))

        async def once() -> Result:
            try:
                return await do(host)
            finally:
                await host.close()

        return asyncio.run(once())

    def send(self, context: ExportContext, **options: Any) -> Receipt:
        return self.run(lambda host: host.export(context, attempt=1), **options)

    def find(self, context: ExportContext, **options: Any) -> Receipt | None:
        return self.run(lambda host: host.resolve_doubt(context, attempt=1), **options)

    def link(self, context: ExportContext, receipt: Receipt, **options: Any) -> Receipt:
        return self.run(lambda host: host.link(context, receipt), **options)

    def settle(self, context: ExportContext, tries: int = 5, **options: Any) -> tuple[Receipt, list[DeliveryError]]:
        """Send until it is delivered, asking first after a doubtful try, each try in a process of its own."""
        failures: list[DeliveryError] = []
        for _ in range(tries):
            try:
                doubtful = failures and isinstance(failures[-1], OutcomeUnknown)
                found = self.find(context, **options) if doubtful else None
                return found or self.send(context, **options), failures
            except (OutcomeUnknown, Transient) as error:
                failures.append(error)
        raise AssertionError(f"not delivered after {tries} tries: {failures}")

    @property
    def only(self) -> dict[str, Any]:
        """The one experiment that is there, and nothing that a delivery should not have done."""
        assert self.server.violations == []
        assert self.server.ignored == []
        (entry,) = self.server.alive()
        return entry

    def value(self, field: str) -> Any:
        """The value of an extra field of the one experiment."""
        return self.only["metadata_decoded"]["extra_fields"][field]["value"]


def hosted(destination: ElabDestination, account: Account | None = None) -> HostedDestination:
    """Return a destination as the worker hosts it."""
    host = HostedDestination(
        destination,
        DestinationInfo(name=destination.name, type="elabftw"),
        records=RecordGuard(()),
        redact=Redactor([WRITER]),
        call_timeout=60,
        threads=1,
    )
    if account is not None:
        host.share(account)
    return host


@contextmanager
def elab_server() -> Iterator[Elab]:
    """Serve a fresh eLabFTW."""
    server = ElabServer()
    with server.thread() as thread:
        yield Elab(server, thread.url)


def with_cdcs(context: ExportContext, url: str = CDCS_URL) -> ExportContext:
    """Return a context whose record is in CDCS by now."""
    result = ExportResult(success=True, destination_name="cdcs", record_id="507f", record_url=url)
    return context.model_copy(update={"previous_results": {"cdcs": result}})
