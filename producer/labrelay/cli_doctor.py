"""`labrelay doctor`: what is wrong with this installation, for people, for monitoring, and for whoever helps."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import click

from labrelay.cli_parts import as_json, console, first_of, print_json
from labrelay.errors import InvalidInput
from labrelay.names import ENTRY_POINTS_SETTINGS
from labrelay.settings import ProducerSettings, load_settings

if TYPE_CHECKING:
    from labrelay.doctor.findings import Finding, Report


@click.command("doctor")
@click.option("--skip", multiple=True, metavar="NAME", help="Leave out a check; may be repeated.")
@click.option("--timeout", default=10.0, show_default=True, type=click.FloatRange(min=0.1), metavar="S",
              help="Seconds that an answer may take, of a destination for instance.")  # fmt: skip
@click.option(
    "--flower", metavar="URL", help="Is this Flower open to everybody? The one of this home is asked anyway."
)
@click.option("--bundle", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Write a .zip for whoever helps, without secrets.")  # fmt: skip
@as_json
def doctor(skip: tuple[str, ...], timeout: float, flower: str | None, bundle: Path | None, as_json: bool) -> None:
    """Look for what is wrong, and say how each is repaired. Changes nothing.

    Exit code 0: healthy. 7: warnings alone. 1: something does not work, or may be lost. 2: bad input.
    """
    from labrelay.doctor.bundle import write_bundle  # noqa: PLC0415
    from labrelay.doctor.examining import Patient, examine, known_checks  # noqa: PLC0415
    from labrelay.doctor.findings import worst_first  # noqa: PLC0415

    checks = known_checks()
    names = [check.name for check in checks]
    for name in skip:
        if name not in names:
            raise InvalidInput("--skip", f"there is no check {name!r}", f"Use one of {', '.join(names)}")
    if bundle is not None and bundle.exists():
        raise InvalidInput("--bundle", f"{bundle} is there already", "Name another file")
    settings, refused = _settings()
    # With settings that cannot be read, every other answer would be about some other installation.
    wanted = [check for check in checks if check.name not in skip] if settings is not None else []
    patient = Patient(settings or ProducerSettings.model_construct(), timeout, flower)
    with console(stderr=True).status("asking …") if sys.stderr.isatty() and not as_json else _Quiet():
        # Twice the time of one answer: several are asked side by side, and one after the other once.
        report = examine(wanted, patient, patience=2 * timeout + 20)
    report = report.model_copy(update={"findings": worst_first([*refused, *report.findings])})
    if bundle is not None:
        write_bundle(bundle, report, settings)
    if as_json:
        print_json(report.document())
    else:
        _print(report)
        if bundle is not None:
            click.echo(f"labrelay: {bundle} holds no secrets; it names sessions, files and machines", err=True)
    sys.exit(report.exit_code)


class _Quiet:
    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


def _settings() -> tuple[ProducerSettings | None, list[Finding]]:
    """Return the settings in force, or as much of them as can be read, and what is wrong with them."""
    from labrelay.doctor.findings import error  # noqa: PLC0415

    # pydantic-settings only warns of a secrets directory that is not there; the check of the settings says more.
    warnings.simplefilter("ignore", UserWarning)
    try:
        return first_of(ENTRY_POINTS_SETTINGS) or load_settings(ProducerSettings), []
    except InvalidInput as trouble:
        problem = f"{trouble.problem}: no worker starts with it, and its destinations are not looked at here"
        refused = [error("settings.invalid", trouble.field, problem, trouble.cure)]
    try:
        return load_settings(ProducerSettings), refused
    except InvalidInput:
        return None, refused


def _print(report: Report) -> None:
    from labrelay.tables import findings_table  # noqa: PLC0415

    if report.findings:
        console().print(findings_table(report.findings))
    for name, why in report.skipped.items():
        click.echo(f"labrelay: {name} was not looked at: {why}", err=True)
    said = [str(finding.severity) for finding in report.findings]
    parts = [f"{said.count(word)} {word}{'s' if said.count(word) > 1 else ''}" for word in dict.fromkeys(said)]
    click.echo(f"labrelay {report.version}: {len(report.checked)} checks, {', '.join(parts) or 'nothing found'}")
