"""Who takes part: each queue with its environment and the command of its workers, as its documentation has it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.queue.without import STEPS

ROOT = Path(__file__).parents[2]
#: Newest releases; arq excludes redis-py 6 and later, so each peer has an environment of its own.
_COMMON = ("aiohttp==3.14.5", "uvloop>=0.21")


@dataclass(frozen=True)
class Variant:
    """One queue.

    Parameters
    ----------
    name
        Module in `peers`, and what the tables call it.
    requires
        What its environment needs beside the common HTTP client; empty: labrelay's own environment.
    worker
        Arguments after ``python`` of one worker process; two are started.
    bulk_is_single
        It has no way to enqueue several contexts at once.
    without
        The step of `benchmarks.queue.without` that is taken out of labrelay.
    """

    name: str
    worker: tuple[str, ...]
    requires: tuple[str, ...] = ()
    bulk_is_single: bool = False
    without: str = ""

    @property
    def peer(self) -> str:
        """The module in `peers` that enqueues for it."""
        return "labrelay_full" if self.without else self.name

    @property
    def python(self) -> Path:
        """Its interpreter."""
        if not self.requires:
            return Path(sys.executable)
        return ROOT / ".venv-bench" / self.name / "bin" / "python"

    def prepare(self) -> None:
        """Make its environment, once."""
        if not self.requires or (self.python.parent / ".ready").exists():
            return
        print(f"setting up {self.name}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(self.python.parents[1])], check=True)
        pip = [str(self.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *_COMMON, *self.requires], check=True)
        (self.python.parent / ".ready").touch()


_PEERS = "benchmarks.queue.peers"
_CELERY = ("worker", "-P", "threads", "--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "WARNING")

VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("labrelay_full", ("-m", "celery", "-A", "labrelay_worker.app", *_CELERY, "-c", "16")),
        Variant("raw_streams", ("-m", f"{_PEERS}.raw_streams")),
        Variant("raw_streams_lean", ("-m", f"{_PEERS}.raw_streams_lean")),
        Variant(
            "dramatiq_gevent",
            ("-m", "dramatiq.__main__", f"{_PEERS}.dramatiq_gevent", "--processes", "1", "--threads", "80"),
            ("dramatiq[redis,gevent]==2.2.1", "urllib3==2.8.0"),
            bulk_is_single=True,
        ),
        Variant(
            "taskiq_streams",
            (
                "-m",
                "taskiq",
                "worker",
                f"{_PEERS}.taskiq_streams:broker",
                "--workers",
                "1",
                "--max-async-tasks",
                "200",
            ),
            ("taskiq[uv]==0.13.0", "taskiq-redis==1.2.4"),
        ),
        Variant("arq_jobs", ("-m", "arq", f"{_PEERS}.arq_jobs.WorkerSettings"), ("arq==0.28.0",)),
        Variant("celery_plain", ("-m", "celery", "-A", f"{_PEERS}.celery_plain", *_CELERY, "-c", "64")),
    )
}

#: The limit, with a full HTTP client as the peers have it, and with labrelay's.
LIMITS = ("raw_streams", "raw_streams_lean")
PEERS = tuple(name for name in VARIANTS if name != "labrelay_full" and name not in LIMITS)

#: labrelay with one step taken out, by step.
ABLATIONS = {
    step: Variant(
        f"without {step}",
        ("-m", "benchmarks.queue.without", step, "-A", "labrelay_worker.app", *_CELERY, "-c", "16"),
        without=step,
    )
    for step in STEPS
}  # fmt: skip
