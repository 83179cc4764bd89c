"""Every task, queue, key and entry-point name of labrelay, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

TASK_EXPORT = "labrelay.export"
QUEUE_EXPORTS = "labrelay.exports"

#: Most exports that one wake-up is good for: a Celery message costs about 3 ms of CPU however many they are.
EXPORTS_PER_WAKE_UP = 64

CONTEXT_SCHEMA: Final = "labrelay.export_context/1"

#: First word of every message between a worker and a viewer.
VIEWER_SCHEMA: Final = "labrelay.viewer/1"

ENTRY_POINTS_DESTINATIONS = "labrelay.destinations"
ENTRY_POINTS_BACKENDS = "labrelay.backends"
ENTRY_POINTS_COMMANDS = "labrelay.commands"
ENTRY_POINTS_CHECKS = "labrelay.checks"
ENTRY_POINTS_SETTINGS = "labrelay.settings"
ENTRY_POINTS_THIS_MACHINE = "labrelay.this_machine"

#: Fields of an export's hash that hold one destination each: ``d:cdcs``, ``i:cdcs`` …
FIELD_DELIVERY = "d:"
FIELD_INTENT = "i:"
FIELD_RECEIPT = "r:"
FIELD_PREVIOUS_RECEIPT = "p:"

#: Field of an export's hash: the span its submit was traced as.
FIELD_TRACEPARENT = "traceparent"

#: Fields that hold the bulk of an export.
FIELD_CONTEXT = "context"
FIELD_PACKED = "packed"  # of a tombstone, and of a row as it is read
FIELD_EARLIER = "earlier"

#: Fields of a tombstone, beside those of the row it stands for.
FIELD_ARCHIVE_FILE = "archive_file"
FIELD_ARCHIVE_HOST = "archive_host"
FIELD_ARCHIVE_AT = "archive_at"
FIELD_ARCHIVE_WHY = "archive_why"

#: Error kind of an export that killed its workers; the others are `DeliveryError.kind`.
KIND_POISON = "poison"

PACKED_SCHEMA: Final = "labrelay.packed_export/1"
ARCHIVE_SCHEMA: Final = "labrelay.archived_export/1"
#: Each line of a report of `labrelay check`.
AUDIT_SCHEMA: Final = "labrelay.audit_line/1"
DOCTOR_SCHEMA: Final = "labrelay.doctor/1"


@dataclass(frozen=True)
class Keys:
    """The ledger's Redis keys under one prefix (``docs/ledger.md`` documents type, writer and lifetime)."""

    prefix: str

    def export(self, export_id: str) -> str:
        """Hash: one export, its deliveries, intents and receipts."""
        return f"{self.prefix}export:{export_id}"

    def trail(self, export_id: str) -> str:
        """List: what happened to one export, oldest first."""
        return f"{self.prefix}trail:{export_id}"

    def packed(self, export_id: str) -> str:
        """String: context, deliveries, receipts and trail of a delivered export, compressed."""
        return f"{self.prefix}packed:{export_id}"

    @property
    def packed_until(self) -> str:
        """String: delivered exports that ended before this time in milliseconds are packed."""
        return f"{self.prefix}packed_until"

    def state(self, state: str) -> str:
        """Sorted set: ids in one state, by time of the last change in milliseconds."""
        return f"{self.prefix}state:{state}"

    def ready(self, priority: str) -> str:
        """Sorted set: exports that a worker may claim now, by the time in milliseconds since when."""
        return f"{self.prefix}ready:{priority}"

    @property
    def rung(self) -> str:
        """String: how many wake-ups are on their way, as far as is known."""
        return f"{self.prefix}rung"

    @property
    def wake_ups(self) -> str:
        """List: wake-ups that no worker has received yet (Celery's, as kombu names it)."""
        return f"{self.prefix}{QUEUE_EXPORTS}"

    @property
    def unacknowledged(self) -> str:
        """Sorted set, Celery's: wake-ups that workers are busy with."""
        return f"{self.prefix}unacked_index"

    @property
    def due(self) -> str:
        """Sorted set: every unfinished export, by the time in milliseconds at which somebody must look at it."""
        return f"{self.prefix}due"

    @property
    def breakers(self) -> str:
        """Hash: destination to how its breaker stands, as JSON."""
        return f"{self.prefix}breakers"

    @property
    def pauses(self) -> str:
        """Hash: destination to who paused it, when and why, as JSON."""
        return f"{self.prefix}pauses"

    def held(self, destination: str) -> str:
        """Sorted set: exports that wait for a destination which takes nothing, by the time in milliseconds."""
        return f"{self.prefix}held:{destination}"

    def pace(self, account: str) -> str:
        """Hash with expiry: when the next call of an account may begin, and the last time handed out to wait for."""
        return f"{self.prefix}pace:{account}"

    def places(self, account: str) -> str:
        """Sorted set with expiry: running calls of an account, by the end of their lease in milliseconds."""
        return f"{self.prefix}places:{account}"

    @property
    def sessions(self) -> str:
        """Hash: session identifier to the export ids made from it, separated by blanks."""
        return f"{self.prefix}sessions"

    @property
    def archived(self) -> str:
        """Hash: id of an archived export to its tombstone, as JSON."""
        return f"{self.prefix}archived"

    @property
    def suspects(self) -> str:
        """Sorted set: exports that run although they were running when several workers died, by since when."""
        return f"{self.prefix}suspects"

    @property
    def handful(self) -> str:
        """String with expiry: how many of those may run at once."""
        return f"{self.prefix}handful"

    @property
    def leader(self) -> str:
        """String with expiry: the worker process whose reconciler sweeps."""
        return f"{self.prefix}leader"

    @property
    def workers(self) -> str:
        """Sorted set: worker processes by the time in milliseconds they were last seen."""
        return f"{self.prefix}workers"

    @property
    def worker_info(self) -> str:
        """Hash: worker process to what it serves, as JSON."""
        return f"{self.prefix}worker_info"

    @property
    def metrics(self) -> str:
        """Sorted set: addresses at which Prometheus scrapes workers, by when they were announced."""
        return f"{self.prefix}metrics"
