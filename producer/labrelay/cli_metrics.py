"""`labrelay metrics`: the ledger and this machine's outbox as numbers, once or for Prometheus."""

from __future__ import annotations

import json
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from labrelay.cli_parts import as_json
from labrelay.errors import InvalidInput, LedgerUnavailable
from labrelay.settings import ProducerSettings, load_settings

if TYPE_CHECKING:
    from labrelay.metrics.scraping import Scraper


@click.command("metrics", short_help="Print what there is to measure, as Prometheus reads it.")
@click.option("--serve", type=click.IntRange(0, 65_535), metavar="PORT", help="Answer scrapes at this port instead.")
@click.option("--host", default="127.0.0.1", show_default=True, help="With --serve: where to listen.")
@as_json
def metrics(serve: int | None, host: str, as_json: bool) -> None:
    """Print what there is to measure in the ledger and in this machine's outbox, in Prometheus's text format.

    With --serve, answer Prometheus until stopped: /metrics, and /workers, where it finds the workers' endpoints.
    One place is enough for a ledger. Exit code 3: Redis is away, and only the outbox was measured.
    """
    from labrelay.metrics.exposing import as_records, as_text  # noqa: PLC0415
    from labrelay.metrics.families import LEDGER_UP  # noqa: PLC0415
    from labrelay.metrics.scraping import Scraper  # noqa: PLC0415

    scraper = Scraper(load_settings(ProducerSettings))
    if serve is not None:
        _serve(scraper, host, serve)
        return
    samples = scraper.scrape()
    if as_json:
        click.echo(json.dumps(as_records(samples), indent=2))
    else:
        click.echo(as_text(samples), nl=False)
    if any(sample.family is LEDGER_UP and not sample.value for sample in samples):
        click.echo("labrelay: Redis is away; only this machine's outbox was measured", err=True)
        sys.exit(LedgerUnavailable.exit_code)


def _serve(scraper: Scraper, host: str, port: int) -> None:
    from labrelay.metrics.exposing import ledger_app  # noqa: PLC0415
    from labrelay.metrics.serving import address_of, listen, serve  # noqa: PLC0415

    app = ledger_app(scraper.scrape, scraper.targets)
    try:
        listening = listen(host, port)
    except OSError as error:
        raise InvalidInput("--serve", f"{host}:{port} cannot be used ({error})", "Give a free port") from None
    click.echo(
        f"labrelay: metrics at http://{address_of(listening)}/metrics, workers at /workers; Ctrl-C stops", err=True
    )
    serve(listening, app)
    with suppress(KeyboardInterrupt):
        threading.Event().wait()
