"""What a dead destination costs the others: throughput of a healthy one, while the other is up and while it is down.

Every round delivers the same number of new sessions through one real worker and one real Redis: to the healthy
destination alone, to both, to both while the other refuses connections, and while it takes them and never answers.
Figures are deliveries per second at the
healthy receiver, from its first to its last; the medians of the rounds, and their ratios within this run.

    python benchmarks/dead_destination.py [--sessions 300] [--rounds 3] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from labrelay.client import Client
from labrelay.context import ExportContext
from labrelay.results import ExportState
from labrelay.settings import ProducerSettings, load_settings
from labrelay_worker.demo.inbox import Inbox
from labrelay_worker.demo.receiver import Receiver
from labrelay_worker.embedded import EmbeddedRedis

TIMEOUT = 300.0


def until(condition, what: str) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"{what} did not come true within {TIMEOUT:g} s")
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def listening(port: int) -> socket.socket:
    """Return a server that takes connections and never answers."""
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("127.0.0.1", port))
    server.listen(1000)
    return server


class Bench:
    """A worker with a healthy destination and one that is switched on and off."""

    def __init__(self, folder: Path, sessions: int, stack: ExitStack) -> None:
        self.folder, self.sessions, self.made = folder, sessions, 0
        self.times: list[float] = []
        inbox = Inbox(on_accepted=lambda _: self.times.append(time.monotonic()))
        self.healthy = stack.enter_context(Receiver(inbox=inbox))
        self.port = free_port()
        url = stack.enter_context(EmbeddedRedis(folder / "redis"))
        os.environ |= {
            "LABRELAY_HOME": str(folder),
            "LABRELAY_CONFIG": str(folder / "labrelay.toml"),
            "LABRELAY_REDIS_URL": url,
            "LABRELAY_SETTLE_SECONDS": "0",
            "LABRELAY_BREAKER__OPEN_SECONDS": "1",
            "LABRELAY_BREAKER__LONGEST_OPEN_SECONDS": "2",
        }
        (folder / "labrelay.toml").write_text(
            f'[destinations.healthy]\ntype = "webhook"\nurl = "{self.healthy.url}/records"\nidempotent = true\n'
            f'[destinations.other]\ntype = "webhook"\nurl = "http://127.0.0.1:{self.port}/records"\n'
            "idempotent = true\ntimeout = 10\n"
        )
        self.client = stack.enter_context(Client(load_settings(ProducerSettings)))
        log = stack.enter_context((folder / "worker.log").open("wb"))
        worker = subprocess.Popen(
            [str(Path(sys.executable).parent / "labrelay"), "worker"],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        stack.callback(worker.wait)
        stack.callback(worker.terminate)
        until(self.client.ledger.workers, "a worker")

    def contexts(self) -> list[ExportContext]:
        found = []
        for _ in range(self.sessions):
            self.made += 1
            record = self.folder / f"record-{self.made}.xml"
            record.write_text(f"<Experiment><title>{self.made}</title></Experiment>")
            found.append(
                ExportContext.parse(
                    {
                        "xml_file_path": str(record),
                        "session_identifier": f"session-{self.made}",
                        "instrument_pid": "bench",
                        "dt_from": "2026-11-20T10:00:00+01:00",
                        "dt_to": "2026-11-20T11:00:00+01:00",
                    }
                )
            )
        return found

    def deliver(self, destinations: list[str], *, other: str) -> float:
        """Return deliveries per second at the healthy destination; everything is delivered when it returns."""
        self.times.clear()
        with ExitStack() as stack:
            if other == "up":
                stack.enter_context(Receiver(port=self.port))
            hanging = stack.enter_context(listening(self.port)) if other == "hanging" else None
            submissions = self.client.submit_many(self.contexts(), destinations=destinations)
            until(lambda: len(self.times) == self.sessions, "the healthy destination has everything")
            rate = (self.sessions - 1) / (self.times[-1] - self.times[0])
            if hanging is not None:
                hanging.close()
            if other != "up":
                stack.enter_context(Receiver(port=self.port))
            for submission in submissions:
                if self.client.wait(submission.export_id, TIMEOUT).state is not ExportState.DELIVERED:
                    sys.exit(f"{submission.export_id} was not delivered")
        return rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rates: dict[str, list[float]] = {"alone": [], "up": [], "down": [], "hanging": []}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bench = Bench(folder, options.sessions, stack)
        both = ["healthy", "other"]
        bench.deliver(both, other="up")  # connections and caches are made outside the figures
        for _ in range(options.rounds):
            rates["alone"].append(bench.deliver(["healthy"], other="up"))
            for other in ("up", "down", "hanging"):
                rates[other].append(bench.deliver(both, other=other))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    figures = {
        "sessions": options.sessions,
        "rounds": options.rounds,
        "per_second": {name: round(value, 1) for name, value in medians.items()},
        "spread": {name: [round(min(v), 1), round(max(v), 1)] for name, v in rates.items()},
        "down_to_up": round(medians["down"] / medians["up"], 3),
        "down_to_alone": round(medians["down"] / medians["alone"], 3),
        "hanging_to_up": round(medians["hanging"] / medians["up"], 3),
    }
    if options.json:
        print(json.dumps(figures))
    else:
        print(
            f"healthy destination, deliveries/s: alone {medians['alone']:.0f}, other up {medians['up']:.0f}, "
            f"other down {medians['down']:.0f}, other hanging {medians['hanging']:.0f}; "
            f"down/up {figures['down_to_up']:.2f}, down/alone {figures['down_to_alone']:.2f}, "
            f"hanging/up {figures['hanging_to_up']:.2f} ({options.rounds} rounds of {options.sessions})"
        )


if __name__ == "__main__":
    main()
