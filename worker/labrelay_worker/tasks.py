"""The one task: the only place where Celery and the engine meet."""

from __future__ import annotations

import logging

from celery import shared_task
from celery.exceptions import Reject

from labrelay.names import TASK_EXPORT
from labrelay.redaction import redact
from labrelay_worker.lifecycle import lifecycle

_logger = logging.getLogger(__name__)


@shared_task(name=TASK_EXPORT)  # type: ignore[untyped-decorator]  # Celery ships no types
def export(ids: list[str]) -> dict[str, str]:
    """Deliver the exports a wake-up names; answers by session how each stands, for Flower.

    Raises
    ------
    Reject
        The process shuts down and left some of them: the message goes back to the queue. Waking an export that is
        done or claimed elsewhere does nothing, so the whole message may go back.
    """
    outcomes = lifecycle.runtime().run(ids)
    if any(outcome.left for outcome in outcomes):
        raise Reject("shutting down", requeue=True)
    for outcome in outcomes:
        _logger.info("export %s %s: %s", outcome.export_id, redact(outcome.session), outcome.text)
    return {redact(outcome.session) or outcome.export_id: outcome.text for outcome in outcomes}
