"""Run an audit: read what was delivered, ask side by side, hand out a line each. Changes nothing anywhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

from labrelay.errors import InvalidInput
from labrelay.scripts import script_source
from labrelay_worker import limiting
from labrelay_worker.accounts import SharedAccount
from labrelay_worker.auditing.asking import AuditedHost, Lane
from labrelay_worker.auditing.delivered import Delivered, DeliveredList, Wanted
from labrelay_worker.auditing.report import AuditLine, AuditSummary, AuditTally, ReportFile
from labrelay_worker.batching import ScriptGroups
from labrelay_worker.destinations.findings import CANNOT_BE_ASKED, Mark
from labrelay_worker.destinations.registry import ExporterRegistry
from labrelay_worker.guarding import RecordGuard
from labrelay_worker.holding_desk import HoldingDesk
from labrelay_worker.hosting import HostedDestination
from labrelay_worker.limiting import AccountLimiter
from labrelay_worker.settings import WorkerSettings

#: Deliveries in hand at once; the next page is read when one is done with.
_IN_HAND = 64
_AT_ONCE = 4

Item = TypeVar("Item")


class Audit:
    """One run of `labrelay check`.

    Parameters
    ----------
    settings
        The worker's settings: this machine must reach the destinations as a worker would.
    wanted
        Which deliveries.
    report
        The report file, if any; what it knows from an earlier run is taken over instead of asked again.
    show
        Told each line as it is found.
    progress
        Told how many exports are done with, and of how many.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        wanted: Wanted,
        *,
        report: ReportFile | None = None,
        show: Callable[[AuditLine], None],
        progress: Callable[[int, int], None],
    ) -> None:
        self._settings, self._wanted, self._report = settings, wanted, report
        self._show, self._progress = show, progress
        self._registry = ExporterRegistry(settings)
        self._records = RecordGuard(settings.data_roots)
        self._tally = AuditTally()
        self._taken_over = 0
        self._lanes: dict[str, Lane] = {}
        self._hosts: list[AuditedHost] = []
        self._held: dict[str, str] = {}
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """End early: what is being asked is dropped, and the summary says so."""
        self._stop.set()

    async def run(self) -> AuditSummary:
        """Ask about everything that is meant.

        Raises
        ------
        InvalidInput
            A destination that is meant is known to nobody: of a misspelt one, all would be well for ever.
        LedgerUnavailable
            Redis does not serve; the report has what was found until then.
        """
        with DeliveredList(self._settings) as listed:
            archived = await asyncio.to_thread(listed.archived_ids)
            async with self._accounts() as limiter:
                self._held = await asyncio.to_thread(self._holds)
                try:
                    await asyncio.to_thread(self._require_known)
                    await self._until_stopped(self._walk(listed, archived, limiter))
                finally:
                    await asyncio.gather(*(host.close() for host in self._hosts), return_exceptions=True)
                    self._registry.cleanup_backends()
        left_out = 0 if self._wanted.archived else len(archived)
        return self._tally.summary(
            taken_over=self._taken_over, archived_left_out=left_out, interrupted=self._stop.is_set()
        )

    async def _until_stopped(self, walk: Coroutine[Any, Any, None]) -> None:
        walking, stopping = asyncio.create_task(walk), asyncio.create_task(self._stop.wait())
        await asyncio.wait({walking, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if self._stop.is_set():
            walking.cancel()
        await asyncio.gather(stopping, return_exceptions=True)
        try:
            await walking
        except asyncio.CancelledError:
            if not self._stop.is_set():
                raise
        except ExceptionGroup as group:  # of the first trouble; the others were cancelled because of it
            raise group.exceptions[0] from None

    async def _walk(self, listed: DeliveredList, archived: list[str], limiter: AccountLimiter) -> None:
        ids = await asyncio.to_thread(listed.ids, self._wanted)
        total, done = len(ids) + (len(archived) if self._wanted.archived else 0), 0
        in_hand = asyncio.Semaphore(_IN_HAND)
        async with asyncio.TaskGroup() as group:
            pages = listed.pages(ids, self._wanted)
            while (page := await _next(pages)) is not None:
                await self._start(page[1], limiter, group, in_hand)
                done += page[0]
                self._progress(done, total)
            old = listed.archived_pages(archived, self._wanted) if self._wanted.archived else iter(())
            while (older := await _next(old)) is not None:
                await self._start(older[1], limiter, group, in_hand)
                for export_id, place in older[2]:
                    self._add(_elsewhere(export_id, place))
                done += older[0]
                self._progress(done, total)
        self._progress(total, total)

    async def _start(
        self, page: list[Delivered], limiter: AccountLimiter, group: asyncio.TaskGroup, in_hand: asyncio.Semaphore
    ) -> None:
        for delivered in page:
            known = self._report.taken_over(delivered) if self._report else None
            if known is not None:
                self._taken_over += 1
                self._tally.add(known)
                continue
            await in_hand.acquire()
            group.create_task(self._ask(delivered, limiter, in_hand))

    async def _ask(self, delivered: Delivered, limiter: AccountLimiter, in_hand: asyncio.Semaphore) -> None:
        try:
            finding = await self._lane(delivered.receipt.destination, limiter).ask(delivered)
            self._add(AuditLine.of(delivered, finding))
        finally:
            in_hand.release()

    def _add(self, line: AuditLine) -> None:
        self._tally.add(line)
        if self._report is not None:
            self._report.write(line)
        self._show(line)

    def _lane(self, name: str, limiter: AccountLimiter) -> Lane:
        if name not in self._lanes:
            served = self._registry.hosts([name])[name]
            why_not = self._held.get(name, "")
            if isinstance(served, HostedDestination):
                host = self._audited(served, limiter)
                self._lanes[name] = Lane(host, limiter, why_not=why_not, at_once=_AT_ONCE)
            else:
                self._lanes[name] = Lane(None, limiter, why_not=f"not asked: {served.info.reason}", at_once=_AT_ONCE)
        return self._lanes[name]

    def _audited(self, served: HostedDestination, limiter: AccountLimiter) -> AuditedHost:
        host = AuditedHost(
            served.destination,
            served.info,
            records=self._records,
            redact=served.redact,
            call_timeout=self._settings.call_timeout,
            threads=_AT_ONCE,
            limits=served.limits,
        )
        host.share(SharedAccount(limiter, host.info.name, host.limits))
        self._hosts.append(host)
        return host

    def _require_known(self) -> None:
        here = {info.name for info in self._registry.infos()}
        unknown = self._wanted.destinations - here
        if not unknown:
            return
        with HoldingDesk(self._settings) as desk:
            served = desk.served()
        for name in sorted(unknown - served):
            raise InvalidInput(
                "--destination",
                f"neither this machine nor a running worker has a destination {name!r}",
                f"Use {', '.join(sorted(here | served))}",
            )

    def _holds(self) -> dict[str, str]:
        """Return why destinations are left alone: paused by a person, or down as the workers found."""
        with HoldingDesk(self._settings) as desk:
            return {
                hold.destination: f"not asked: {hold.why} (`labrelay resume {hold.destination}` ends that)"
                for hold in desk.holds()
                if hold.state != "trial"
            }

    @asynccontextmanager
    async def _accounts(self) -> AsyncIterator[AccountLimiter]:
        """Share the accounts' limits with the workers while the block runs."""
        client = self._settings.redis_address.async_client(decode_responses=True)
        sources = {name: script_source("labrelay_worker", name) for name in limiting.SCRIPTS}
        limiter = AccountLimiter(
            ScriptGroups(client, sources), self._settings.keys, lease_seconds=self._settings.lease_seconds
        )
        renewing = asyncio.create_task(limiter.renew())
        try:
            yield limiter
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            await client.aclose()


async def _next(items: Iterator[Item]) -> Item | None:
    return await asyncio.to_thread(next, items, None)


def _elsewhere(export_id: str, place: str) -> AuditLine:
    """Return the line of an archived export whose receipts this machine does not have."""
    said = f"archived to {place}, which is not readable here: run `labrelay check --archived` there"
    return AuditLine(
        mark=Mark.UNKNOWN,
        destination="",
        session_identifier="",
        instrument_pid="",
        export_id=export_id,
        revision=0,
        said=said,
        kind=CANNOT_BE_ASKED,
        asked_at=datetime.now(UTC),
    )
