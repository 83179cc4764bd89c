"""Links that come late: an entry that went out before the record it should link to. Pure, from data to data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from labrelay.errors import DeliveryError
from labrelay.results import Delivery, DeliveryState, Receipt
from labrelay_worker.retrying import RetryPolicy, after_failure


def missing_links(receipts: Mapping[str, Receipt]) -> dict[str, tuple[str, ...]]:
    """Return, by destination, the destinations whose links its entry lacks."""
    return {name: receipt.unlinked for name, receipt in receipts.items() if receipt.unlinked}


def links_to_add(deliveries: Mapping[str, Delivery], missing: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return the destinations whose entry lacks a link that can be added by now and was not given up."""
    return [
        name
        for name, others in missing.items()
        if name in deliveries
        and deliveries[name].state is DeliveryState.DELIVERED
        and not _given_up(deliveries[name])
        and any(o in deliveries and deliveries[o].state is DeliveryState.DELIVERED for o in others)
    ]


def after_failed_link(
    error: DeliveryError, before: Delivery, *, now: float, policy: RetryPolicy, jitter: float
) -> Delivery:
    """Return how a delivered entry stands after its link could not be added; it stays delivered whatever happens."""
    # The first failure opens a budget of its own: the delivery's may have been spent long ago.
    earlier = before if before.error_kind else Delivery()
    # Adding a link twice adds one, so no failure of it is doubtful.
    after = after_failure(
        error, earlier, now=now, policy=replace(policy, on_unknown="retry"), can_ask=True, jitter=jitter
    )
    again = after.state is DeliveryState.RETRYING
    return after.model_copy(
        update={
            "state": DeliveryState.DELIVERED,
            "reason": f"delivered; its link is {'tried again' if again else 'given up'}",
        }
    )


def _given_up(delivery: Delivery) -> bool:
    return delivery.error_kind is not None and delivery.retry_at is None
