"""A LabArchives server with destinations at it, called as a worker calls them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import pytest
from tests.servers.labarchives import LabArchivesServer

from labrelay.context import ExportContext
from labrelay.errors import OutcomeUnknown, Transient
from labrelay.redaction import Redactor
from labrelay.results import DestinationInfo, ExportResult, Receipt
from labrelay_worker.destinations.account import Account, OwnAccount
from labrelay_worker.destinations.labarchives import LabArchivesDestination
from labrelay_worker.destinations.labarchives_options import LabArchivesOptions
from labrelay_worker.destinations.making import secrets_of
from labrelay_worker.guarding import RecordGuard
from labrelay_worker.hosting import HostedDestination

SECRETS = ("akid-one", "pass/word+one==", "uid+one/==", "uid%2Bone%2F%3D%3D")
CDCS = "https://cdcs.lab.example/data?id=7"

Answer = TypeVar("Answer")


class Bench:
    """One server at an address, and how to reach it."""

    def __init__(self, server: LabArchivesServer, url: str) -> None:
        self.server, self.url = server, url

    @property
    def asked(self) -> list[str]:
        """The methods that were called, in order."""
        return [one.target.split("?")[0].rpartition("/")[2] for one in self.server.faults.seen]

    @property
    def page(self) -> dict[str, Any]:
        """The only page that there is, in the only folder of its instrument."""
        tree = self.server.state()["tree"]
        assert [node["is_page"] for node in tree] == [False, False, True], [node["path"] for node in tree]
        page: dict[str, Any] = tree[2]
        return page

    @property
    def text(self) -> dict[str, Any]:
        """The only text entry of that page."""
        (text,) = [entry for entry in self.page["entries"] if entry["part_type"] == "text entry"]
        return text

    @property
    def record(self) -> dict[str, Any]:
        """The only attachment of that page."""
        (record,) = [entry for entry in self.page["entries"] if entry["part_type"] == "Attachment"]
        return record

    def options(self, **options: Any) -> dict[str, Any]:
        return {
            "url": f"{self.url}/api",
            "access_key_id": "akid-one",
            "access_password": "pass/word+one==",
            "user_id": "uid+one/==",
            "notebook_id": "nb/1+=",
            "timeout": 10,
            **options,
        }

    def destination(self, account: Account | None = None, **options: Any) -> LabArchivesDestination:
        """Return a destination that keeps no pace, unless the account does."""
        made = LabArchivesDestination("labarchives", LabArchivesOptions.model_validate(self.options(**options)))
        made.account = account or OwnAccount()
        return made

    def host(self, **options: Any) -> HostedDestination:
        destination = self.destination(**options)
        return HostedDestination(
            destination,
            DestinationInfo(name="labarchives", type="labarchives"),
            records=RecordGuard(()),
            redact=Redactor(secrets_of(destination.options)),
            call_timeout=30,
            threads=1,
        )

    def call(self, function: Callable[[HostedDestination], Awaitable[Answer]], **options: Any) -> Answer:
        """Return what one call answers, with a destination of its own."""

        async def once() -> Answer:
            host = self.host(**options)
            try:
                return await function(host)
            finally:
                await host.close()

        return asyncio.run(once())

    def send(self, context: ExportContext, **options: Any) -> Receipt:
        return self.call(lambda host: host.export(context, attempt=1), **options)

    def export(self, context: ExportContext, **options: Any) -> ExportResult:
        """Return what the destination itself answers, without the host that takes secrets out of errors."""

        async def once() -> ExportResult:
            destination = self.destination(**options)
            try:
                return await destination.export(context)
            finally:
                await destination.close()

        return asyncio.run(once())

    def find(self, context: ExportContext, **options: Any) -> Receipt | None:
        return self.call(lambda host: host.resolve_doubt(context, attempt=1), **options)

    def link(self, context: ExportContext, receipt: Receipt, **options: Any) -> Receipt:
        return self.call(lambda host: host.link(context, receipt), **options)


def again_until_done(
    call: Callable[[], Receipt], find: Callable[[], Receipt | None], *, tries: int = 4
) -> tuple[Receipt, int]:
    """Do as the engine does: after a failure once more, after a doubtful one ask before; return how often."""
    in_doubt = False
    for attempt in range(1, tries + 1):
        try:
            found = find() if in_doubt else None
            return found or call(), attempt
        except OutcomeUnknown:
            in_doubt = True
        except Transient:
            pass
    pytest.fail(f"not done after {tries} tries")


def with_cdcs(context: ExportContext) -> ExportContext:
    """Return the context as it is once CDCS has the record."""
    result = ExportResult(success=True, destination_name="cdcs", record_id="7", record_url=CDCS)
    return context.model_copy(update={"previous_results": {"cdcs": result}})


@pytest.fixture
def bench() -> Iterator[Bench]:
    server = LabArchivesServer()
    with server.thread() as running:
        yield Bench(server, running.url)
