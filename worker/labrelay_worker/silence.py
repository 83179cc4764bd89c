"""Which exports of a process only wait for destinations that have fallen silent, and what becomes of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from labrelay.logs import about
from labrelay.redaction import redact
from labrelay.results import DeliveryState
from labrelay_worker.admission import Admissions
from labrelay_worker.claimed import LedgerJob
from labrelay_worker.intake import Outcome, Silence

_logger = logging.getLogger(__name__)


class SilentCalls(Silence):
    """The silence of a process's destinations.

    Parameters
    ----------
    admissions
        What stands before its destinations.
    jobs
        Its exports under way, by id, each with the task that works on it.
    """

    def __init__(self, admissions: Admissions, jobs: Mapping[str, tuple[LedgerJob, Any]]) -> None:
        self._admissions, self._jobs = admissions, jobs

    def calls(self) -> int:
        """Return how many deliveries only wait for destinations that do not answer."""
        return self._admissions.idle()

    def holds(self, export_id: str) -> bool:
        """Return whether every call of an export is to a silent destination."""
        if export_id not in self._jobs:
            return False
        job, _ = self._jobs[export_id]
        called = [name for name, delivery in job.deliveries.items() if delivery.state is DeliveryState.SENDING]
        return bool(called) and all(self._admissions.is_silent(name) for name in called)

    def ended(self, outcome: Outcome) -> None:
        """Log it, for no task of Celery does."""
        with about(outcome.export_id, outcome.session):
            _logger.info("export %s %s: %s", outcome.export_id, redact(outcome.session), outcome.text)
