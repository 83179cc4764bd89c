"""How an export's Redis hash reads: the one place that knows the row's fields."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime

from labrelay.names import (
    FIELD_ARCHIVE_AT,
    FIELD_ARCHIVE_FILE,
    FIELD_ARCHIVE_HOST,
    FIELD_ARCHIVE_WHY,
    FIELD_DELIVERY,
    FIELD_INTENT,
    FIELD_RECEIPT,
)
from labrelay.packed import whole_row
from labrelay.priorities import Priority
from labrelay.results import (
    ArchiveInfo,
    Delivery,
    DeliveryState,
    DeliveryStatus,
    ExportState,
    ExportStatus,
    Receipt,
    TrailEntry,
)

Row = Mapping[str, str]


def by_destination(row: Row, kind: str) -> dict[str, str]:
    """Return the fields of one kind (``d:``, ``i:``, ``r:``, ``p:``) by destination name."""
    return {field[len(kind) :]: value for field, value in row.items() if field.startswith(kind)}


def destinations_of(row: Row) -> tuple[str, ...]:
    """Return the destinations the submitter named; none: the workers' routes decide."""
    return tuple(json.loads(row["destinations"])) if row.get("destinations") else ()


def status_of(export_id: str, row: Row) -> ExportStatus:
    """Return the row as people read it."""
    row = whole_row(row)
    deliveries = {name: Delivery.read(v) for name, v in by_destination(row, FIELD_DELIVERY).items()}
    receipts = {name: Receipt.read(v) for name, v in by_destination(row, FIELD_RECEIPT).items()}
    for name in receipts.keys() - deliveries.keys():
        deliveries[name] = Delivery(state=DeliveryState.DELIVERED)
    doubts = by_destination(row, FIELD_INTENT).keys() - receipts.keys()
    for name in doubts:
        delivery = deliveries.get(name, Delivery())
        if not delivery.state.is_settled and row["state"] == ExportState.RUNNING:
            deliveries[name] = delivery.model_copy(update={"state": DeliveryState.SENDING})
        deliveries.setdefault(name, delivery)
    for name in destinations_of(row):
        deliveries.setdefault(name, Delivery())
    return ExportStatus(
        export_id=export_id,
        state=ExportState(row["state"]),
        session_identifier=row["session"],
        instrument_pid=row["instrument"],
        strategy=row["strategy"],
        destinations=destinations_of(row),
        priority=Priority(row.get("priority", Priority.NORMAL)),
        revision=int(row["revision"]),
        runs=int(row["runs"]),
        summary=row.get("summary", ""),
        cancelling=row.get("cancel") == "1",
        created=from_ms(row["created"]),
        updated=from_ms(row["updated"]),
        deliveries=tuple(
            DeliveryStatus(
                destination=name, receipt=receipts.get(name), in_doubt=name in doubts, **delivery.model_dump()
            )
            for name, delivery in deliveries.items()
        ),
        cause=row.get("cause", ""),
        archived=_archived(row),
    )


def _archived(row: Row) -> ArchiveInfo | None:
    if FIELD_ARCHIVE_FILE not in row:
        return None
    return ArchiveInfo(
        file=row[FIELD_ARCHIVE_FILE],
        host=row[FIELD_ARCHIVE_HOST],
        at=from_ms(row[FIELD_ARCHIVE_AT]),
        why=row[FIELD_ARCHIVE_WHY],
    )


def trail_entry(line: str) -> TrailEntry:
    """Return one entry of the trail list, ``<ms> <json>``."""
    at, _, entry = line.partition(" ")
    return TrailEntry(at=from_ms(at), **json.loads(entry))


def to_ms(at: datetime) -> str:
    """Return a time of the ledger as it is written there."""
    return str(round(at.timestamp() * 1000))


def from_ms(milliseconds: str | float) -> datetime:
    """Return a time from server milliseconds."""
    return datetime.fromtimestamp(float(milliseconds) / 1000, UTC)
