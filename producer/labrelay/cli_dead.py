"""`labrelay dead`: list, show, replay and drop the exports that need a person."""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from labrelay.cli_parts import as_json, console, open_client, print_json
from labrelay.deadletters import REPLAYABLE, Assumption, Filter, doubts_of, parse_since
from labrelay.errors import InvalidInput
from labrelay.results import ExportStatus, Replayed

if TYPE_CHECKING:
    from labrelay.client import Client

Command = TypeVar("Command", bound=Callable[..., Any])

#: Exports handed over between two movements of the progress bar.
_CHUNK = 50


def _filters(command: Command) -> Command:
    for option in (
        click.option("--since", metavar="T", help="Died within 30m, 2h, 3d, or since an ISO date."),
        click.option("--kind", metavar="K", help="With this error kind, e.g. rejected, outcome_unknown, poison."),
        click.option("--instrument", metavar="I", help="Of instruments like this shell pattern."),
        click.option("--destination", metavar="D", help="That failed or are in doubt at this destination."),
    ):
        command = option(command)
    return command


def _bulk(command: Command) -> Command:
    for option in (
        as_json,
        click.option("--yes", is_flag=True, help="Do not ask."),
        click.option("--dry-run", is_flag=True, help="Show which ones, and do nothing."),
        click.option("--all", "everything", is_flag=True, help="Every dead letter."),
        click.argument("ids", nargs=-1, metavar="[ID…]"),
    ):
        command = option(command)
    return command


def _filter(
    client: Client, destination: str | None, instrument: str | None, kind: str | None, since: str | None
) -> Filter:
    died = parse_since(since, client.dead_letters.now()) if since else None
    return Filter(destination=destination, instrument=instrument, kind=kind, since=died)


@click.group("dead", short_help="Exports that need a person.")
def dead() -> None:
    """Exports that need a person: failed for good, or of unknown outcome."""


