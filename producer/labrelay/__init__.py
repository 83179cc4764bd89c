"""labrelay delivers finished instrument sessions: submit a context here, workers do the rest.

Examples
--------
>>> from labrelay import ExportContext, submit, wait  # doctest: +SKIP
>>> context = ExportContext.from_nexus_record("record.xml", instrument_root="/data")  # doctest: +SKIP
>>> wait(submit(context).export_id).state  # doctest: +SKIP
<ExportState.DELIVERED: 'delivered'>
"""

from labrelay.client import Client
from labrelay.context import Activity, Artifact, ExportContext, ReservationEvent
from labrelay.process_client import cancel, plan, status, submit, submit_many, wait
from labrelay.results import ExportResult, ExportState, ExportStatus, Receipt, Submission

__all__ = [
    "Activity",
    "Artifact",
    "Client",
    "ExportContext",
    "ExportResult",
    "ExportState",
    "ExportStatus",
    "Receipt",
    "ReservationEvent",
    "Submission",
    "cancel",
    "plan",
    "status",
    "submit",
    "submit_many",
    "wait",
]
