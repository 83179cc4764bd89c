"""The one task: the only place where Celery and the engine meet."""

from __future__ import annotations

import logging
from collections import UserDict
from collections.abc import Sequence

from celery import shared_task
from celery.exceptions import Reject, Retry

from labrelay.logs import about
from labrelay.names import TASK_EXPORT
from labrelay.redaction import redact
from labrelay.results import UNFINISHED, ExportState
from labrelay_worker.lifecycle import lifecycle
from labrelay_worker.telling import by_session

_logger = logging.getLogger(__name__)

#: Celery cuts a result off at 1024 characters; a wake-up of many exports tells more in Flower.
_LONGEST_RESULT = 16_384


class NeedsPerson(Exception):
    """Something will not go on by itself: the task counts as failed, as people expect of Flower."""

    def __repr__(self) -> str:
        return repr(self.args[0])

    __str__ = __repr__


class WaitsInLedger(Retry):  # type: ignore[misc]  # Celery ships no types
    """Something is tried again when the ledger says so; Celery sends nothing, it only tells people."""

    def __init__(self, told: dict[str, str]) -> None:
        super().__init__(repr(told))
        self.told = told

    def __reduce__(self) -> tuple[type[WaitsInLedger], tuple[dict[str, str]]]:
        return type(self), (self.told,)

    def __repr__(self) -> str:
        return repr(self.told)

    __str__ = __repr__


@shared_task(  # type: ignore[untyped-decorator]  # Celery ships no types
    name=TASK_EXPORT, throws=(NeedsPerson,), resultrepr_maxsize=_LONGEST_RESULT
)
def export(ids: Sequence[str] = (), looks: bool = False) -> UserDict[str, str]:
    """Deliver what is ready; answers by session how each export stands, for Flower.

    Parameters
    ----------
    ids
        Exports to take before others: the one that a lone wake-up is for, or all of one from an older release.
    looks
        Whether the wake-up is good for whatever else is ready.

    The task's state is that of its exports, the worst first: failed while one needs a person, to be retried while one
    waits (the ledger wakes it, Celery sends nothing), and else successful.

    Raises
    ------
    Reject
        The process shuts down and left some of it: the message goes back to the queue. Waking an export that is
        done or claimed elsewhere does nothing, so the whole message may go back.
    NeedsPerson
        One of them is dead or unknown.
    WaitsInLedger
        One of them is not finished.
    """
    handled = lifecycle.runtime().wake(ids, looks=looks)
    if handled.goes_back:
        raise Reject("shutting down", requeue=True)
    for outcome in handled.outcomes if _logger.isEnabledFor(logging.INFO) else ():
        with about(outcome.export_id, outcome.session):
            _logger.info("export %s %s: %s", outcome.export_id, redact(outcome.session), outcome.text)
    told = by_session((outcome.session, outcome.export_id, outcome.text) for outcome in handled.outcomes)
    states = {outcome.state for outcome in handled.outcomes}
    if states & {ExportState.DEAD, ExportState.UNKNOWN}:
        raise NeedsPerson(told)
    if states & UNFINISHED:
        raise WaitsInLedger(told)
    # The text is the same, but Celery makes that of a real dict word by word, at twenty times the cost.
    return UserDict(told or {"nothing to do": "another wake-up brought everything that was ready"})
