"""The functions of the package itself: one client for the whole process, made when first used."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

from labrelay.client import Client
from labrelay.context import ExportContext
from labrelay.plans import Plan
from labrelay.results import ExportStatus, Submission


@functools.cache
def default_client() -> Client:
    """Return the process's client with settings from the environment."""
    return Client()


def submit(
    context: ExportContext,
    strategy: str | None = None,
    *,
    destinations: Sequence[str] | None = None,
    replace: bool = False,
    priority: str | None = None,
) -> Submission:
    """See `Client.submit`."""
    return default_client().submit(context, strategy, destinations=destinations, replace=replace, priority=priority)


def submit_many(
    contexts: Iterable[ExportContext],
    strategy: str | None = None,
    *,
    destinations: Sequence[str] | None = None,
    replace: bool = False,
    priority: str | None = None,
) -> list[Submission]:
    """See `Client.submit_many`."""
    return default_client().submit_many(
        contexts, strategy, destinations=destinations, replace=replace, priority=priority
    )


def status(export_id: str) -> ExportStatus:
    """See `Client.status`."""
    return default_client().status(export_id)


def wait(export_id: str, timeout: float | None = None) -> ExportStatus:
    """See `Client.wait`."""
    return default_client().wait(export_id, timeout)


def cancel(export_id: str) -> str:
    """See `Client.cancel`."""
    return default_client().cancel(export_id)


def plan(context: ExportContext, strategy: str | None = None, *, destinations: Sequence[str] | None = None) -> Plan:
    """See `Client.plan`."""
    return default_client().plan(context, strategy, destinations=destinations)
