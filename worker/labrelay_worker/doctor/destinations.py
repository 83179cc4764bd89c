"""Checks that every destination can be made and answers, and that nothing holds it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from labrelay.doctor.examining import Patient
from labrelay.doctor.findings import Finding, error, note, warning
from labrelay.errors import LedgerUnavailable, NotPermitted
from labrelay_worker.breaker import clock
from labrelay_worker.destinations.registry import ExporterRegistry
from labrelay_worker.discovery import UnavailablePlugin
from labrelay_worker.holding_desk import DestinationHold, HoldingDesk
from labrelay_worker.hosting import HostedDestination
from labrelay_worker.settings import WorkerSettings


@dataclass(frozen=True)
class Answer:
    """What a destination said of its settings: None is well."""

    destination: str
    type: str
    problem: str | None = None
    in_time: bool = True


def check(patient: Patient) -> Iterator[Finding]:
    """Make every destination, and ask all of them side by side."""
    settings = patient.settings
    if not isinstance(settings, WorkerSettings):
        return
    registry = ExporterRegistry(settings)
    enabled = [info for info in registry.infos() if info.enabled]
    asked = set(settings.destinations) | set(settings.backends)
    folders = [str(folder) for folder in settings.plugin_path]
    yield from judge_unavailable(registry.unavailable, asked, [*folders, *settings.plugins])
    if not enabled:
        repair = "Add a [destinations.NAME] table to labrelay.toml, or enable one"
        yield error("destination.none", "destinations", "no destination is enabled: every export waits", repair)
    hosts = registry.hosts([info.name for info in enabled])
    served = [host for host in hosts.values() if isinstance(host, HostedDestination)]
    try:
        yield from judge_answers(asyncio.run(_ask_all(served, patient.seconds)), patient.seconds)
    finally:
        registry.cleanup_backends()
    try:
        with HoldingDesk(settings) as desk:
            holds = desk.holds()
    except (LedgerUnavailable, NotPermitted):
        return  # the checks of the server and of the worker's rights say so
    yield from judge_holds(holds)


def judge_unavailable(
    plugins: Sequence[UnavailablePlugin], asked: Collection[str], named: Collection[str]
) -> Iterator[Finding]:
    """Find plugins that cannot be used: those somebody asked for are missed, the others are only not installed."""
    for plugin in plugins:
        # A type that is only not configured is like one that is only not installed.
        is_missed = any(plugin.source.startswith(each) for each in named) and "[destinations." not in plugin.cure
        make = error if plugin.name in asked else warning if is_missed else note
        yield make("plugin.unavailable", plugin.name, f"{plugin.source}: {plugin.reason}", plugin.cure)


def judge_answers(answers: Sequence[Answer], seconds: float) -> Iterator[Finding]:
    """Find destinations that could not deliver now."""
    for answer in answers:
        name = answer.destination
        if not answer.in_time:
            problem = f"it does not answer within {seconds:g} s"
            repair = f"See whether it is up and can be reached from here; `labrelay pause {name}` lets others go on"
            yield error("destination.silent", name, problem, repair)
        elif answer.problem is not None:
            repair = f"Correct [destinations.{name}] in labrelay.toml, its secrets, or the service itself"
            yield error("destination.refuses", name, answer.problem, repair)


def judge_holds(holds: Sequence[DestinationHold]) -> Iterator[Finding]:
    """Find destinations that take nothing at the moment."""
    for hold in holds:
        waiting = f"{hold.why} ({hold.waiting} exports wait)"
        if hold.state == "paused":
            repair = f"Run `labrelay resume {hold.destination}` when it may go on"
            yield warning("destination.paused", hold.destination, waiting, repair)
        elif hold.state != "trial":
            again = f"; it is asked again at {clock(hold.until)}" if hold.until is not None else ""
            repair = f"Bring it back{again}, or run `labrelay resume {hold.destination}` to have it asked at once"
            yield warning("destination.down", hold.destination, waiting, repair)


async def _ask_all(hosts: Sequence[HostedDestination], seconds: float) -> list[Answer]:
    answers = await asyncio.gather(*(_ask(host, seconds) for host in hosts))
    await asyncio.gather(*(_close(host, seconds) for host in hosts))
    return answers


async def _ask(host: HostedDestination, seconds: float) -> Answer:
    try:
        async with asyncio.timeout(seconds):
            valid, message = await host.validate_config()
    except TimeoutError:
        return Answer(host.info.name, host.info.type, in_time=False)
    return Answer(host.info.name, host.info.type, None if valid else message or "it says that it is not usable")


async def _close(host: HostedDestination, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await host.close()
    except Exception:  # noqa: BLE001  what it leaves open ends with this process
        return
