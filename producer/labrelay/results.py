"""States, receipts and what can be read back about an export."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from labrelay.priorities import Priority


class ExportState(StrEnum):
    """Where an export stands."""

    QUEUED = "queued"  # accepted; a worker may claim it
    RUNNING = "running"  # a worker holds its lease
    WAITING = "waiting"  # something is tried again later
    DELIVERED = "delivered"  # its strategy is fulfilled
    UNKNOWN = "unknown"  # a destination may have it and cannot be asked: a person decides
    DEAD = "dead"  # its strategy cannot be fulfilled: a person decides
    CANCELLED = "cancelled"  # stopped on request

    @property
    def is_final(self) -> bool:
        """Whether labrelay does nothing more about it by itself."""
        return self not in UNFINISHED


UNFINISHED = frozenset({ExportState.QUEUED, ExportState.RUNNING, ExportState.WAITING})


class DeliveryState(StrEnum):
    """Where one (export, destination) pair stands."""

    PENDING = "pending"  # not tried yet
    SENDING = "sending"  # its intent is open
    RETRYING = "retrying"  # failed for now
    DELIVERED = "delivered"  # its receipt is in the ledger
    FAILED = "failed"  # failed for good
    UNKNOWN = "unknown"  # parked: it may have arrived and cannot be asked
    SKIPPED = "skipped"  # the strategy does not need it

    @property
    def is_settled(self) -> bool:
        """Whether nothing more happens to it by itself."""
        return self in _SETTLED


_SETTLED = frozenset({DeliveryState.DELIVERED, DeliveryState.FAILED, DeliveryState.UNKNOWN, DeliveryState.SKIPPED})


def utc_now() -> datetime:
    """Return the present time with its time zone (a naive one is NexusLIMS's trap)."""
    return datetime.now(UTC)


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def read(cls, text: str) -> Self:
        """Return what Redis has. Workers are upgraded first: what a newer one wrote beyond this is left out."""
        return cls.model_validate_json(text, extra="ignore")

    def with_values(self, **values: Any) -> Self:
        """Return a copy with other values: `model_copy` at a fifth of its cost, for the hot path."""
        copy = self.__class__.__new__(self.__class__)
        object.__setattr__(copy, "__dict__", {**self.__dict__, **values})
        object.__setattr__(copy, "__pydantic_fields_set__", self.__pydantic_fields_set__ | values.keys())
        object.__setattr__(copy, "__pydantic_extra__", None)
        object.__setattr__(copy, "__pydantic_private__", None)
        return copy


class ExportResult(_Wire):
    """Result of one export attempt, with the field names of NexusLIMS's class."""

    success: bool
    destination_name: str
    record_id: str | None = None
    record_url: str | None = None
    error_message: str | None = None
    timestamp: AwareDatetime = Field(default_factory=utc_now)
    metadata: dict[str, Any] = Field(default_factory=dict)


class Receipt(_Wire):
    """Proof of a delivery."""

    destination: str
    record_id: str | None = None
    record_url: str | None = None
    sha256: str | None = Field(None, description="of the record as it was sent")
    verified: str = Field("", description="how the arrival was checked, in words")
    adopted: bool = Field(False, description="found at the destination after a lost answer, not sent again")
    attempt: int = 1
    at: AwareDatetime
    worker: str = ""
    metadata: dict[str, Any] = Field(default_factory=dict)

    @property
    def unlinked(self) -> tuple[str, ...]:
        """Destinations that the entry should link to and does not, because they had nothing to link to yet."""
        names = self.metadata.get("unlinked")
        return tuple(map(str, names)) if isinstance(names, list | tuple) else ()

    def as_result(self) -> ExportResult:
        """Return the result that later destinations read from ``context.previous_results``."""
        return ExportResult(
            success=True,
            destination_name=self.destination,
            record_id=self.record_id,
            record_url=self.record_url,
            timestamp=self.at,
            metadata=self.metadata,
        )


class Delivery(_Wire):
    """How one destination stands, as the ledger keeps it beside intent and receipt."""

    state: DeliveryState = DeliveryState.PENDING
    attempts: int = 0
    first_at: float | None = Field(None, description="server time of the first attempt, epoch seconds")
    retry_at: float | None = Field(None, description="server time before which it is not tried, epoch seconds")
    error_kind: str | None = None
    error_message: str | None = None
    reason: str | None = Field(None, description="why it waits or was skipped, in words")


class DeliveryStatus(Delivery):
    """A delivery with its receipt, as people read it."""

    destination: str
    receipt: Receipt | None = None
    in_doubt: bool = Field(False, description="a send began and its outcome is not known yet")


class ArchiveInfo(_Wire):
    """Where an export went that is no longer in Redis."""

    file: str
    host: str = Field(description="machine on which the file was written")
    at: AwareDatetime
    why: str = Field(description="retention or dropped")


class ExportStatus(_Wire):
    """An export as people read it."""

    export_id: str
    state: ExportState
    session_identifier: str
    instrument_pid: str
    strategy: str = Field(description="empty: the workers' routes and settings decide")
    destinations: tuple[str, ...] = ()
    priority: Priority = Priority.NORMAL
    revision: int
    runs: int = Field(description="how often a worker claimed it")
    summary: str = ""
    cancelling: bool = False
    created: AwareDatetime
    updated: AwareDatetime
    deliveries: tuple[DeliveryStatus, ...] = ()
    cause: str = Field("", description="poison: it killed its workers")
    archived: ArchiveInfo | None = None


class Backlog(_Wire):
    """How much waits for workers."""

    ready: dict[Priority, int] = Field(description="exports that a worker may claim now, by priority")
    running: int
    unfinished: int = Field(description="ready, running, or waiting for their time")
    overdue: int = Field(description="nobody has looked at them in time: no worker runs, or Redis is very slow")
    wake_ups: int = Field(description="messages in Celery's queue; one is good for many exports")

    @property
    def total_ready(self) -> int:
        """Exports that a worker may claim now: what more workers would make fewer."""
        return sum(self.ready.values())


class TrailEntry(_Wire):
    """One step in the life of an export."""

    at: AwareDatetime
    event: str
    worker: str = ""
    destination: str | None = None
    detail: str = ""


class Submission(_Wire):
    """What `submit` answers."""

    export_id: str
    outcome: str = Field(description="accepted, duplicate, replaced, spooled or, of several, conflict")
    state: ExportState | Literal["spooled"] = Field(description="spooled: in the outbox, not in the ledger yet")
    revision: int = Field(description="0: the ledger has not numbered it yet")
    warnings: tuple[str, ...] = ()

    @property
    def is_duplicate(self) -> bool:
        """Whether this very content had been submitted before."""
        return self.outcome == "duplicate"

    @property
    def is_spooled(self) -> bool:
        """Whether the outbox of this machine has it, and will send it."""
        return self.outcome == "spooled"


class Replayed(_Wire):
    """What `replay` or `drop` did with one export."""

    export_id: str
    outcome: str = Field(description="replayed or removed; changed, settled, missing or a state: nothing was done")

    @property
    def is_done(self) -> bool:
        """Whether it was done."""
        return self.outcome in ("replayed", "removed")


class DestinationInfo(_Wire):
    """What a worker says of one destination it serves."""

    name: str
    type: str
    priority: int = 0
    enabled: bool = True
    waits_for: tuple[str, ...] | None = None
    reason: str = Field("", description="why it is disabled or unavailable")
    lossy: bool = Field(False, description="it shows and keeps nothing: no export waits for it or counts it")


class RouteInfo(_Wire):
    """A route of the settings: which destinations and strategy an instrument's exports take."""

    instrument: str = "*"
    destinations: tuple[str, ...] = ()
    strategy: str | None = None


class WorkerInfo(_Wire):
    """What one worker process announces of itself."""

    name: str
    version: str
    started: AwareDatetime
    destinations: tuple[DestinationInfo, ...] = ()
    routes: tuple[RouteInfo, ...] = ()
    strategy: str = "all"
