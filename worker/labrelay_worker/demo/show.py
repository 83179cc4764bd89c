"""`labrelay demo`: the whole path on one machine, apart from everything else that labrelay keeps there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from pydantic import SecretStr
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from labrelay.client import Client
from labrelay.context import ExportContext
from labrelay.errors import BootError, InvalidInput
from labrelay.inputs import read_contexts
from labrelay.results import DeliveryState, ExportStatus
from labrelay.settings import ENV_PREFIX, ProducerSettings
from labrelay.tables import coloured, exports_table
from labrelay_worker.demo.receiver import Answer, Receiver
from labrelay_worker.demo.samples import make_samples
from labrelay_worker.embedded import EmbeddedRedis

_PATIENCE = 120.0
_REFRESH = 0.1
_SLOW_ANSWER = 1.5
_CONFIG = """\
# Written by `labrelay demo`.
[destinations.archive]
type = "disk"
priority = 90
root = "{archive}"

[destinations.memory]
type = "memory"
priority = 80

[destinations.receiver]
type = "webhook"
priority = 10
url = "{url}/records"
idempotent = true

[destinations.notebook]
type = "webhook"
priority = 5
url = "{url}/notebook"
waits_for = ["receiver"]
idempotent = true
"""
_IMAGES = """
[destinations.images]
type = "zarr"
priority = 85
root = "{images}"
"""


@dataclass(frozen=True)
class _Stage:
    folder: Path
    console: Console
    receiver: Receiver
    client: Client
    environment: dict[str, str]

    @property
    def archive(self) -> Path:
        return self.folder / "delivered"


def run_demo(settings: ProducerSettings, data: Path | None, *, keep: bool, kill: bool = False) -> int:
    """Deliver sessions to disk, OME-Zarr, memory and two addresses of a local HTTP receiver; return the exit code.

    Parameters
    ----------
    settings
        Only the home is used: the demo has its own Redis, worker and destinations below ``HOME/demo``.
    data
        Folder with ``contexts/*.json`` whose paths are relative to it; None makes sample sessions.
    keep
        Keep what earlier demos left.
    kill
        Kill the worker with SIGKILL while it delivers, and let another one finish.

    Raises
    ------
    InvalidInput
        `data` holds no contexts, or the home cannot be written to.
    """
    folder = settings.home / "demo"
    try:
        if folder.exists() and not keep:
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"{error.filename or folder} cannot be written ({error.strerror})"
        raise InvalidInput("LABRELAY_HOME", problem, "Name a folder that you may write to") from None
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    contexts = _contexts(data, folder, console)
    with ExitStack() as stack:
        receiver = stack.enter_context(Receiver())
        stage = stack.enter_context(_stage(folder, console, receiver))
        if kill:
            receiver.script("/records", [Answer(delay=_SLOW_ANSWER)] * len(contexts))
        worker = stack.enter_context(_worker(stage))
        started = time.monotonic()
        ids = [s.export_id for s in stage.client.submit_many(contexts, "all", replace=True)]
        if kill:
            _kill(stage, worker, ids)
            stack.enter_context(_worker(stage))
        exports = _watch(stage, ids)
        return _report(stage, exports, time.monotonic() - started)


def _contexts(data: Path | None, folder: Path, console: Console) -> list[ExportContext]:
    if data is None:
        data = folder / "sessions"
        make_samples(data)
        console.print(f"Sample sessions are in {data}", soft_wrap=True)
    files = sorted((data / "contexts").glob("*.json"))
    if not files:
        raise InvalidInput("--data", f"{data} has no contexts/*.json", "Name a folder with contexts, or leave it out")
    limit = 4 * 2**20
    return [context for file in files for context in read_contexts(str(file), root=data, limit=limit)]


@contextmanager
def _stage(folder: Path, console: Console, receiver: Receiver) -> Iterator[_Stage]:
    config = folder / "labrelay.toml"
    text = _CONFIG.format(archive=(folder / "delivered").as_posix(), url=receiver.url)
    if find_spec("zarr") is not None:  # else there is one place less; `labrelay backends` says how to get it
        text += _IMAGES.format(images=(folder / "images").as_posix())
    config.write_text(text)
    with EmbeddedRedis(folder / "redis") as url:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}
        environment |= {
            "LABRELAY_HOME": str(folder),
            "LABRELAY_CONFIG": str(config),
            "LABRELAY_REDIS_URL": url,
            "LABRELAY_LEASE_SECONDS": "5",
            "LABRELAY_RECONCILE_SECONDS": "0.5",
        }
        settings = ProducerSettings(
            redis_url=SecretStr(url), home=folder, key_prefix="labrelay:", data_roots=(), path_map={}
        )
        with Client(settings) as client:
            yield _Stage(folder, console, receiver, client, environment)


@contextmanager
def _worker(stage: _Stage) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker until the demo ends; its log is kept."""
    before = {worker.name for worker in stage.client.ledger.workers()}
    with (stage.folder / "worker.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "labrelay_worker.app", "worker", "--pool=threads",
             "--loglevel=INFO", "--without-gossip", "--without-mingle", f"--hostname=demo-{time.time_ns()}@%h"],
            env=stage.environment, cwd=stage.folder, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + _PATIENCE
        while not {worker.name for worker in stage.client.ledger.workers()} - before:
            if process.poll() is not None or time.monotonic() > deadline:
                raise BootError(f"the demo's worker does not start; {stage.folder / 'worker.log'} says why")
            time.sleep(_REFRESH)
        stage.console.print(f"Worker {process.pid} is ready")
        yield process
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _kill(stage: _Stage, worker: subprocess.Popen[bytes], ids: Sequence[str]) -> None:
    """Kill the worker once something is delivered and something is still being sent."""

    def in_the_middle() -> bool:
        states = [d.state for export_id in ids for d in stage.client.status(export_id).deliveries]
        return DeliveryState.DELIVERED in states and DeliveryState.SENDING in states

    deadline = time.monotonic() + _PATIENCE
    while not in_the_middle() and time.monotonic() < deadline:
        time.sleep(_REFRESH / 5)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    stage.console.print(Text(f"Worker {worker.pid} was killed with SIGKILL while sending", style="red"))


def _watch(stage: _Stage, ids: Sequence[str]) -> list[ExportStatus]:
    deadline = time.monotonic() + _PATIENCE
    with Live(console=stage.console, auto_refresh=False, transient=True) as live:
        while True:
            exports = [stage.client.status(export_id) for export_id in ids]
            live.update(exports_table(exports), refresh=stage.console.is_terminal)
            if all(export.state.is_final for export in exports) or time.monotonic() > deadline:
                return exports
            time.sleep(_REFRESH)


def _report(stage: _Stage, exports: Sequence[ExportStatus], seconds: float) -> int:
    table = Table(title=f"{len(exports)} sessions in {seconds:.1f} s", title_justify="left")
    for heading in ("session", "destination", "state", "record", "verified"):
        table.add_column(heading, overflow="fold")
    for export in exports:
        for delivery in export.deliveries:
            receipt = delivery.receipt
            record = (receipt.record_url or receipt.record_id or "") if receipt else delivery.error_message or ""
            state, verified = coloured(delivery.state), receipt.verified if receipt else ""
            table.add_row(export.session_identifier, delivery.destination, state, Text(record), Text(verified))
    stage.console.print(table)
    stage.console.print(f"Files and manifests: {stage.archive}", soft_wrap=True)
    if (images := stage.folder / "images").exists():
        stage.console.print(f"Images as OME-Zarr: {images}", soft_wrap=True)
    stage.console.print(f"What the worker did: {stage.folder / 'worker.log'}", soft_wrap=True)
    records = [delivery for delivery in stage.receiver.deliveries if delivery.path == "/records"]
    accepted = len({delivery.key for delivery in records if delivery.accepted})
    stage.console.print(f"The receiver holds {accepted} records of {len(exports)} sessions, each once")
    delivered = all(d.state is DeliveryState.DELIVERED for export in exports for d in export.deliveries)
    return 0 if delivered and accepted == len(exports) else 1
