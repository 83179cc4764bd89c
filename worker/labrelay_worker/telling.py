"""How an export stands, on one line for people: what the task answers, what the log and Flower show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from labrelay.redaction import redact
from labrelay.results import Delivery, DeliveryState, ExportState, ExportStatus, Receipt

SEPARATOR = " · "
_LONGEST_ERROR = 200


class Ended(Protocol):
    """An export that was worked on, as the ledger has it since."""

    export_id: str
    instrument: str
    deliveries: dict[str, Delivery]
    receipts: dict[str, Receipt]

    @property
    def strategy(self) -> str:
        """Name of the strategy that was in force."""


def tell_job(job: Ended, state: ExportState, summary: str) -> str:
    """Return how a job stands that was just settled."""
    places = _places(job.deliveries, job.receipts)
    return _line(state, summary, places, job.instrument, job.strategy, job.export_id)


def tell_status(export: ExportStatus) -> str:
    """Return how an export stands in the ledger."""
    receipts = {each.destination: each.receipt for each in export.deliveries if each.receipt is not None}
    places = _places({each.destination: each for each in export.deliveries}, receipts)
    strategy = export.strategy or "by route"
    return _line(export.state, export.summary, places, export.instrument_pid, strategy, export.export_id)


def by_session(told: Iterable[tuple[str, str, str]]) -> dict[str, str]:
    """Return texts by session; one that several exports share is followed by their ids.

    Parameters
    ----------
    told
        Session identifier (empty: not known), export id and text of each.
    """
    texts: dict[str, str] = {}
    for session, export_id, text in told:
        name = redact(session) or export_id
        texts[name if name not in texts else f"{name} ({export_id})"] = text
    return texts


def _line(
    state: ExportState, summary: str, places: Iterable[str], instrument: str, strategy: str, export_id: str
) -> str:
    parts = [f"{state}: {summary}", *places, instrument, f"strategy {strategy}", f"export {export_id}"]
    # One look at the whole tells nearly always that there is nothing to take out of any; plain letters make it quick.
    whole = " | ".join(parts)
    return SEPARATOR.join(parts if redact(whole) == whole else map(redact, parts))


def _places(deliveries: Mapping[str, Delivery], receipts: Mapping[str, Receipt]) -> list[str]:
    return [_place(name, delivery, receipts.get(name)) for name, delivery in deliveries.items()]


def _place(name: str, delivery: Delivery, receipt: Receipt | None) -> str:
    if receipt is not None:
        return f"{name} {receipt.record_url or receipt.record_id or 'delivered'}"
    said = f"{name} {delivery.state}"
    why = delivery.error_message if delivery.state is not DeliveryState.SKIPPED else delivery.reason
    if delivery.error_kind and delivery.state is not DeliveryState.SKIPPED:
        said += f" ({delivery.error_kind})"
    if not why:
        return said
    why = " ".join(why.split())
    return f"{said}: {why if len(why) <= _LONGEST_ERROR else why[:_LONGEST_ERROR] + ' …'}"
