"""What a dead destination costs the others: throughput of a healthy one, while the other is up and while it is not.

Every round delivers the same number of new sessions several times through one real worker and one real Redis, in an
order that turns from round to round: to the healthy destination alone, to both, to both while the other refuses
connections, and while it takes them and never answers. The other has answered before its outage begins, and when the
healthy one has everything, it comes back and gets what waited. A figure is deliveries per second at the healthy
receiver, from its first to its last. What is compared was measured in the same round: the ratios are medians over
the rounds, with their quartiles.

The outage is scaled: breakers open for 1 to 2 s instead of 30 to 600 s and calls give up after 10 s instead of 60 s,
so that a round meets more probes and more lost answers than five minutes of the real settings.

    python -m benchmarks.dead_destination [--sessions 6000] [--rounds 5] [--delay 0.02] [--record FILE]
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
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from labrelay.client import Client
from labrelay.context import ExportContext
from labrelay.results import UNFINISHED
from labrelay.settings import ProducerSettings, load_settings
from labrelay_worker.embedded import EmbeddedRedis

TIMEOUT = 300.0
CASES = ["alone", "up", "down", "hanging"]
#: What is compared with what; both are of one round.
PAIRS = [("down", "alone"), ("hanging", "alone"), ("down", "up"), ("hanging", "up")]


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"{what} did not come true within {TIMEOUT:g} s")
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def receiver(delay: float, port: int = 0) -> Iterator[int]:
    """Run a receiver; a process of its own, or its threads would hold up the producer that runs in this one."""
    command = [sys.executable, "-m", "benchmarks.queue.receiver", "--delay", str(delay), "--port", str(port)]
    with subprocess.Popen([*command, "--destinations", "1"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


@contextmanager
def silence(port: int) -> Iterator[None]:
    """Take connections and never answer."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen(4096)
        yield


@contextmanager
def nothing() -> Iterator[None]:
    """Refuse connections."""
    yield


class Bench:
    """A worker with a healthy destination and one that is switched on and off."""

    def __init__(self, folder: Path, sessions: int, delay: float, stack: ExitStack) -> None:
        self.folder, self.sessions, self.delay, self.made = folder, sessions, delay, 0
        self.healthy = stack.enter_context(receiver(delay))
        self.port = free_port()
        url = stack.enter_context(EmbeddedRedis(folder / "redis"))
        os.environ |= {
            "LABRELAY_HOME": str(folder),
            "LABRELAY_CONFIG": str(folder / "labrelay.toml"),
            "LABRELAY_REDIS_URL": url,
            "LABRELAY_SETTLE_SECONDS": "0",
            # What one case delivered must not be packed at the expense of the next.
            "LABRELAY_PACK_AFTER_SECONDS": "0",
            "LABRELAY_BREAKER__OPEN_SECONDS": "1",
            "LABRELAY_BREAKER__LONGEST_OPEN_SECONDS": "2",
        }
        destinations = {"healthy": self.healthy, "other": self.port}
        (folder / "labrelay.toml").write_text(
            "".join(
                f'[destinations.{name}]\ntype = "webhook"\nurl = "http://127.0.0.1:{port}/{name}"\n'
                "idempotent = true\ntimeout = 10\n"
                for name, port in destinations.items()
            )
        )
        self.record = folder / "record.xml"
        self.record.write_text("<Experiment><title>bench</title></Experiment>")
        self.client = stack.enter_context(Client(load_settings(ProducerSettings)))
        log = stack.enter_context((folder / "worker.log").open("wb"))
        worker = subprocess.Popen(
            [str(Path(sys.executable).parent / "labrelay"), "worker"], stdout=log, stderr=subprocess.STDOUT
        )
        stack.callback(worker.wait)
        stack.callback(worker.terminate)
        until(self.client.ledger.workers, "a worker")

    def contexts(self) -> list[ExportContext]:
        self.made += self.sessions
        return [
            ExportContext.parse(
                {
                    "xml_file_path": str(self.record),
                    "session_identifier": f"session-{number}",
                    "instrument_pid": "bench",
                    "dt_from": "2026-11-20T10:00:00+01:00",
                    "dt_to": "2026-11-20T11:00:00+01:00",
                }
            )
            for number in range(self.made - self.sessions, self.made)
        ]

    def received(self, path: str = "count") -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.healthy}/{path}") as answer:
            return dict(json.load(answer))

    def unfinished(self) -> int:
        counts = self.client.ledger.counts()
        return sum(counts[state] for state in UNFINISHED)

    def deliver(self, case: str) -> float:
        """Return deliveries per second at the healthy destination; everything is delivered when it returns."""
        contexts = self.contexts()
        before = int(self.received("count/anew")["answered"])
        others = {"alone": nothing(), "up": receiver(self.delay, self.port), "down": nothing()}
        with others.get(case) or silence(self.port):
            destinations = ["healthy"] if case == "alone" else ["healthy", "other"]
            self.client.submit_many(contexts, destinations=destinations)
            until(lambda: self.received()["answered"] == before + self.sessions, "the healthy one has everything")
            told = self.received()
            if case == "up":
                until(lambda: not self.unfinished(), "everything is delivered")
        with receiver(self.delay, self.port):
            until(lambda: not self.unfinished(), "everything is delivered")
        return (self.sessions - 1) / (told["last"] - told["first"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=6000, help="of each case")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--delay", type=float, default=0.02, help="seconds in which a receiver answers")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--record", type=Path, help="append the rounds here, and compare all that are in it")
    options = parser.parse_args()
    kept = options.record.read_text().splitlines() if options.record and options.record.exists() else []
    rounds: list[dict[str, float]] = [json.loads(line) for line in kept]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bench = Bench(folder, options.sessions, options.delay, stack)
        bench.sessions = min(500, options.sessions)
        bench.deliver("up")  # connections and caches are made outside the figures
        bench.sessions = options.sessions
        for number in range(len(kept), len(kept) + options.rounds):
            turned = options.cases[number % len(options.cases) :] + options.cases[: number % len(options.cases)]
            rounds.append({case: bench.deliver(case) for case in turned})
            print("  ".join(f"{case} {rounds[-1][case]:.0f}/s" for case in options.cases), flush=True)
            if options.record:
                with options.record.open("a") as record:
                    record.write(json.dumps(rounds[-1]) + "\n")
    for case, base in PAIRS:
        ratios = [each[case] / each[base] for each in rounds if case in each and base in each]
        if len(ratios) > 1:
            low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
            print(f"{case}/{base}: median {middle:.3f}, quartiles {low:.3f} to {high:.3f}, {len(ratios)} rounds")


if __name__ == "__main__":
    main()
