"""The command `labrelay viewer`: run a viewer, or ask the running one for its picture, its state or its end."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from labrelay.errors import LabrelayError, Misconfigured

if TYPE_CHECKING:
    from labrelay_worker.viewers.running import Window


@click.command("viewer", short_help="Run a live viewer, or ask the one that runs.")
@click.argument("kind", type=click.Choice(["napari", "imagej"]))
@click.argument("files", nargs=-1, metavar="[FILE…]")
@click.option("--name", metavar="NAME", help="Name that backends find it under.  [default: the kind]")
@click.option("--port", type=click.IntRange(0, 65535), help="Listen on this port of 127.0.0.1; 0: any free one.")
@click.option("--memory", default=4096, show_default=True, type=click.IntRange(min=1), help="MiB of pixels to hold.")
@click.option("--classpath", metavar="PATHS", help="imagej: jars, e.g. Fiji's; see docs/viewers.md.")
@click.option("--shot", type=click.Path(path_type=Path), metavar="FILE", help="Picture of the running viewer (PNG).")
@click.option("--whole-window", is_flag=True, help="With --shot: everything, not the image alone.")
@click.option("--status", "status", is_flag=True, help="What the running viewer shows, as JSON.")
@click.option("--close", "close", is_flag=True, help="Close the running viewer.")
def viewer(  # noqa: PLR0917  click passes options by name
    kind: str,
    files: tuple[str, ...],
    name: str | None,
    port: int | None,
    memory: int,
    classpath: str | None,
    shot: Path | None,
    whole_window: bool,
    status: bool,
    close: bool,
) -> None:
    """Run a live viewer in the foreground, or ask the one that runs.

    Backends napari_stream and fiji_stream show in it what is delivered; it stays open when workers come and go.
    """
    from labrelay_worker.viewers.asking import ask  # noqa: PLC0415
    from labrelay_worker.viewers.places import Place  # noqa: PLC0415

    place = Place.of(name or kind)
    if shot is not None:
        picture = ask(place, "shot", "shot", what="window" if whole_window else "canvas")
        shot.write_bytes(bytes(picture.payload))
        click.echo(shot)
    elif status:
        click.echo(json.dumps(dict(ask(place, "status", "status").fields), indent=2, ensure_ascii=False))
    elif close:
        ask(place, "close", "closing")
    else:
        from labrelay_worker.viewers.running import run_viewer  # noqa: PLC0415

        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
        run_viewer(place, kind, _maker(kind, classpath), port=port, memory=memory << 20, files=files)
        if kind == "imagej":
            from labrelay_worker.viewers.imagej_canvas import end_process  # noqa: PLC0415

            end_process()


def _maker(kind: str, classpath: str | None) -> Callable[[str], Window]:
    from labrelay_worker.viewers.launching import why_not  # noqa: PLC0415

    def make(title: str) -> Window:
        if reason := why_not(kind):
            raise Misconfigured(f"no {kind} window can be opened: {reason}")
        try:
            if kind == "napari":
                from labrelay_worker.viewers.napari_canvas import NapariCanvas  # noqa: PLC0415

                return NapariCanvas(title)
            from labrelay_worker.viewers.imagej_canvas import ImageJCanvas  # noqa: PLC0415

            return ImageJCanvas(title, classpath)
        except ImportError as error:
            raise Misconfigured(f'{error}; install it with pip install "labrelay[{kind}]"') from error

    return make


def main() -> None:
    """Run the command where `labrelay` itself is not on the path."""
    try:
        viewer(standalone_mode=True)
    except LabrelayError as error:
        click.echo(f"labrelay: {error}", err=True)
        sys.exit(error.exit_code)


COMMANDS: dict[str, click.Command] = {"viewer": viewer}
