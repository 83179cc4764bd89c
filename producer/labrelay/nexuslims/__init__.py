"""The bridge from NexusLIMS: a record builder switches to labrelay by changing an import.

``from nexusLIMS.exporters import export_records, was_successfully_exported`` becomes
``from labrelay.nexuslims import export_records, was_successfully_exported``. NexusLIMS itself is not needed: its
sessions, activities and reservations are taken for what they look like. ``docs/nexuslims.md`` tells the rest.
"""

from labrelay.context import ExportContext
from labrelay.nexuslims.exporting import export_records, was_successfully_exported
from labrelay.nexuslims.sweeping import SweepReport, SweptSession, sweep
from labrelay.results import ExportResult

__all__ = [
    "ExportContext",
    "ExportResult",
    "SweepReport",
    "SweptSession",
    "export_records",
    "sweep",
    "was_successfully_exported",
]
