"""Checks that a wake-up stays with one worker for as long as its deliveries may take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from labrelay.doctor.examining import Patient
from labrelay.doctor.findings import Finding, warning
from labrelay.wakeups import VISIBILITY_SECONDS
from labrelay_worker.destinations.registry import ExporterRegistry
from labrelay_worker.settings import WorkerSettings


def check(patient: Patient) -> Iterator[Finding]:
    """Add up how long one export may take with the destinations of this machine."""
    settings = patient.settings
    if not isinstance(settings, WorkerSettings):
        return
    registry = ExporterRegistry(settings)
    seconds = {}
    for destination in registry.get_enabled_destinations():
        seconds[str(destination.name)] = getattr(destination, "timeout", None) or settings.call_timeout
    yield from judge(VISIBILITY_SECONDS, seconds)


def judge(visibility: float, seconds: Mapping[str, float]) -> Iterator[Finding]:
    """Find calls that, one after the other, outlast the time after which the broker hands a wake-up on.

    Parameters
    ----------
    visibility
        Seconds after which Redis gives an unacknowledged message to another worker.
    seconds
        By destination, how long one call may take; those that link to each other run one after the other.
    """
    total = sum(seconds.values())
    if total >= visibility:
        longest = max(seconds, key=lambda name: seconds[name])
        yield warning(
            "timeouts.visibility",
            longest,
            f"calls may take {total:g} s in a row, and after {visibility:g} s the broker hands the wake-up to a "
            "second worker. Its lease keeps the export whole; a thread of that worker is busy for nothing",
            f"Lower call_timeout or the timeout of {longest}, so that all of them stay below {visibility:g} s",
        )
