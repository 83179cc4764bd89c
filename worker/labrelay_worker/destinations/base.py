"""The contract of a destination.

A class with the seed's five members (`ExportDestination`, NexusLIMS's protocol) is a destination. Everything below
them is optional and buys certainty: the engine relies on it after a crash or a lost answer.

- ``export`` MUST NOT report success before the destination confirmed the record. It MAY be async. It MAY raise any
  error of `labrelay.errors.DeliveryError`; whatever else it raises counts as doubtful, but for a refused connection
  and an unknown host. One that meets these after an earlier request went through MUST raise `OutcomeUnknown` instead.
- ``find`` MUST return the result of an earlier send of this very revision if the destination has it, whole, and
  None if it certainly has not. It MUST raise if it cannot tell.
- ``idempotent`` MUST be True only if sending the same context again cannot make a second object.
- ``update`` gets the receipt of the previous revision and MUST change that object in place.
- ``limits`` are kept over all workers together; each call of ``export``, ``update`` and ``find`` counts as one. Where
  the account counts single requests, await ``account.pace()`` before each, and hold ``account.lock(what)`` round
  "find or create" (`labrelay_worker.destinations.account`).
- ``link`` is called when a destination in ``waits_for`` delivered after this one did: it adds the link to what is
  there. It MUST be safe to repeat.
- ``check`` compares what is there with what was delivered, for `labrelay check`. It MUST NOT change anything there,
  and MUST raise what ``find`` would if it cannot tell. Without it an audit makes do with ``find``.
- ``lossy`` MUST be True if it keeps nothing: its failures are noted as skips, and strategies leave it out.
- ``close`` MUST be safe to call more than once and during a running export.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict

from labrelay.context import ExportContext
from labrelay.errors import InvalidInput
from labrelay.results import ExportResult, Receipt
from labrelay_worker.destinations.account import Account, OwnAccount
from labrelay_worker.destinations.findings import Finding


@runtime_checkable
class ExportDestination(Protocol):
    """The seed's protocol: five members make a destination."""

    name: str
    priority: int

    @property
    def enabled(self) -> bool:
        """Whether it takes part when nobody names it."""

    def validate_config(self) -> tuple[bool, str | None]:
        """Return whether it could deliver now, and what is wrong if not."""

    def export(self, context: ExportContext) -> ExportResult | Awaitable[ExportResult]:
        """Deliver one context."""


class Options(BaseModel):
    """Base of a destination type's options: unknown ones are refused, secrets are `SecretStr`."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Limits:
    """How fast an account may be used, by all workers together.

    Parameters
    ----------
    account
        Destinations of one account share its limits; empty: the destination's name. Only a hash of it is kept.
    per_second
        Calls per second, spaced evenly; None: as many as come.
    concurrent
        Calls at once; None: as many as come.
    requests_per_second
        Single requests per second, for a destination that awaits ``account.pace()`` before each of them.
    """

    account: str = ""
    per_second: float | None = None
    concurrent: int | None = None
    requests_per_second: float | None = None

    def __post_init__(self) -> None:
        for name in ("per_second", "requests_per_second"):
            rate = getattr(self, name)
            if rate is not None and rate <= 0:
                raise InvalidInput(name, f"{rate:g} is not above 0", "Pause the destination instead")
        if self.concurrent is not None and self.concurrent < 1:
            raise InvalidInput("concurrent", f"{self.concurrent} is less than 1", "Pause the destination instead")

    def __bool__(self) -> bool:
        return self.per_second is not None or self.concurrent is not None


class Destination:
    """Convenient base of labrelay's own destinations: options as data, side by side with others by default.

    Parameters
    ----------
    name
        Name of the instance, the ``NAME`` of ``[destinations.NAME]``.
    options
        The type's options.
    """

    name: str = ""
    priority: int = 0
    Options: ClassVar[type[Options]] = Options
    #: What the machine must have, e.g. ``{"display"}``; profile headless leaves such types out.
    needs: ClassVar[frozenset[str]] = frozenset()
    idempotent: bool = False
    #: It shows and keeps nothing (a viewer): no export waits for it, counts it or fails because of it.
    lossy: bool = False
    #: Destinations whose results it links to; they are settled first, at most ``link_wait``.
    waits_for: tuple[str, ...] = ()
    #: Seconds one call may take; None: the setting ``call_timeout``.
    timeout: float | None = None
    #: Options ``per_second``, ``concurrent``, ``requests_per_second`` and ``limit_account`` of
    #: ``[destinations.NAME]`` win over it.
    limits: Limits | None = None

    def __init__(self, name: str, options: Any = None) -> None:
        self.name = name
        #: What it shares with other workers; a worker puts the shared one here.
        self.account: Account = OwnAccount()
        self.options = options if options is not None else type(self).Options()

    @property
    def enabled(self) -> bool:
        """Whether it takes part when nobody names it."""
        return True

    def validate_config(self) -> tuple[bool, str | None]:
        """Return whether it could deliver now, and what is wrong if not."""
        return True, None

    def export(self, context: ExportContext) -> ExportResult | Awaitable[ExportResult]:
        """Deliver one context."""
        raise NotImplementedError(f"{type(self).__name__} does not implement export")

    def succeeded(self, record_id: str | None, record_url: str | None, *, verified: str) -> ExportResult:
        """Return a success; `verified` says in words how the arrival was checked."""
        return ExportResult(
            success=True,
            destination_name=self.name,
            record_id=record_id,
            record_url=record_url,
            metadata={"verified": verified},
        )


class Findable(Protocol):
    """A destination that can be asked whether it has a record."""

    def find(self, context: ExportContext) -> ExportResult | Awaitable[ExportResult | None] | None:
        """Return the earlier result, or None if the record is certainly not there."""


class Updatable(Protocol):
    """A destination that replaces a previous revision in place."""

    def update(self, context: ExportContext, receipt: Receipt) -> ExportResult | Awaitable[ExportResult]:
        """Deliver a new revision over the one of the receipt."""


class Linkable(Protocol):
    """A destination whose entry can get a link later."""

    def link(self, context: ExportContext, receipt: Receipt) -> ExportResult | Awaitable[ExportResult]:
        """Add links to what ``context.previous_results`` has by now to the entry of the receipt."""


class Checkable(Protocol):
    """A destination that can compare what it holds with what was delivered."""

    def check(self, context: ExportContext, receipt: Receipt) -> Finding | Awaitable[Finding]:
        """Return how the delivery of the receipt stands; changes nothing."""
