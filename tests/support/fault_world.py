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
from contextlib import ExitStack, contextmanager
from pathlib import Path

import killed_redis
from fault_figures import SETTLE_BOUND, Figures
from fault_fleet import Fleet
from fault_inbox import TimedInbox
from fault_redis import ReplicatedRedis
from pydantic import SecretStr

from labrelay.client import Client
from labrelay.context import ExportContext
from labrelay.errors import LedgerUnavailable
from labrelay.names import QUEUE_EXPORTS
from labrelay.settings import ProducerSettings
from labrelay_worker.demo.receiver import Answer, Receiver
from labrelay_worker.embedded import EmbeddedRedis

PLUGINS = Path(__file__).parents[1] / "plugins"

#: keyed honours Idempotency-Key; finder does not, but can be asked; blind neither.
CAN_BE_ASKED = ("keyed", "finder")
#: Receivers share this machine with all that is hurt: one that answers later than this took the request all the same.
CALL_TIMEOUT = 4.0


class CannotHere(Exception):
    """This machine cannot play the plan; the text says what it needs."""


class World(Fleet):
    """Redis, workers and a receiver in one folder, and every way to hurt them."""

    def __init__(self, plan: str, seed: int, folder: Path, receiver: Receiver, inbox: TimedInbox) -> None:
        super().__init__()
        self.random = random.Random(f"{plan}-{seed}")
        self.figures = Figures(plan, seed)
        self.folder, self.receiver, self.inbox = folder, receiver, inbox
        self.redis = EmbeddedRedis(folder / "redis")
        self.ids: list[str] = []
        self.contexts: dict[int, ExportContext] = {}
        #: Those whose files were changed after they were accepted: they must be refused.
        self.spoilt: set[str] = set()
        self.disk_root = folder / "delivered"
        #: What producers of their own said of their submissions.
        self.outcomes: Counter[str] = Counter()
        self._ends = ExitStack()
        self._write_config()
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("LABRELAY_")} | {
            "LABRELAY_HOME": str(folder),
            "LABRELAY_CONFIG": str(folder / "labrelay.toml"),
            "LABRELAY_PLUGIN_PATH": str(PLUGINS),
            "PYTHONFAULTHANDLER": "1",
        }
        self._use_redis(self.redis.start())

    def _use_redis(self, url: str) -> None:
        self.environment["LABRELAY_REDIS_URL"] = url
        # A busy machine may let Redis wait for its disk: who only looks on has the patience for that.
        self.settings = ProducerSettings(
            redis_url=SecretStr(url), home=self.folder, settle_seconds=0, wake_up_grace=2, redis_timeout=20
        )
        self.client = Client(self.settings)

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

    # --- Redis -------------------------------------------------------------------------------------

    def kill_redis(self, away: float) -> None:
        """Kill Redis and start it again on the same data."""
        with self.without_redis():
            time.sleep(away)

    @contextmanager
    def without_redis(self) -> Iterator[None]:
        """Kill Redis, and start it again on the same data afterwards."""
        killed_redis.kill(self.redis)
        try:
            yield
        finally:
            self.redis.start()

    def freeze_redis(self, seconds: float) -> None:
        """Stop Redis for a while: connections stay, nothing answers."""
        pid = int((self.redis.folder / "pid").read_text())
        os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(pid, signal.SIGCONT)

    def replicate_redis(self) -> ReplicatedRedis:
        """Use a Redis with a replica from now on, for workers that start later."""
        pair = ReplicatedRedis(self.folder)
        self._ends.callback(pair.close)
        self.client.close()
        self._use_redis(pair.url)
        return pair

    def redis_on_small_disk(self, size: str) -> Path:
        """Use a Redis from now on whose data lie on a small file system, and return where."""
        self.client.close()
        self.redis.stop()
        self.redis = EmbeddedRedis(self.folder / "small-redis")
        self.small_disk(self.redis.folder, size)
        self._use_redis(self.redis.start())
        return self.redis.folder

    @property
    def queues(self) -> list[str]:
        """The lists that hold wake-ups."""
        return [f"{self.settings.key_prefix}{QUEUE_EXPORTS}"]

    def fill_redis(self, seconds: float) -> None:
        """Let Redis refuse writes for want of memory."""
        client = self.client.ledger._redis
        client.config_set("maxmemory", "1mb")
        time.sleep(seconds)
        client.config_set("maxmemory", "0")

    def drop_connections(self) -> None:
        """Close every client's connection."""
        self.client.ledger._redis.client_kill_filter(_type="normal", skipme=True)

    # --- disks -------------------------------------------------------------------------------------

    def small_disk(self, folder: Path, size: str) -> None:
        """Make a folder a small file system of its own.

        Raises
        ------
        CannotHere
            This machine does not let us mount.
        """
        if os.geteuid() != 0:
            raise CannotHere("mounting a small file system needs root")
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "labrelay-test", folder], check=True)
        self._ends.callback(subprocess.run, ["umount", "--lazy", folder], check=True)

    def remount(self, folder: Path, options: str) -> None:
        """Change how a small file system is mounted."""
        # A write that is under way keeps it busy for a moment.
        self.until(
            lambda: subprocess.run(["mount", "-o", f"remount,{options}", folder], check=False).returncode == 0, 30
        )

    # --- exports -----------------------------------------------------------------------------------

    def context(self, number: int) -> ExportContext:
        """Write a session's files and return its context."""
        folder = self.folder / "data" / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        record, image = folder / f"record-{number}.xml", folder / "image.raw"
        record.write_text(f"<Experiment>{number}</Experiment>")
        image.write_bytes(os.urandom(2000))
        self.contexts[number] = ExportContext.parse(
            {
                "xml_file_path": str(record),
                "session_identifier": f"session-{number}",
                "instrument_pid": "FAULTS",
                "dt_from": "2026-11-20T10:00:00+01:00",
                "dt_to": "2026-11-20T11:00:00+01:00",
                "activities": [{"files": [str(image)]}],
            }
        )
        return self.contexts[number]

    def submit(self, number: int, destinations: tuple[str, ...]) -> None:
        """Submit one session; while Redis is away, again until it is accepted (a repetition is harmless)."""
        context = self.contexts.get(number) or self.context(number)

        def accepted() -> bool:
            try:
                submission = self.client.submit(context, "all", destinations=destinations)
            except LedgerUnavailable:
                return False
            return submission.outcome in ("accepted", "duplicate")

        self.until(accepted, SETTLE_BOUND, f"the submit of session {number}")
        self.ids.append(context.export_id)

    def spool(self, number: int, destinations: tuple[str, ...]) -> bool:
        """Submit one session while Redis is away; return whether the outbox took it, in which case it counts."""
        context = self.contexts.get(number) or self.context(number)
        try:
            submission = self.client.submit(context, "all", destinations=destinations)
        except LedgerUnavailable:
            self.outcomes["refused"] += 1
            return False
        self.outcomes[submission.outcome] += 1
        self.ids.append(context.export_id)
        return True

    @contextmanager
    def submitting(
        self, count: int, seconds: float, destinations: tuple[str, ...], *, first: int = 0
    ) -> Iterator[None]:
        """Submit sessions, numbered from the first, evenly over a time, in the background."""
        errors: list[BaseException] = []

        def run() -> None:
            try:
                for number in range(first, first + count):
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

    def produce_and_kill(self, contexts: Path, destinations: tuple[str, ...], *, after: float) -> None:
        """Let a producer of its own submit, and kill it in the midst; what it said was accepted counts."""
        script = Path(__file__).parent / "fault_producer.py"
        with subprocess.Popen(
            [sys.executable, str(script), str(contexts), *destinations],
            env=self.environment, cwd=self.folder, stdout=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            accepted = [process.stdout.readline()]  # it has begun: killed while it imports, it would prove nothing
            killer = threading.Timer(after, process.kill)
            killer.start()
            accepted += process.stdout.readlines()
            killer.cancel()
        assert process.returncode in (0, -signal.SIGKILL), f"the producer ended by itself, with {process.returncode}"
        for line in accepted:
            export_id, outcome = line.split()
            self.outcomes[outcome] += 1
            if outcome != "refused" and export_id not in self.ids:
                self.ids.append(export_id)

    def flush(self) -> None:
        """Send what waits in the outbox, until nothing does."""
        self.until(lambda: self.client.flush().left == 0, SETTLE_BOUND, "the flush of the outbox")

    def misbehave(self, answers: dict[str, list[Answer]]) -> None:
        """Line up answers by destination."""
        for name, lined_up in answers.items():
            self.receiver.script(f"/{name}", lined_up)

    # --- the end -----------------------------------------------------------------------------------

    def close(self) -> None:
        """End everything this world started."""
        self.end_workers()
        self.client.close()
        self.redis.stop()
        self._ends.close()


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
