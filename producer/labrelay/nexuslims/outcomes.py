"""What became of a submitted record, in the shape of NexusLIMS's results. Pure."""

from __future__ import annotations

from typing import Any

from labrelay.results import (
    DeliveryState,
    DeliveryStatus,
    ExportResult,
    ExportState,
    ExportStatus,
    Submission,
)

#: Destination name of a result that speaks of labrelay itself.
RELAY = "labrelay"


def accepted(submission: Submission) -> list[ExportResult]:
    """Return the one result of a record that labrelay has, and delivers from now on by itself."""
    state = str(submission.state)
    if state in (ExportState.DEAD, ExportState.UNKNOWN, ExportState.CANCELLED):
        return [_needs_a_person(submission.export_id, state)]
    return [
        ExportResult(
            success=True,
            destination_name=RELAY,
            record_id=submission.export_id,
            metadata={**_about(submission.export_id, state), "outcome": submission.outcome},
        )
    ]


def refused(reason: str) -> list[ExportResult]:
    """Return the one result of a record that labrelay does not have."""
    return [ExportResult(success=False, destination_name=RELAY, error_message=reason)]


def finished(status: ExportStatus) -> list[ExportResult]:
    """Return one result per destination that took part: in the order of delivery, then those without one."""
    about = _about(status.export_id, str(status.state)) | {"revision": status.revision}
    results = [
        _result(delivery, status, about)
        for delivery in sorted(status.deliveries, key=_when)
        if delivery.state is not DeliveryState.SKIPPED
    ]
    if not results and status.state is not ExportState.DELIVERED:
        text = f"no destination took it: {status.state} {status.summary}".strip()
        return [ExportResult(success=False, destination_name=RELAY, error_message=text, metadata=about)]
    return results


def may_replace(earlier: ExportStatus) -> bool:
    """Return whether a rebuilt record can take the place of the one submitted before without making anything twice.

    A rebuild differs in details that mean nothing (NexusLIMS draws random sample ids), and NexusLIMS rebuilds whole
    batches after a crash: what a destination has, or may have, is left alone unless somebody asks for more.
    """
    return not any(delivery.receipt is not None or delivery.in_doubt for delivery in earlier.deliveries) and (
        earlier.state is not ExportState.DELIVERED
    )


def kept_earlier(earlier: ExportStatus) -> list[ExportResult]:
    """Return the one result of a rebuilt record when the one submitted before stays."""
    if earlier.state in (ExportState.DEAD, ExportState.UNKNOWN, ExportState.CANCELLED):
        return [_needs_a_person(earlier.export_id, str(earlier.state))]
    about = {**_about(earlier.export_id, str(earlier.state)), "outcome": "kept_earlier"}
    return [ExportResult(success=True, destination_name=RELAY, record_id=earlier.export_id, metadata=about)]


def _needs_a_person(export_id: str, state: str) -> ExportResult:
    return ExportResult(
        success=False,
        destination_name=RELAY,
        record_id=export_id,
        error_message=f"this session was submitted before and is {state}: `labrelay dead show {export_id}` says why;"
        " replay it, or submit the new record with replace=True",
        metadata=_about(export_id, state),
    )


def _result(delivery: DeliveryStatus, status: ExportStatus, about: dict[str, Any]) -> ExportResult:
    receipt = delivery.receipt
    if delivery.state is DeliveryState.DELIVERED and receipt is not None:
        return receipt.as_result().model_copy(update={"metadata": {**receipt.metadata, **about}})
    said = delivery.error_message or delivery.reason or status.summary
    return ExportResult(
        success=False,
        destination_name=delivery.destination,
        error_message=f"{delivery.state}: {said}" if said else str(delivery.state),
        timestamp=status.updated,
        metadata={**about, "error_kind": delivery.error_kind} if delivery.error_kind else about,
    )


def _when(delivery: DeliveryStatus) -> tuple[bool, float, str]:
    receipt = delivery.receipt
    return receipt is None, receipt.at.timestamp() if receipt else 0.0, delivery.destination


def _about(export_id: str, state: str) -> dict[str, Any]:
    return {"export_id": export_id, "export_state": state}
