"""What a dead destination costs the others: throughput of a healthy one, while the other is up and while it is down.

Every round delivers the same number of new sessions four times through one real worker and one real Redis, in an
order that turns from round to round: to the healthy destination alone, to both, to both while the other refuses
connections, and while it takes them and never answers. A figure is deliveries per second at the healthy receiver,
from its first to its last. What is compared was measured in the same round: the ratios are medians over the rounds,
with their quartiles.

The outage is scaled: breakers open for 1 to 2 s instead of 30 to 600 s, so that the seconds of a round see the probes
of some minutes.

    python -m benchmarks.dead_destination [--sessions 600] [--rounds 7] [--json]
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
CASES = ["alone", "up", "down", "hanging"]
#: What is compared with what; both are of one round.
PAIRS = [("down", "up"), ("hanging", "up"), ("down", "alone"), ("hanging", "alone")]


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
            if other in ("alone", "up"):
                stack.enter_context(Receiver(port=self.port))
            hanging = stack.enter_context(listening(self.port)) if other == "hanging" else None
            submissions = self.client.submit_many(self.contexts(), destinations=destinations)
            until(lambda: len(self.times) == self.sessions, "the healthy destination has everything")
            rate = (self.sessions - 1) / (self.times[-1] - self.times[0])
            if hanging is not None:
                hanging.close()
            if other not in ("alone", "up"):
                stack.enter_context(Receiver(port=self.port))
            for submission in submissions:
                if self.client.wait(submission.export_id, TIMEOUT).state is not ExportState.DELIVERED:
                    sys.exit(f"{submission.export_id} was not delivered")
        return rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rounds: list[dict[str, float]] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bench = Bench(folder, options.sessions, stack)
        bench.deliver(["healthy", "other"], other="up")  # connections and caches are made outside the figures
        for number in range(options.rounds):
            turned = CASES[number % len(CASES) :] + CASES[: number % len(CASES)]
            rounds.append({case: bench.deliver(names_of(case), other=case) for case in turned})
            if not options.json:
                print("  ".join(f"{case} {rounds[-1][case]:.0f}/s" for case in CASES), flush=True)
    figures = {"sessions": options.sessions, "rounds": rounds, "ratios": {}}
    for case, base in PAIRS:
        ratios = [each[case] / each[base] for each in rounds]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        figures["ratios"][f"{case}/{base}"] = {"median": middle, "quartiles": [low, high]}
        if not options.json:
            print(f"{case}/{base}: median {middle:.2f}, quartiles {low:.2f} to {high:.2f}")
    if options.json:
        print(json.dumps(figures))


def names_of(case: str) -> list[str]:
    return ["healthy"] if case == "alone" else ["healthy", "other"]


if __name__ == "__main__":
    main()
