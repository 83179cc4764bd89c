"""The end of a plan: faults cease, everything settles, a person settles what is doubtful, and it is all counted."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress

from fault_figures import SETTLE_BOUND, Figures
from fault_world import World

from labrelay.deadletters import Filter
from labrelay.results import DeliveryState, ExportState, ExportStatus, TrailEntry


def settle(w: World) -> Figures:
    """End every fault, wait until every export is final, and count what the receivers saw."""
    w.inbox.behave()
    w.figures.fallen = sum(map(w.has_ended, w.workers))
    w.revive()
    last_fault = time.monotonic()
    statuses = _final(w, w.ids)
    w.figures.unsettled = [f"{i}: {w.client.status(i).summary}" for i in w.ids if i not in statuses]
    w.figures.recovery_seconds = time.monotonic() - last_fault
    _settle_by_hand(w, statuses)
    _count_states(w, statuses)
    _count_arrivals(w)
    return w.figures


def _final(w: World, ids: list[str]) -> dict[str, ExportStatus]:
    statuses: dict[str, ExportStatus] = {}

    def all_final() -> bool:
        for export_id in ids:
            if export_id not in statuses and (status := w.client.status(export_id)).state.is_final:
                statuses[export_id] = status
        return len(statuses) == len(ids)

    with suppress(TimeoutError):  # the caller counts those that are missing
        w.until(all_final, SETTLE_BOUND)
    return statuses


def _settle_by_hand(w: World, statuses: dict[str, ExportStatus]) -> None:
    """Do what a person does with doubtful deliveries: look at the destination, and say what is there."""
    unknown = {i for i, s in statuses.items() if any(d.state is DeliveryState.UNKNOWN for d in s.deliveries)}
    w.figures.unknown = len(unknown)
    listed = {letter.export_id for letter in w.client.dead_letters.find(Filter())}
    w.figures.unlisted = len(unknown - listed)
    for export_id in unknown:
        doubtful = [d.destination for d in statuses[export_id].deliveries if d.state is DeliveryState.UNKNOWN]
        for name in doubtful:
            arrived = w.inbox.acceptances[f"/{name}", export_id]
            w.client.replay(export_id, assume="delivered" if arrived else "missing")
    after = _final(w, sorted(unknown))
    statuses.update(after)
    w.figures.unsettled_by_hand = sum(i not in after or after[i].state is not ExportState.DELIVERED for i in unknown)


def _count_states(w: World, statuses: dict[str, ExportStatus]) -> None:
    figures = w.figures
    figures.submitted = len(w.ids)
    figures.delivered = sum(s.state is ExportState.DELIVERED for s in statuses.values())
    for export_id, status in statuses.items():
        if export_id in w.spoilt:
            refused = any("changed since" in (d.error_message or "") for d in status.deliveries)
            figures.refused += refused
            figures.lost += not refused
            continue
        figures.lost += status.state is ExportState.DEAD
        for delivery in status.deliveries:
            path = f"/{delivery.destination}"
            confirmed = delivery.state is DeliveryState.DELIVERED
            if delivery.destination == "archive":
                manifest = w.disk_root / str(delivery.receipt and delivery.receipt.record_id) / "manifest.json"
                figures.lost += confirmed and not manifest.exists()
            else:
                figures.lost += confirmed and not w.inbox.acceptances[path, export_id]


def _count_arrivals(w: World) -> None:
    trails = {export_id: w.client.trail(export_id) for export_id in w.ids}
    w.figures.retried = sum(entry.event == "retrying" for trail in trails.values() for entry in trail)
    confirmed = _times(trails, "delivered", "adopted")
    sent = _times(trails, "sending")
    arrived: dict[tuple[str, str | None], list[float]] = defaultdict(list)
    for at, delivery in w.inbox.arrivals:
        arrived[delivery.path, delivery.export_id].append(at)
    for key, times in arrived.items():
        end = min(confirmed.get(key, ()), default=math.inf)
        after = [at for at in times if at > end + 0.005]
        by_frozen = sum(any(begun <= at <= ended for begun, ended in w.frozen_between) for at in after)
        # As many were sent before and had not arrived by then.
        under_way = sum(at <= end for at in sent[key]) - (len(times) - len(after))
        late = min(max(under_way, 0), len(after) - by_frozen)
        w.figures.asked_again_frozen += by_frozen
        w.figures.arrived_late += late
        w.figures.asked_again += len(after) - by_frozen - late
    w.figures.twice = sum(count - 1 for (path, _), count in w.inbox.acceptances.items() if path != "/keyed")


def _times(trails: Mapping[str, list[TrailEntry]], *events: str) -> Mapping[tuple[str, str | None], list[float]]:
    found: dict[tuple[str, str | None], list[float]] = defaultdict(list)
    for export_id, trail in trails.items():
        for entry in trail:
            if entry.event in events and entry.destination:
                found[f"/{entry.destination}", export_id].append(entry.at.timestamp())
    return found
