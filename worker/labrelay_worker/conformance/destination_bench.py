"""A destination as a conformance test calls it: like a worker does, with every text it gives looked through."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from urllib.parse import quote, quote_plus

from labrelay.context import ExportContext
from labrelay.errors import DeliveryError, OutcomeUnknown, Transient
from labrelay.redaction import Redactor
from labrelay.results import DestinationInfo, Receipt
from labrelay_worker.conformance.faults import Fault, Faults
from labrelay_worker.destinations.account import Account, OwnAccount
from labrelay_worker.destinations.making import secrets_of
from labrelay_worker.guarding import RecordGuard
from labrelay_worker.hosting import HostedDestination

Result = TypeVar("Result")

_TRIES = 6
_THREADS = 4
#: Seconds within which anything that is awaited must have happened.
_PATIENCE = 30.0


class NotConforming(AssertionError):
    """The destination does not keep a promise of its contract."""


def demand(condition: object, text: str) -> None:
    """Raise `NotConforming` with the text unless the condition holds."""
    if not condition:
        raise NotConforming(text)


@dataclass(frozen=True)
class Kept:
    """One object as the server keeps it.

    Parameters
    ----------
    record
        The bytes of its record; None: it has none.
    text
        What people read of it, as the server would show it.
    """

    record: bytes | None
    text: str = ""


@dataclass(frozen=True)
class Server:
    """A server to deliver to.

    Parameters
    ----------
    url
        Its address, without a path.
    kept
        Lists what it keeps of a session: every object, whole or not.
    checks_access
        Whether it refuses wrong tokens and keys.
    """

    url: str
    kept: Callable[[ExportContext], Sequence[Kept]]
    checks_access: bool = True


@dataclass
class Settled:
    """How a delivery ended, after as many tries as it took."""

    receipt: Receipt | None
    errors: list[DeliveryError] = field(default_factory=list)

    @property
    def is_parked(self) -> bool:
        """Whether it was left to a person, because it may have arrived and nobody can be asked."""
        return self.receipt is None

    def __str__(self) -> str:
        told = [f"{type(error).__name__}: {error}" for error in self.errors]
        return f"{'parked' if self.is_parked else 'delivered'} after {told or 'no error'}"


class Bench:
    """Destinations of one kind at one server.

    Parameters
    ----------
    make
        Returns a destination that sends to a base URL.
    server
        The server itself.
    faults
        Misfortunes of what stands before the server.
    url
        Its address as destinations know it.
    """

    def __init__(self, make: Callable[[str], Any], server: Server, faults: Faults, url: str) -> None:
        self._make, self.server, self.faults, self.url = make, server, faults, url
        sample = make(url)
        self.name = str(sample.name)
        self.waits_for: tuple[str, ...] = tuple(getattr(sample, "waits_for", None) or ())
        self.options = getattr(sample, "options", None)
        self.kind: type[Any] = type(sample)
        self.secrets = sorted({form for secret in secrets_of(self.options) for form in _forms_of(secret)})
        host = self.host()
        self.can_find, self.can_ask, self.can_link = host.can_find, host.can_ask, host.can_link
        self.can_update = callable(getattr(sample, "update", None))

    # --- calls -----------------------------------------------------------------------------------------------

    def host(
        self, destination: Any = None, *, account: Account | None = None, url: str | None = None
    ) -> HostedDestination:
        """Return a new destination as the engine sees it; it keeps no pace unless the account does."""
        made = self._make(url or self.url) if destination is None else destination
        waits_for = getattr(made, "waits_for", None)
        hosted = HostedDestination(
            made,
            DestinationInfo(name=made.name, type=made.name, waits_for=waits_for),
            records=RecordGuard(()),
            redact=Redactor(secrets_of(getattr(made, "options", None))),
            call_timeout=_PATIENCE,
            threads=_THREADS,
        )
        hosted.share(account or OwnAccount())
        return hosted

    def call(
        self, function: Callable[[HostedDestination], Awaitable[Result]], *, host: HostedDestination | None = None
    ) -> Result:
        """Return what one call answers, with a destination of its own, as after a restart of the worker.

        Raises
        ------
        DeliveryError
            As the engine gets it; its text was looked through for secrets.
        """
        used = host or self.host()

        async def once() -> Result:
            try:
                return await function(used)
            finally:
                await used.close()

        try:
            answer = asyncio.run(once())
        except DeliveryError as error:
            self.require_no_secret(str(error))
            raise
        self.require_no_secret(repr(answer))
        return answer

    def send(self, context: ExportContext) -> Receipt:
        """Export, or update where there is a receipt of the revision before."""
        return self.call(lambda host: host.export(context, attempt=1))

    def find(self, context: ExportContext) -> Receipt | None:
        """Ask whether it has arrived, as the engine does when it does not know."""
        return self.call(lambda host: host.resolve_doubt(context, attempt=1))

    def link(self, context: ExportContext, receipt: Receipt) -> Receipt:
        """Add links to what was delivered meanwhile."""
        return self.call(lambda host: host.link(context, receipt))

    def validate(self, host: HostedDestination | None = None) -> tuple[bool, str | None]:
        """Ask whether it could deliver now."""
        return self.call(lambda host: host.validate_config(), host=host)

    def settle(self, context: ExportContext, *, in_doubt: bool = False) -> Settled:
        """Do as the engine does until it is delivered or parked: ask where the outcome is in doubt, then try again.

        Raises
        ------
        DeliveryError
            It is refused for good, or does not succeed however often it is tried.
        """
        settled = Settled(None)
        for _ in range(_TRIES):
            try:
                settled.receipt = self.find(context) if in_doubt else None
                in_doubt = False
                settled.receipt = settled.receipt or self.send(context)
            except OutcomeUnknown as error:
                settled.errors.append(error)
                if not self.can_ask:
                    return settled
                in_doubt = True
            except Transient as error:
                settled.errors.append(error)
            else:
                return settled
        raise settled.errors[-1]

    async def cut_off(self, context: ExportContext) -> None:
        """Begin to export, and end the call while a request hangs, as the end of a worker does."""
        host = self.host()
        call = asyncio.create_task(host.export(context, attempt=1))
        try:
            await until(lambda: self.faults.held or call.done(), "the request that hangs")
            demand(not call.done(), "the delivery ended before the request that was to hang")
            call.cancel()
            await asyncio.wait([call])
            await asyncio.to_thread(self.await_end)
        finally:
            await host.close()

    def await_end(self) -> None:
        """Wait until nothing of an ended call goes on, and let go what hangs; a thread goes on until its answer."""
        threads = [thread for thread in threading.enumerate() if thread.name == f"labrelay-{self.name}"]
        if not threads:
            deadline = time.monotonic() + _PATIENCE
            while self.faults.held and time.monotonic() < deadline:
                time.sleep(0.005)
        self.faults.release()
        for thread in threads:
            thread.join(_PATIENCE)

    # --- what must hold --------------------------------------------------------------------------------------

    def require_one(self, context: ExportContext) -> Kept:
        """Return the only object of a session; demand that there is one, and that it has the whole record."""
        kept = self.server.kept(context)
        demand(len(kept) == 1, f"the server keeps {len(kept)} objects of the session instead of 1")
        expected = context.xml_file_path.read_bytes()
        found = kept[0].record
        demand(found is not None, "the object at the server has no record")
        demand(found == expected, f"the record at the server differs from the one sent: {found!r} for {expected!r}")
        return kept[0]

    def require_no_secret(self, text: str) -> None:
        """Demand that a text for people holds no secret of the options, however it is encoded."""
        for secret in self.secrets:
            demand(secret not in text, f"a secret of the options is in a text: {text.replace(secret, '[here]')}")

    # --- misfortunes -----------------------------------------------------------------------------------------

    def requests_of(self, call: Callable[[], object]) -> list[str]:
        """Return the requests that a call makes, as method and path."""
        self.faults.clear()
        call()
        seen = [f"{one.method} {one.target.partition('?')[0]}" for one in self.faults.seen]
        self.faults.clear()
        return seen

    @contextmanager
    def hurt(self, position: int, requests: Sequence[str], fault: Fault) -> Iterator[None]:
        """Let a misfortune befall one request, counted from 1; what goes wrong then says which it was."""
        self.faults.clear()
        self.faults.plan(replace(fault, nth=position))
        try:
            yield
        except Exception as error:
            where = f"request {position} of {len(requests)}, {requests[position - 1]}"
            error.add_note(f"after {_told(fault)} at {where}")
            raise
        finally:
            self.faults.clear()


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait until a condition holds; demand that it does in time."""
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        demand(time.monotonic() < deadline, f"{what} did not come within {_PATIENCE:g} s")
        await asyncio.sleep(0.005)


def _told(fault: Fault) -> str:
    what = f"status {fault.status}" if fault.do == "status" else fault.do
    return f"{what} {'after' if fault.after else 'before'} the server carried it out"


def _forms_of(secret: str) -> set[str]:
    # Shorter ones would be found in any text.
    return {secret, quote(secret, safe=""), quote_plus(secret)} if len(secret) >= 4 else set()
