"""The world that fault plans hurt: real Redis, real workers, receivers that count; and the figures at the end."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import SecretStr

from labrelay.client import Client
from labrelay.context import ExportContext
from labrelay.errors import LedgerUnavailable
from labrelay.results import DeliveryState, ExportState, ExportStatus
from labrelay.settings import ProducerSettings
from labrelay_worker.demo.inbox import Delivery, Inbox, Stored
from labrelay_worker.demo.posted import Posted
from labrelay_worker.demo.receiver import Answer, Receiver
from labrelay_worker.embedded import EmbeddedRedis

PLUGINS = Path(__file__).parents[1] / "plugins"

#: keyed honours Idempotency-Key; finder does not, but can be asked; blind neither.
CAN_BE_ASKED = ("keyed", "finder")
CALL_TIMEOUT = 2.0
SETTLE_BOUND = 60.0


@dataclass
class Figures:
    """What a plan ends with."""

    plan: str
    seed: int
    submitted: int = 0
    delivered: int = 0
    lost: int = 0
    twice: int = 0
    asked_again: int = 0
    asked_again_frozen: int = 0
    unknown: int = 0
    recovery_seconds: float = 0.0
    unsettled: list[str] = field(default_factory=list)

    def line(self) -> str:
        """Return the one line."""
        return (
            f"{self.plan} seed={self.seed}: submitted {self.submitted}, delivered {self.delivered}, "
            f"lost {self.lost}, delivered twice {self.twice}, asked again after confirming {self.asked_again}"
            f" (+{self.asked_again_frozen} by a frozen worker), parked as unknown {self.unknown}, "
            f"longest recovery {self.recovery_seconds:.1f} s"
        )

    def broken_promises(self) -> list[str]:
        """Return what must not be."""
        wrong = [f"{name} {getattr(self, name)}" for name in ("lost", "twice", "asked_again") if getattr(self, name)]
        if self.unsettled:
            wrong.append(f"not settled {SETTLE_BOUND:g} s after the last fault: {self.unsettled}")
        return wrong

    def as_dict(self) -> dict[str, object]:
        """Return the figures for a report."""
        return asdict(self)


class TimedInbox(Inbox):
    """Remembers when each POST arrived."""

    def __init__(self) -> None:
        super().__init__()
        self.arrivals: list[tuple[float, Delivery]] = []
        #: How often each export was accepted at each path, keys not honoured.
        self.acceptances: Counter[tuple[str, str]] = Counter()

    def behave(self) -> None:
        """Forget every misbehaviour that is still lined up."""
        with self._lock:
            self._scripts.clear()

    def accept(self, path: str, key: str | None, posted: Posted, base_url: str) -> tuple[Stored, bool]:
        self.acceptances[path, str(key).partition(".")[0]] += 1
        return super().accept(path, key, posted, base_url)

    def note(self, delivery: Delivery) -> None:
        self.arrivals.append((time.time(), delivery))
        super().note(delivery)


class World:
    """Redis, workers and a receiver in one folder, and every way to hurt them."""

    def __init__(self, plan: str, seed: int, folder: Path, receiver: Receiver, inbox: TimedInbox) -> None:
        self.random = random.Random(f"{plan}-{seed}")
        self.figures = Figures(plan, seed)
        self.folder, self.receiver, self.inbox = folder, receiver, inbox
        self.redis = EmbeddedRedis(folder / "redis")
        self.workers: dict[int, tuple[subprocess.Popen[bytes], str, dict[str, str]]] = {}
        self.frozen_between: list[tuple[float, float]] = []
        self.ids: list[str] = []
        self.disk_root = folder / "delivered"
        self._count = 0
        url = self.redis.start()
        self._write_config()
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("LABRELAY_")} | {
            "LABRELAY_HOME": str(folder),
            "LABRELAY_CONFIG": str(folder / "labrelay.toml"),
            "LABRELAY_REDIS_URL": url,
            "LABRELAY_PLUGIN_PATH": str(PLUGINS),
        }
        self.client = Client(
            ProducerSettings(redis_url=SecretStr(url), home=folder, settle_seconds=0, wake_up_grace=2)
        )

    def _write_config(self) -> None:
        url = self.receiver.url
        (self.folder / "labrelay.toml").write_text(
            "lease_seconds = 3\nwake_up_grace = 3\nreconcile_seconds = 0.3\ndrain_seconds = 5\n"
            "[retry]\nfirst_delay = 0.3\nlongest_delay = 3\n"
            "[breaker]\nopen_seconds = 0.5\nlongest_open_seconds = 3\n"
            f'[destinations.archive]\ntype = "disk"\nroot = "{self.disk_root}"\n'
            + "".join(
                f'[destinations.{name}]\ntype = "{kind}"\nurl = "{url}/{name}"\ntimeout = {CALL_TIMEOUT}\n'
                f"idempotent = {str(name == 'keyed').lower()}\n"
                for name, kind in (("keyed", "webhook"), ("finder", "finder"), ("blind", "webhook"))
            )
        )

    # --- workers -----------------------------------------------------------------------------------

    def start_worker(self, pool: str = "threads", concurrency: int = 4, **environment: str) -> int:
        """Start a worker, wait until it is announced, and return its pid."""
        self._count += 1
        before = len(self.client.ledger.workers())
        with (self.folder / f"worker-{self._count}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "labrelay_worker.app", "worker", "-P", pool,
                 "-c", str(concurrency), "-l", "INFO", "-n", f"w{self._count}@faults",
                 "--without-gossip", "--without-mingle"],
                env=self.environment | environment, cwd=self.folder, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self.workers[process.pid] = process, pool, environment
        self.until(lambda: process.poll() is not None or len(self.client.ledger.workers()) > before, 60)
        return process.pid

    def any_worker(self) -> int:
        """Return the pid of some living worker."""
        alive = [pid for pid, (process, _, _) in self.workers.items() if process.poll() is None]
        return self.random.choice(alive)

    def kill_worker(self, pid: int, number: int = signal.SIGKILL, *, group: bool = False) -> None:
        """Signal a worker or its process group and start another of its kind when it has ended."""
        process, pool, environment = self.workers[pid]
        (os.killpg if group else os.kill)(pid, number)
        process.wait(60)
        del self.workers[pid]
        self.start_worker(pool, **environment)

    def kill_child(self) -> None:
        """Kill one pool child of a prefork worker."""
        parent = self.any_worker()
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        if children:
            os.kill(int(self.random.choice(children)), signal.SIGKILL)

    def freeze_worker(self, seconds: float) -> None:
        """Stop a worker for longer than its lease, then let it go on."""
        pid, begun = self.any_worker(), time.time()
        os.killpg(pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.killpg(pid, signal.SIGCONT)
        self.frozen_between.append((begun, time.time() + 1))

    # --- Redis -------------------------------------------------------------------------------------

    @property
    def _redis_pid(self) -> int:
        return int((self.redis.folder / "pid").read_text())

    def kill_redis(self, away: float) -> None:
        """Kill Redis and start it again on the same data."""
        os.kill(self._redis_pid, signal.SIGKILL)
        time.sleep(away)
        self.redis.start()

    def freeze_redis(self, seconds: float) -> None:
        """Stop Redis for a while: connections stay, nothing answers."""
        pid = self._redis_pid
        os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(pid, signal.SIGCONT)

    def fill_redis(self, seconds: float) -> None:
        """Let Redis refuse writes for want of memory."""
        client = self.client.ledger._redis
        client.config_set("maxmemory", "1mb")
        time.sleep(seconds)
        client.config_set("maxmemory", "0")

    def drop_connections(self) -> None:
        """Close every client's connection."""
        self.client.ledger._redis.client_kill_filter(_type="normal", skipme=True)

    # --- exports -----------------------------------------------------------------------------------

    def context(self, number: int) -> ExportContext:
        """Write a session's files and return its context."""
        folder = self.folder / "data" / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        record, image = folder / f"record-{number}.xml", folder / "image.raw"
        record.write_text(f"<Experiment>{number}</Experiment>")
        image.write_bytes(os.urandom(2000))
        return ExportContext.parse(
            {
                "xml_file_path": str(record),
                "session_identifier": f"session-{number}",
                "instrument_pid": "FAULTS",
                "dt_from": "2026-11-20T10:00:00+01:00",
                "dt_to": "2026-11-20T11:00:00+01:00",
                "activities": [{"files": [str(image)]}],
            }
        )

    def submit(self, number: int, destinations: tuple[str, ...]) -> None:
        """Submit one session; while Redis is away, again until it is accepted (a repetition is harmless)."""
        context = self.context(number)

        def accepted() -> bool:
            try:
                submission = self.client.submit(context, "all", destinations=destinations)
            except LedgerUnavailable:
                return False
            return submission.outcome in ("accepted", "duplicate")

        self.until(accepted, SETTLE_BOUND)
        self.ids.append(context.export_id)

    @contextmanager
    def submitting(self, count: int, seconds: float, destinations: tuple[str, ...]) -> Iterator[None]:
        """Submit sessions evenly over a time, in the background."""
        errors: list[BaseException] = []

        def run() -> None:
            try:
                for number in range(count):
                    self.submit(number, destinations)
                    time.sleep(seconds / count)
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            thread.join()
        if errors:
            raise errors[0]

    def misbehave(self, answers: dict[str, list[Answer]]) -> None:
        """Line up answers by destination."""
        for name, lined_up in answers.items():
            self.receiver.script(f"/{name}", lined_up)

    # --- the end -----------------------------------------------------------------------------------

    def settle(self) -> Figures:
        """End every fault, wait until every export is final, and count what the receivers saw."""
        self.inbox.behave()
        last_fault = time.monotonic()
        statuses: dict[str, ExportStatus] = {}

        def all_final() -> bool:
            for export_id in self.ids:
                if export_id not in statuses:
                    status = self.client.status(export_id)
                    if status.state.is_final:
                        statuses[export_id] = status
            return len(statuses) == len(self.ids)

        try:
            self.until(all_final, SETTLE_BOUND)
        except TimeoutError:
            pending = [i for i in self.ids if i not in statuses]
            self.figures.unsettled = [f"{i}: {self.client.status(i).summary}" for i in pending]
        self.figures.recovery_seconds = time.monotonic() - last_fault
        self._count_states(statuses)
        self._count_arrivals()
        return self.figures

    def _count_states(self, statuses: dict[str, ExportStatus]) -> None:
        figures = self.figures
        figures.submitted = len(self.ids)
        figures.delivered = sum(s.state is ExportState.DELIVERED for s in statuses.values())
        figures.unknown = sum(any(d.state is DeliveryState.UNKNOWN for d in s.deliveries) for s in statuses.values())
        for export_id, status in statuses.items():
            for delivery in status.deliveries:
                path = f"/{delivery.destination}"
                confirmed = delivery.state is DeliveryState.DELIVERED
                if delivery.destination == "archive":
                    manifest = self.disk_root / str(delivery.receipt and delivery.receipt.record_id) / "manifest.json"
                    figures.lost += confirmed and not manifest.exists()
                else:
                    figures.lost += confirmed and not self.inbox.acceptances[path, export_id]
            figures.lost += status.state is ExportState.DEAD

    def _count_arrivals(self) -> None:
        confirmed = self._confirmations()
        for at, delivery in self.inbox.arrivals:
            if at > confirmed.get((delivery.path, delivery.export_id), float("inf")) + 0.005:
                frozen = any(begun <= at <= ended for begun, ended in self.frozen_between)
                self.figures.asked_again_frozen += frozen
                self.figures.asked_again += not frozen
        self.figures.twice = sum(count - 1 for (path, _), count in self.inbox.acceptances.items() if path != "/keyed")

    def _confirmations(self) -> dict[tuple[str, str | None], float]:
        return {
            (f"/{entry.destination}", export_id): entry.at.timestamp()
            for export_id in self.ids
            for entry in self.client.trail(export_id)
            if entry.event in ("delivered", "adopted") and entry.destination
        }

    def close(self) -> None:
        """End everything this world started."""
        for process, _, _ in self.workers.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGCONT)
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)
        self.client.close()
        self.redis.stop()

    @staticmethod
    def until(condition: object, seconds: float) -> None:
        """Await a condition."""
        deadline = time.monotonic() + seconds
        while not condition():  # type: ignore[operator]
            if time.monotonic() > deadline:
                raise TimeoutError
            time.sleep(0.05)


@contextmanager
def world(plan: str, seed: int) -> Iterator[World]:
    """Build a world in a temporary folder and take it down."""
    inbox = TimedInbox()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder, Receiver(inbox=inbox) as receiver:
        made = World(plan, seed, Path(folder), receiver, inbox)
        try:
            yield made
        finally:
            made.close()
