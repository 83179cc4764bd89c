"""Every metric family of labrelay, declared once: the exporters, the documentation and the tests read them here.

No label takes a value that grows with the exports: destinations, states and error kinds are few, ids never appear.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram"]

#: Seconds. From an answer of a web service nearby to an upload that takes a night.
DELIVERY_BUCKETS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
#: Seconds. From an export that met an idle worker to one that waited for a destination over a weekend.
EXPORT_BUCKETS: Final = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, 43_200.0, 259_200.0)


@dataclass(frozen=True)
class Family:
    """One metric family.

    Parameters
    ----------
    name
        As Prometheus stores it; a counter ends in ``_total``.
    kind
        What may be done with its values.
    help
        What it counts, and what it means when it moves.
    labels
        Names of its labels.
    buckets
        Of a histogram: upper bounds, seconds.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


BUILD = Family("labrelay_build_info", "gauge", "Always 1; the version that is running.", ("version",))

# --- of the ledger: the same wherever it is read, so read it in one place -------------------------------------------

LEDGER_UP = Family("labrelay_ledger_up", "gauge", "1 if Redis served the ledger at this scrape, else 0.")
EXPORTS = Family("labrelay_exports", "gauge", "Exports in the ledger, by state.", ("state",))
OLDEST = Family(
    "labrelay_oldest_export_age_seconds",
    "gauge",
    "Seconds since the oldest export of an unfinished state was accepted; 0 without any. Of the thousand of a state "
    "that have not changed for longest.",
    ("state",),
)
DUE = Family("labrelay_due_exports", "gauge", "Exports that are due: somebody should look at them now.")
OVERDUE = Family(
    "labrelay_overdue_exports",
    "gauge",
    "Exports due for more than ten seconds: no worker's reconciler looks at what is due.",
)
READY = Family(
    "labrelay_ready_exports", "gauge", "Exports that a worker may claim now: the backlog, by priority.", ("priority",)
)
QUEUE = Family("labrelay_queue_messages", "gauge", "Wake-ups that no worker has taken yet.", ("queue",))
UNACKED = Family("labrelay_queue_unacknowledged_messages", "gauge", "Wake-ups that workers are busy with.")
DEAD_LETTERS = Family(
    "labrelay_dead_letters",
    "gauge",
    "Exports that need a person, by state (dead, unknown) and reason: the error kind of its deliveries, `several`, "
    "or `poison`.",
    ("state", "reason"),
)
DEAD_DELIVERIES = Family(
    "labrelay_dead_deliveries",
    "gauge",
    "Failed or doubtful deliveries of exports that need a person.",
    ("destination", "kind"),
)
BREAKER = Family(
    "labrelay_breaker_state",
    "gauge",
    "1 for the state that a destination's breaker is in, else 0. `open` and `probing` hold its deliveries.",
    ("destination", "state"),
)
PAUSED = Family("labrelay_destination_paused", "gauge", "1 if a person paused the destination.", ("destination",))
HELD = Family(
    "labrelay_destination_held_exports",
    "gauge",
    "Exports that wait until a destination takes again.",
    ("destination",),
)
SERVED_BY = Family(
    "labrelay_destination_workers", "gauge", "Worker processes that serve a destination.", ("destination",)
)
WORKERS = Family("labrelay_workers", "gauge", "Worker processes that announced themselves lately.", ("version",))
OUTBOX = Family(
    "labrelay_outbox_entries", "gauge", "Submissions in the outbox of this machine, by state.", ("state",)
)
OUTBOX_LIMIT = Family("labrelay_outbox_limit_entries", "gauge", "Submissions that the outbox of this machine holds.")
OUTBOX_DAMAGED = Family(
    "labrelay_outbox_damaged_files", "gauge", "Damaged outbox files of this machine that were set aside."
)

LEDGER_FAMILIES: Final = (
    LEDGER_UP, EXPORTS, OLDEST, DUE, OVERDUE, READY, QUEUE, UNACKED, DEAD_LETTERS, DEAD_DELIVERIES, BREAKER, PAUSED,
    HELD,
    SERVED_BY, WORKERS, OUTBOX, OUTBOX_LIMIT, OUTBOX_DAMAGED, BUILD,
)  # fmt: skip

# --- of each worker: what it did itself, to be summed over all of them ----------------------------------------------

IN_FLIGHT = Family("labrelay_worker_in_flight_exports", "gauge", "Exports that this worker has claimed now.")
CLAIMS = Family(
    "labrelay_claims_total",
    "counter",
    "Answers of the ledger to claims: `claimed`, or why not (`leased`, `finished`, `later`, `missing`, `suspect`, "
    "`poisoned`).",
    ("answer",),
)
SETTLED = Family(
    "labrelay_runs_total",
    "counter",
    "Runs of claimed exports, by the state they gave the export back in.",
    ("state",),
)
EXPORT_SECONDS = Family(
    "labrelay_export_seconds",
    "histogram",
    "Seconds from the acceptance of an export to `delivered`.",
    (),
    EXPORT_BUCKETS,
)
DELIVERIES = Family(
    "labrelay_deliveries_total",
    "counter",
    "Delivery attempts written to the ledger, by outcome: `delivered`, `adopted` (it was there already), `retrying`, "
    "`failed`, `unknown`, `skipped`, `linked`, `not_linked`; with the error kind of those that failed.",
    ("destination", "outcome", "kind"),
)
DELIVERY_SECONDS = Family(
    "labrelay_delivery_seconds",
    "histogram",
    "Seconds that a call of a destination took, whatever came of it.",
    ("destination",),
    DELIVERY_BUCKETS,
)
LEASE_LOSSES = Family(
    "labrelay_lease_losses_total",
    "counter",
    "Exports that this worker lost to another one while it held them: it was frozen, or Redis was, for longer than "
    "`lease_seconds`.",
)
WOKEN = Family(
    "labrelay_woken_total",
    "counter",
    "Exports that the reconciler woke, by why: `retry` (its time has come), `unclaimed` (nobody took it within "
    "`wake_up_grace`: its wake-up is lost, or stands in a long queue), `lease_ended` (its worker died or froze), "
    "`handed_back` (a worker stopped).",
    ("why",),
)

WORKER_FAMILIES: Final = (
    IN_FLIGHT, CLAIMS, SETTLED, EXPORT_SECONDS, DELIVERIES, DELIVERY_SECONDS, LEASE_LOSSES, WOKEN, BUILD,
)  # fmt: skip
