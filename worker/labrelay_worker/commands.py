"""The worker side's commands of `labrelay`: worker, up, down, demo, samples, flower, backends; others join."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from labrelay.cli import as_json, print_json
from labrelay.settings import ProducerSettings
from labrelay_worker.check_command import check
from labrelay_worker.destination_commands import destinations, pause, print_unavailable, resume
from labrelay_worker.flower_command import flower, flower_if_possible
from labrelay_worker.labarchives_commands import labarchives
from labrelay_worker.restore_command import restored
from labrelay_worker.upkeep import end_up, only_one

#: A thread only waits for the event loop, so that many wake-ups are worked on at once.
THREADS = 16
POOLS = ("threads", "prefork", "solo")


def _worker_options(function: Any) -> Any:
    for option in (
        click.option("--pool", type=click.Choice(POOLS), default="threads", show_default=True),
        click.option("--concurrency", type=click.IntRange(min=1), help="Wake-ups worked on at once."),
        click.option("--loglevel", help="Default: the setting log_level, else INFO."),
    ):
        function = option(function)
    return function


def _embedded_if_needed(settings: ProducerSettings, stack: ExitStack) -> None:
    """Start the embedded Redis, or join the running one, unless a Redis is configured."""
    if settings.redis_url is not None:
        return
    from labrelay_worker.embedded import EmbeddedRedis  # noqa: PLC0415

    url = stack.enter_context(EmbeddedRedis(settings.embedded_folder))
    click.echo(f"labrelay: embedded Redis at {url}, data in {settings.embedded_folder}", err=True)


def _run_worker(pool: str, concurrency: int | None, loglevel: str | None, *, flower: bool | None = None) -> None:
    """Run a worker until it ends; `flower` not None: as `labrelay up` does, and whether Flower is wanted."""
    from labrelay_worker.settings import load_worker_settings  # noqa: PLC0415

    settings = load_worker_settings()
    with ExitStack() as stack:
        if flower is not None:
            stack.enter_context(only_one(settings.home))
        _embedded_if_needed(settings, stack)
        if flower:
            flower_if_possible(settings, stack)
        from labrelay_worker.app import app  # noqa: PLC0415  it needs the Redis address
        from labrelay_worker.lifecycle import lifecycle  # noqa: PLC0415

        # The worker gives its leases back before the embedded Redis may stop, however it ends.
        stack.callback(lifecycle.close)
        lifecycle.afterwards = stack.close
        level = loglevel or settings.log_level or "INFO"
        # The banner is for people.
        quiet = ["--quiet"] if settings.log_format == "json" else []
        arguments = [
            *quiet,
            "worker",
            f"--pool={pool}",
            f"--loglevel={level}",
            "--without-gossip",
            "--without-mingle",
        ]
        if concurrency is None and pool == "threads":
            concurrency = THREADS
        if concurrency is not None:
            arguments.append(f"--concurrency={concurrency}")
        app.worker_main(arguments)


@click.command("worker", short_help="Run one worker in the foreground.")
@_worker_options
def worker(pool: str, concurrency: int | None, loglevel: str | None) -> None:
    """Run one worker in the foreground; starts the embedded Redis when none is configured."""
    _run_worker(pool, concurrency, loglevel)


@click.command("up", short_help="Run everything one machine needs, in the foreground.")
@_worker_options
@click.option("--no-flower", is_flag=True, help="Without Flower, the task view.")
def up(pool: str, concurrency: int | None, loglevel: str | None, no_flower: bool) -> None:
    """Run everything one machine needs in the foreground: embedded Redis, a worker, and Flower if it is installed."""
    click.echo("labrelay: submit from another terminal with `labrelay submit FILE`; Ctrl-C stops", err=True)
    _run_worker(pool, concurrency, loglevel, flower=not no_flower)


@click.command("down", short_help="Stop what `labrelay up` runs, or left behind.")
def down() -> None:
    """Stop what `labrelay up` runs on this machine, or what was left behind when it was killed."""
    from labrelay_worker.embedded import stop_embedded  # noqa: PLC0415
    from labrelay_worker.flower.process import FlowerHome  # noqa: PLC0415
    from labrelay_worker.settings import load_worker_settings  # noqa: PLC0415

    settings = load_worker_settings()
    end_up(settings.home, settings.drain_seconds + 60)
    FlowerHome(settings).stop()
    stopped = stop_embedded(settings.embedded_folder)
    click.echo("stopped" if stopped else "still in use: stop its workers first")
    if not stopped:
        sys.exit(1)


@click.command("demo", short_help="Deliver sample sessions to five places.")
@click.option("--data", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Folder with sessions.")
@click.option("--keep", is_flag=True, help="Keep what earlier demos delivered.")
@click.option("--kill", is_flag=True, help="Kill the worker in the middle, and watch another one finish.")
def demo(data: Path | None, keep: bool, kill: bool) -> None:
    """Deliver sample sessions to five places: files, OME-Zarr, memory, a repository, a notebook that links to it."""
    from labrelay_worker.demo.show import run_demo  # noqa: PLC0415
    from labrelay_worker.settings import load_worker_settings  # noqa: PLC0415

    sys.exit(run_demo(load_worker_settings(), data, keep=keep, kill=kill))


@click.command("samples", short_help="Write sample sessions to try labrelay with.")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--sessions", default=2, show_default=True, type=click.IntRange(min=1))
def samples(folder: Path, sessions: int) -> None:
    """Write sample sessions to try labrelay with: records, instrument files, previews, contexts."""
    from labrelay.errors import InvalidInput  # noqa: PLC0415
    from labrelay_worker.demo.samples import make_samples  # noqa: PLC0415

    try:
        records = make_samples(folder, sessions=sessions)
    except OSError as error:
        problem = f"{error.filename or folder} cannot be written ({error.strerror})"
        raise InvalidInput("FOLDER", problem, "Name a folder that you may write to, with room in it") from None
    for record in records:
        click.echo(record)


@click.command("backends", short_help="List this machine's storage and viewer backends.")
@as_json
def backends(as_json: bool) -> None:
    """List this machine's storage and viewer backends, and those that are unavailable with the reason."""
    from labrelay_worker.destinations.registry import ExporterRegistry  # noqa: PLC0415
    from labrelay_worker.settings import load_worker_settings  # noqa: PLC0415

    registry = ExporterRegistry(load_worker_settings())
    registry.discover_plugins()
    names = [name for name in registry.backends.names if not name.startswith("destination:")]
    if as_json:
        print_json({"backends": names, "unavailable": [vars(p) for p in registry.backends.unavailable]})
        return
    for name in names:
        click.echo(name)
    print_unavailable(registry.backends.unavailable)


COMMANDS: dict[str, click.Command] = {
    str(command.name): command
    for command in (
        worker,
        up,
        down,
        demo,
        samples,
        flower,
        backends,
        check,
        destinations,
        pause,
        resume,
        labarchives,
        restored,
    )
}