@dead.command("list")
@_filters
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most so many; default: all.")
@as_json
def list_(
    destination: str | None,
    instrument: str | None,
    kind: str | None,
    since: str | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """List dead letters, the latest first."""
    with open_client() as client:
        wanted = _filter(client, destination, instrument, kind, since)
        letters = _found(client, wanted, as_json, limit)
    _print(letters, as_json)


@dead.command("show", short_help="Show a dead letter, and what can be done.")
@click.argument("export_id", metavar="ID")
@as_json
def show(export_id: str, as_json: bool) -> None:
    """Show a dead letter: how each destination stands, what happened, and what can be done."""
    from labrelay.tables import status_table, trail_table  # noqa: PLC0415

    with open_client() as client:
        letter, trail = client.dead_letters.get(export_id), client.trail(export_id)
    if as_json:
        print_json(
            {"export": letter.model_dump(mode="json"), "trail": [entry.model_dump(mode="json") for entry in trail]}
        )
        return
    console().print(status_table(letter))
    console().print(trail_table(trail))
    for line in _advice(letter):
        click.echo(line)


def _advice(letter: ExportStatus) -> Iterator[str]:
    for name in doubts_of(letter):
        yield f"{name} may have it. Look there, then: labrelay dead replay {letter.export_id} --destination {name} "
        yield "  --assume delivered|missing"
    yield f"Once the cause is repaired: labrelay dead replay {letter.export_id}"


@dead.command("replay", short_help="Give dead letters back to the workers.")
@_bulk
@_filters
@click.option(
    "--assume",
    type=click.Choice(["delivered", "missing"]),
    help="Settle deliveries in doubt (with --destination: there alone); you looked.",
)
def replay(  # noqa: PLR0917  click passes options by name
    ids: tuple[str, ...],
    destination: str | None,
    instrument: str | None,
    kind: str | None,
    since: str | None,
    everything: bool,
    assume: Assumption | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Give dead letters back to the workers: by ID (cancelled ones too), by filter, or --all.

    What was delivered stays delivered; the rest starts with a fresh budget of attempts.
    """
    with open_client() as client:
        wanted = _filter(client, destination, instrument, kind, since)
        letters = _chosen(client, ids, wanted, everything, as_json)
        if assume:
            letters = _in_doubt(letters, ids, destination)
        if dry_run:
            _print(letters, as_json, f"dry run: {len(letters)} would be replayed")
            return
        if not ids and not yes and letters:
            click.confirm(f"Replay {len(letters)} exports?", abort=True, err=True)
        done: list[Replayed] = []
        for chunk in _tracked(letters, "replaying", as_json):
            done += client.replay_letters(chunk, assume=assume, destination=destination)
    open_doubts = 0 if assume else sum(bool(doubts_of(letter)) for letter in letters)
    if open_doubts:
        click.echo(
            f"labrelay: {open_doubts} of them are in doubt: their destinations are asked first; those that cannot be "
            "asked come back as unknown, and --assume settles them",
            err=True,
        )
    _report(done, as_json)


@dead.command("drop", short_help="Remove dead letters for good, once they are in the archive.")
@_bulk
@_filters
def drop(  # noqa: PLR0917  click passes options by name
    ids: tuple[str, ...],
    destination: str | None,
    instrument: str | None,
    kind: str | None,
    since: str | None,
    everything: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Remove dead letters for good, once they are in the archive: by ID (cancelled ones too), filter or --all."""
    with open_client() as client:
        wanted = _filter(client, destination, instrument, kind, since)
        letters = _chosen(client, ids, wanted, everything, as_json)
        if dry_run:
            _print(letters, as_json, f"dry run: {len(letters)} would be dropped")
            return
        if not yes and letters:
            click.confirm(f"Drop {len(letters)} exports for good?", abort=True, err=True)
        done: list[Replayed] = []
        try:
            for chunk in _tracked(letters, "dropping", as_json):
                done += client.dead_letters.drop(chunk)
        except OSError as error:
            folder = client.settings.archive
            raise InvalidInput(
                "archive_folder",
                f"{folder} cannot be written ({error})",
                "Make it writable; nothing more was dropped",
            ) from None
        if not as_json:
            click.echo(f"labrelay: they are in {client.settings.archive}", err=True)
    _report(done, as_json)


def _found(client: Client, wanted: Filter, quiet: bool, limit: int | None = None) -> list[ExportStatus]:
    """Return dead letters; on a terminal a bar shows how far the search is."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import Progress  # noqa: PLC0415

    hidden = quiet or not sys.stderr.isatty()
    with Progress(console=Console(stderr=True), disable=hidden, transient=True) as bar:
        task = bar.add_task("looking")
        letters = client.dead_letters.find(
            wanted, progress=lambda looked, total: bar.update(task, completed=looked, total=total)
        )
        return list(itertools.islice(letters, limit))


def _chosen(client: Client, ids: Sequence[str], wanted: Filter, everything: bool, quiet: bool) -> list[ExportStatus]:
    if sum((bool(ids), bool(wanted) and not ids, everything)) != 1:
        raise InvalidInput("ID", "name exports, or filter them, or give --all", "See `labrelay dead --help`")
    if not ids:
        return _found(client, wanted, quiet)
    if wanted.instrument or wanted.kind or wanted.since:
        raise InvalidInput("ID", "ids and filters do not go together", "Give one or the other")
    return [client.dead_letters.get(export_id, REPLAYABLE) for export_id in ids]


def _in_doubt(letters: Sequence[ExportStatus], ids: Sequence[str], destination: str | None) -> list[ExportStatus]:
    settled = [letter.export_id for letter in letters if not doubts_of(letter, destination)]
    if ids and settled:
        where = f" at {destination}" if destination else ""
        raise InvalidInput("--assume", f"nothing is in doubt{where} for {settled[0]}", "Replay it without --assume")
    return [letter for letter in letters if letter.export_id not in settled]


def _tracked(letters: Sequence[ExportStatus], what: str, quiet: bool) -> Iterable[Sequence[ExportStatus]]:
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import track  # noqa: PLC0415

    chunks = [letters[start : start + _CHUNK] for start in range(0, len(letters), _CHUNK)]
    hidden = quiet or not sys.stderr.isatty()
    return track(chunks, description=what, console=Console(stderr=True), disable=hidden)


def _print(letters: Sequence[ExportStatus], as_json: bool, remark: str = "") -> None:
    from labrelay.tables import letters_table  # noqa: PLC0415

    print_json(letters) if as_json else console().print(letters_table(letters))
    if remark:
        click.echo(f"labrelay: {remark}", err=True)


def _report(done: Sequence[Replayed], as_json: bool) -> None:
    if as_json:
        print_json(done)
    else:
        counts = Counter(each.outcome for each in done)
        click.echo(", ".join(f"{count} {outcome}" for outcome, count in counts.items()) or "nothing to do")
    left = sum(not each.is_done for each in done)
    if left:
        click.echo(f"labrelay: {left} changed meanwhile and were left alone; list them again", err=True)
        sys.exit(1)
