"""Measure labrelay on this machine: submit rates, delivery rate to three HTTP destinations, idle-to-done latency.

Absolute figures depend on the machine; compare ratios within one run. The receiver answers after 20 ms, as a nearby
repository would.

    python benchmarks/throughput.py [--contexts 500] [--workers 1] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from pydantic import SecretStr

from labrelay.client import Client
from labrelay.context import ExportContext
from labrelay.settings import ProducerSettings
from labrelay_worker.embedded import EmbeddedRedis

ANSWER_SECONDS = 0.02
DESTINATIONS = ("alpha", "beta", "gamma")


def serve(port: Any) -> None:
    """Answer every POST after 20 ms."""

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        await asyncio.sleep(ANSWER_SECONDS)
        return web.json_response({"id": "1", "url": "http://127.0.0.1/1"}, status=201)

    async def run() -> None:
        app = web.Application()
        app.router.add_post("/{name}", answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(run())


@contextmanager
def receiver() -> Iterator[int]:
    """Run the receiver in a process of its own; yield its port."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(there,), daemon=True)
    process.start()
    try:
        yield here.recv()
    finally:
        process.terminate()
        process.join()


@contextmanager
def workers(count: int, folder: Path, environment: dict[str, str], client: Client) -> Iterator[None]:
    """Run worker processes until the block ends."""
    command = [
        sys.executable, "-m", "celery", "-A", "labrelay_worker.app", "worker", "-P", "threads", "-c", "16",
        "-l", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat",
    ]  # fmt: skip
    processes = [
        subprocess.Popen(
            [*command, "-n", f"bench{i}@%h", "-f", str(folder / f"worker-{i}.log")],
            env=environment, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for i in range(count)
    ]  # fmt: skip
    try:
        until(lambda: len(client.ledger.workers()) >= count)
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(60)


def until(condition: Callable[[], bool], seconds: float = 300.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("the benchmark did not finish in time")
        time.sleep(0.01)


def context(folder: Path, number: int) -> ExportContext:
    """Return a context of about 2 KB that names a small record."""
    record = folder / "record.xml"
    record.touch(exist_ok=True)
    return ExportContext.parse(
        {
            "xml_file_path": str(record),
            "session_identifier": f"bench-{number}",
            "instrument_pid": "BENCH",
            "dt_from": "2026-01-01T10:00:00+00:00",
            "dt_to": "2026-01-01T11:00:00+00:00",
            "metadata": {"notes": "x" * 1500},
        }
    )


def measure(contexts: int, count: int) -> dict[str, float]:
    """Run every phase and return the figures."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name, receiver() as port, EmbeddedRedis(Path(name) / "redis") as url:
        folder = Path(name)
        tables = [
            f'[destinations.{d}]\ntype = "webhook"\nattach = "none"\nurl = "http://127.0.0.1:{port}/{d}"\n'
            + ('waits_for = ["alpha"]\n' if d != "alpha" else "")
            for d in DESTINATIONS
        ]
        (folder / "labrelay.toml").write_text("\n".join(tables))
        environment = {k: v for k, v in os.environ.items() if not k.startswith("LABRELAY_")}
        environment |= {"LABRELAY_HOME": name, "LABRELAY_REDIS_URL": url}
        with Client(ProducerSettings(redis_url=SecretStr(url), home=folder, settle_seconds=0)) as client:
            batch = [context(folder, n) for n in range(contexts)]
            started = time.perf_counter()
            ids = [s.export_id for s in client.submit_many(batch)]
            figures["bulk submit, contexts/s"] = contexts / (time.perf_counter() - started)
            with workers(count, folder, environment, client):
                started = time.perf_counter()
                until(lambda: client.ledger.counts()["delivered"] >= contexts)
                figures["delivery, contexts/s"] = contexts / (time.perf_counter() - started)
                singles = []
                latencies = []
                for number in range(50):
                    one = context(folder, contexts + number)
                    started = time.perf_counter()
                    export_id = client.submit(one).export_id
                    singles.append(time.perf_counter() - started)
                    until(lambda i=export_id: client.ledger.status(i).state.is_final)
                    latencies.append(time.perf_counter() - started)
            assert len(set(ids)) == contexts
        figures["single submit, ms (median)"] = statistics.median(singles) * 1000
        figures["submit to delivered, ms (median)"] = statistics.median(latencies) * 1000
        figures["of which the destinations need, ms"] = 2 * ANSWER_SECONDS * 1000
    return figures


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contexts", type=int, default=500)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = measure(options.contexts, options.workers)
    if options.json:
        print(json.dumps(figures, indent=2))
        return
    for what, figure in figures.items():
        print(f"{what:40s} {figure:10.1f}")


if __name__ == "__main__":
    main()
