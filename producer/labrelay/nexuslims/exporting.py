"""`export_records` and `was_successfully_exported`, called as NexusLIMS's record builder calls its own."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from labrelay.client import Client
from labrelay.context import ExportContext
from labrelay.errors import LabrelayError, WaitTimeout
from labrelay.nexuslims.contexts import NexusSession, context_of
from labrelay.nexuslims.environment import nexuslims_settings
from labrelay.nexuslims.outcomes import RELAY, accepted, finished, kept_earlier, may_replace, refused
from labrelay.nexuslims.staging import stage, tidy
from labrelay.process_client import default_client
from labrelay.results import ExportResult, ExportState
from labrelay.strategies import Strategy, parse_strategy

_logger = logging.getLogger(__name__)


def export_records(
    xml_files: Sequence[Path],
    sessions: Sequence[NexusSession],
    activities_per_session: Sequence[Iterable[object]] | None = None,
    reservation_events: Sequence[object] | None = None,
    *,
    wait: bool = False,
    timeout: float | None = None,
    strategy: str | None = None,
    destinations: Sequence[str] | None = None,
    replace: bool | None = None,
    client: Client | None = None,
) -> dict[Path, list[ExportResult]]:
    """Submit built records; the workers deliver them. One bad record does not stop the others.

    The first four arguments and the shape of the answer are those of ``nexusLIMS.exporters.export_records``
    (NexusLIMS 2.8.0). Each record is copied below its own folder first (see `labrelay.nexuslims.staging`), so the
    builder may move or rebuild it at once.

    Parameters
    ----------
    xml_files, sessions, activities_per_session, reservation_events
        Parallel, as NexusLIMS passes them.
    wait
        Return when every export is finished, with one result per destination. Otherwise the answer comes at once: one
        result per record that says whether labrelay has it, which is as much as its delivery is promised.
    timeout
        Seconds to wait at the longest, for each record; later results say how it stands.
    strategy
        Default: ``NX_EXPORT_STRATEGY``, else what the workers' routes and settings say.
    destinations
        Names to deliver to; default: as the workers' routes and settings say.
    replace
        A session that was submitted before with another record: True makes a new revision, False leaves the earlier
        one. Default: a new revision only while no destination has, or may have, the earlier one.
    client
        Default: the process's own, with settings from the environment.

    Returns
    -------
    dict
        For each file the results with NexusLIMS's field names. A record that could not be accepted has one result
        with the reason.

    Raises
    ------
    ValueError
        The arguments are not of one length.
    InvalidInput
        There is no such strategy.
    """
    count = len(xml_files)
    activities = activities_per_session or [()] * count
    events = reservation_events or [None] * count
    lengths = (len(sessions), len(activities), len(events))
    if any(length != count for length in lengths):
        msg = f"xml_files ({count}), sessions, activities and reservations {lengths} must have the same length"
        raise ValueError(msg)
    chosen = strategy or nexuslims_settings().get("NX_EXPORT_STRATEGY")
    if chosen:
        parse_strategy(chosen)
    relay = client or default_client()
    for folder in {Path(file).absolute().parent for file in xml_files}:
        tidy(folder, relay)
    submit = partial(_submit, relay, strategy=chosen, destinations=destinations, replace=replace)
    results = {
        file: submit(file, session, activity, event)
        for file, session, activity, event in zip(xml_files, sessions, activities, events, strict=True)
    }
    if wait:
        results = {file: _wait(relay, found, timeout) for file, found in results.items()}
    for file, found in results.items():
        _log(file, found)
    return results


def was_successfully_exported(
    xml_file: Path, results: Mapping[Path, Sequence[ExportResult]], *, strategy: str | None = None
) -> bool:
    """Return whether a record is exported as far as `results` can say.

    Without ``wait=True`` that is: labrelay has it and delivers it. With it, the strategy is fulfilled.

    Parameters
    ----------
    strategy
        Judge the results by this one instead of by the export's own.
    """
    found = results.get(xml_file) or ()
    if not found:
        return False
    if strategy is None:
        states = {result.metadata.get("export_state") for result in found}
        if found[0].destination_name != RELAY and len(states) == 1 and None not in states:
            return states == {ExportState.DELIVERED.value}
    every = parse_strategy(strategy or Strategy.ALL) is Strategy.ALL
    return (all if every else any)(result.success for result in found)


def _submit(
    client: Client,
    file: Path,
    session: NexusSession,
    activities: Iterable[object],
    event: object,
    *,
    strategy: str | None,
    destinations: Sequence[str] | None,
    replace: bool | None,
) -> list[ExportResult]:
    try:
        context = context_of(file, session, activities, event)
        staged = stage(context.xml_file_path, context.export_id, context.xml_file_path.parent)
        context = _of_bearable_size(context.model_copy(update={"xml_file_path": staged}), client)
        (submission,) = client.submit_many([context], strategy, destinations=destinations, replace=bool(replace))
        if submission.outcome != "conflict":
            return accepted(submission)
        earlier = client.status(submission.export_id)
        if replace is None and may_replace(earlier):
            return accepted(client.submit(context, strategy, destinations=destinations, replace=True))
        return kept_earlier(earlier)
    except LabrelayError as error:
        return refused(str(error))


def _of_bearable_size(context: ExportContext, client: Client) -> ExportContext:
    """Leave out the details of activities when they are too much for Redis; NexusLIMS's destinations read none."""
    if len(context.to_json().encode()) <= client.settings.max_context_bytes:
        return context
    _logger.warning("%s: its metadata is too large to be sent along; the record has it", context.xml_file_path.name)
    bare = tuple(activity.model_copy(update={"extra": {}}) for activity in context.activities)
    return context.model_copy(update={"activities": bare})


def _wait(client: Client, found: list[ExportResult], timeout: float | None) -> list[ExportResult]:
    export_id = found[0].metadata.get("export_id")
    if not found[0].success or not export_id:
        return found
    try:
        return finished(client.wait(export_id, timeout))
    except WaitTimeout:
        if client.spooled([export_id]):
            return found
        return finished(client.status(export_id))
    except LabrelayError as error:
        return refused(str(error))


def _log(file: Path, found: Sequence[ExportResult]) -> None:
    failed = [result for result in found if not result.success]
    if not failed:
        what = ", ".join(result.destination_name for result in found)
        _logger.info("%s: %s has it", Path(file).name, what)
    for result in failed:
        _logger.error("%s: %s: %s", Path(file).name, result.destination_name, result.error_message)
