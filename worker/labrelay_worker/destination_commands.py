"""Commands about destinations: destinations, pause, resume."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table
from rich.text import Text

from labrelay.cli import as_json, console, print_json
from labrelay.errors import InvalidInput, LedgerUnavailable, NotPermitted
from labrelay_worker.breaker import clock

if TYPE_CHECKING:
    from labrelay_worker.holding_desk import DestinationHold


@click.command("destinations", short_help="List this machine's destinations, and what holds them.")
@click.option("--check", is_flag=True, help="Ask each destination whether it could deliver now.")
@as_json
def destinations(check: bool, as_json: bool) -> None:
    """List this machine's destinations, what holds them, and those that are unavailable with the reason."""
    import asyncio  # noqa: PLC0415

    from labrelay_worker.destinations.registry import ExporterRegistry  # noqa: PLC0415
    from labrelay_worker.settings import load_worker_settings  # noqa: PLC0415

    settings = load_worker_settings()
    registry = ExporterRegistry(settings)
    checks = asyncio.run(registry.check()) if check else {}
    holds, away = _holds(settings)
    if as_json:
        print_json(
            {
                "destinations": [
                    info.model_dump()
                    | {"check": checks.get(info.name)}
                    | {"hold": holds[info.name].model_dump() if info.name in holds else None}
                    for info in registry.infos()
                ],
                "held_elsewhere": [
                    hold.model_dump()
                    for name, hold in holds.items()
                    if name not in {info.name for info in registry.infos()}
                ],
                "holds_unknown": away,
                "unavailable": [vars(plugin) for plugin in registry.unavailable],
            }
        )
        return
    table = Table()
    for heading in ("destination", "type", "priority", "enabled", "takes deliveries", "remarks"):
        table.add_column(heading, overflow="fold")
    for info in registry.infos():
        remarks = "; ".join(filter(None, [info.reason, checks.get(info.name)]))
        takes = _takes(holds.pop(info.name, None)) if not away else Text("?", style="dim")
        table.add_row(info.name, info.type, str(info.priority), "yes" if info.enabled else "no", takes, Text(remarks))
    for hold in holds.values():
        table.add_row(hold.destination, "", "", "", _takes(hold), Text("not served on this machine"))
    console().print(table)
    print_unavailable(registry.unavailable)
    if away:
        click.echo(f"labrelay: breakers and pauses are not shown: {away}", err=True)


@click.command("pause", short_help="Let a destination take nothing until it is resumed.")
@click.argument("name", metavar="NAME")
@click.option("--reason", default="", metavar="TEXT", help="Shown to everybody who looks.")
@as_json
def pause(name: str, reason: str, as_json: bool) -> None:
    """Let a destination take nothing until it is resumed; its deliveries wait, those under way are finished."""
    from labrelay_worker.holding_desk import HoldingDesk  # noqa: PLC0415
    from labrelay_worker.settings import load_worker_settings  # noqa: PLC0415

    settings = load_worker_settings()
    with HoldingDesk(settings) as desk:
        _require_known(name, _known_here(settings) | desk.served())
        paused = desk.pause(name, reason)
    if as_json:
        print_json({"destination": name, "paused": paused.model_dump()})
    else:
        click.echo(f"{name}: {paused.describe()}; its deliveries wait until `labrelay resume {name}`")


@click.command("resume", short_help="End a pause, or have a destination asked again at once.")
@click.argument("name", metavar="NAME")
@as_json
def resume(name: str, as_json: bool) -> None:
    """End a pause, and have a destination that was left alone asked again at once."""
    from labrelay_worker.holding_desk import HoldingDesk  # noqa: PLC0415
    from labrelay_worker.settings import load_worker_settings  # noqa: PLC0415

    settings = load_worker_settings()
    with HoldingDesk(settings) as desk:
        resumed = desk.resume(name)
        if not resumed:
            _require_known(name, _known_here(settings) | desk.served())
    if as_json:
        print_json({"destination": name, "resumed": resumed})
    else:
        click.echo(f"{name}: " + ("goes on" if resumed else "nothing held it"))


def _holds(settings: Any) -> tuple[dict[str, DestinationHold], str | None]:
    """Return what holds destinations, or why that is not known."""
    from labrelay_worker.holding_desk import HoldingDesk  # noqa: PLC0415

    try:
        with HoldingDesk(settings) as desk:
            return {hold.destination: hold for hold in desk.holds()}, None
    except (LedgerUnavailable, NotPermitted) as error:
        return {}, " ".join(str(error).split())


def _known_here(settings: Any) -> set[str]:
    from labrelay_worker.destinations.registry import ExporterRegistry  # noqa: PLC0415

    return {info.name for info in ExporterRegistry(settings).infos()}


def _require_known(name: str, known: set[str]) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        cure = f"Did you mean {near[0]}?" if near else f"Use one of {', '.join(sorted(known))}"
        raise InvalidInput("NAME", f"neither this machine nor a running worker has a destination {name!r}", cure)


def _takes(hold: DestinationHold | None) -> Text:
    if hold is None:
        return Text("yes")
    if hold.state == "trial":
        return Text(f"a few, on trial after {hold.why}", style="yellow")
    until = "until resumed" if hold.state == "paused" else "being asked now"
    if hold.state == "open" and hold.until is not None:
        until = f"asked again at {clock(hold.until)}"
    return Text(f"no: {hold.why} ({until}; {hold.waiting} waiting)", style="red")


def print_unavailable(plugins: list[Any]) -> None:
    """Print plugins that cannot be used, with the reason and the repair."""
    if not plugins:
        return
    table = Table(title="unavailable", title_justify="left")
    for heading in ("name", "source", "reason", "what to do"):
        table.add_column(heading, overflow="fold")
    for plugin in plugins:
        table.add_row(plugin.name, Text(plugin.source), Text(plugin.reason), Text(plugin.cure))
    console().print(table)
