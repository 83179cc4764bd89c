"""Faults planted in a real installation, each with what `labrelay doctor` must say of it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from disks import fill, small_file_system
from tests.servers.cdcs import CdcsServer

from labrelay.results import ExportState
from labrelay_worker.flower.process import answers as flower_answers

PLUGINS = Path(__file__).parents[1] / "plugins"
NOWHERE = "redis://127.0.0.1:1/0"


@dataclass
class Bench:
    """A lab in which something is broken, and how `labrelay doctor` is then called."""

    lab: Any
    stack: ExitStack
    environment: dict[str, str] = field(default_factory=dict)
    arguments: list[str] = field(default_factory=list)

    @property
    def redis(self) -> redis.Redis:
        return self.stack.enter_context(redis.Redis.from_url(self.url, decode_responses=True))

    @property
    def url(self) -> str:
        return self.lab.environment["LABRELAY_REDIS_URL"]

    def url_of(self, user: str, password: str) -> str:
        return self.url.replace("unix://", f"unix://{user}:{password}@")

    def labrelay(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "labrelay", *arguments],
            env=self.lab.environment | self.environment | environment,
            cwd=self.lab.folder, capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """A way to break an installation, the code of the finding, and words of its repair."""

    plant: Callable[[Bench], None]
    code: str
    severity: str
    repair: str
    #: Whether a worker is started before.
    worker: bool = True
    #: What cannot but be found as well.
    also: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.plant.__name__.replace("_", " ")


def redis_is_away(bench: Bench) -> None:
    bench.environment["LABRELAY_REDIS_URL"] = NOWHERE


def redis_knows_no_such_password(bench: Bench) -> None:
    bench.environment["LABRELAY_REDIS_URL"] = bench.url_of("anna", "guessed-wrong")


def redis_evicts(bench: Bench) -> None:
    bench.redis.config_set("maxmemory-policy", "allkeys-lru")


def redis_keeps_nothing_on_disk(bench: Bench) -> None:
    bench.redis.config_set("appendonly", "no")


def redis_is_full(bench: Bench) -> None:
    bench.redis.set("ballast", b"x" * 20_000_000)  # 20 MiB as it is kept; beside it all else is little
    bench.redis.config_set("maxmemory", 23_000_000)


def redis_is_a_replica(bench: Bench) -> None:
    bench.redis.replicaof("127.0.0.1", "1")
    bench.stack.callback(lambda: bench.redis.replicaof("NO", "ONE"))


def a_user_may_not_write_hashes(bench: Bench) -> None:
    bench.redis.execute_command("ACL", "SETUSER", "anna", "on", ">hush-hush", "~*", "&*", "+@all", "-hset")
    bench.environment["LABRELAY_REDIS_URL"] = bench.url_of("anna", "hush-hush")


def a_user_may_not_use_the_keys(bench: Bench) -> None:
    bench.redis.execute_command("ACL", "SETUSER", "anna", "on", ">hush-hush", "~other:*", "&*", "+@all")
    bench.environment["LABRELAY_REDIS_URL"] = bench.url_of("anna", "hush-hush")


def the_clock_is_wrong(bench: Bench) -> None:
    bench.environment |= {"PYTHONPATH": str(PLUGINS / "skewed"), "TEST_CLOCK_SKEW": "60"}


def a_variable_is_misspelt(bench: Bench) -> None:
    bench.environment["LABRELAY_DATA_ROOT"] = "/srv"


def a_table_of_the_settings_is_misspelt(bench: Bench) -> None:
    bench.lab.options["destination"] = "archive"
    bench.lab.write_settings()


def others_may_read_the_secrets(bench: Bench) -> None:
    bench.lab.destinations["hook"] = {"type": "webhook", "url": "http://127.0.0.1:1/", "token": "hush-hush"}
    bench.lab.write_settings()
    (bench.lab.folder / "labrelay.toml").chmod(0o644)


def a_secret_leads_nowhere(bench: Bench) -> None:
    secrets = bench.lab.folder / "secrets"
    secrets.mkdir()
    (secrets / "labrelay_flower_basic_auth").symlink_to("gone")
    bench.environment["LABRELAY_SECRETS_DIR"] = str(secrets)


def the_instruments_are_not_mounted(bench: Bench) -> None:
    bench.environment["LABRELAY_DATA_ROOTS"] = str(bench.lab.folder / "instruments")


def the_archive_is_read_only(bench: Bench) -> None:
    folder = bench.stack.enter_context(small_file_system(bench.lab.folder / "shelf", "1m"))
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    bench.lab.destinations["shelf"] = {"type": "disk", "root": str(folder)}
    bench.lab.write_settings()


def a_disk_is_full(bench: Bench) -> None:
    folder = bench.stack.enter_context(small_file_system(bench.lab.folder / "shelf", "1m"))
    fill(folder / "filler")
    bench.lab.destinations["shelf"] = {"type": "disk", "root": str(folder)}
    bench.lab.write_settings()


def a_repository_is_down(bench: Bench) -> None:
    bench.lab.destinations["cdcs"] = {"type": "cdcs", "url": "http://127.0.0.1:1", "token": "t-hush-1234"}
    bench.lab.write_settings()


def a_repository_refuses_the_token(bench: Bench) -> None:
    server = bench.stack.enter_context(CdcsServer().thread())
    bench.lab.destinations["cdcs"] = {"type": "cdcs", "url": server.url, "token": "a-token-of-yesterday"}
    bench.lab.write_settings()


def a_repository_hangs(bench: Bench) -> None:
    bench.environment["LABRELAY_PLUGIN_PATH"] = str(PLUGINS / "hushed")
    bench.arguments += ["--timeout", "3"]


def a_plugin_is_broken(bench: Bench) -> None:
    folder = bench.lab.folder / "plugins"
    folder.mkdir()
    (folder / "vault.py").write_text("import a_package_nobody_has\n")
    bench.environment["LABRELAY_PLUGIN_PATH"] = str(folder)


def a_destination_is_paused(bench: Bench) -> None:
    assert bench.labrelay("pause", "archive", "--reason", "moving house").returncode == 0


def a_destination_is_down_as_the_workers_found(bench: Bench) -> None:
    bench.lab.destinations["hook"] = {"type": "webhook", "url": "http://127.0.0.1:1/", "idempotent": True}
    bench.lab.write_settings()
    bench.lab.start_worker()
    with bench.lab.client() as client:
        client.submit(bench.lab.session(), destinations=["hook"])

    def is_left_alone() -> bool:
        listed = json.loads(bench.labrelay("destinations", "--json").stdout)["destinations"]
        return any(each["hold"] and each["hold"]["state"] == "open" for each in listed)

    bench.lab.wait_until(is_left_alone, 60, "the breaker")


def no_worker_is_running(bench: Bench) -> None:
    with bench.lab.client() as client:
        client.submit(bench.lab.session())


def a_worker_is_of_another_version(bench: Bench) -> None:
    with bench.lab.client() as client:
        (worker,) = client.ledger.workers()
        keys = client.settings.keys
    older = worker.model_copy(update={"version": "0.0.1", "name": "older"})
    bench.redis.hset(keys.worker_info, "older", older.model_dump_json())
    bench.redis.zadd(keys.workers, {"older": bench.redis.time()[0] * 1000})


def an_export_is_dead(bench: Bench) -> None:
    refuse = bench.lab.folder / "refuse"
    refuse.touch()
    bench.lab.environment["LABRELAY_PLUGIN_PATH"] = str(PLUGINS)
    bench.lab.recorder("strict", refuse_while=refuse)
    bench.lab.start_worker()
    with bench.lab.client() as client:
        export_id = client.submit(bench.lab.session(), destinations=["strict"]).export_id
    assert bench.lab.finished(export_id).state is ExportState.DEAD


def something_waits_in_the_outbox(bench: Bench) -> None:
    context = bench.lab.folder / "session.json"
    context.write_text(bench.lab.session().model_dump_json(exclude_none=True))
    answer = bench.labrelay("submit", str(context), LABRELAY_REDIS_URL=NOWHERE)
    assert "spooled" in answer.stdout, answer.stdout + answer.stderr


def an_outbox_was_damaged(bench: Bench) -> None:
    something_waits_in_the_outbox(bench)
    path = bench.lab.folder / "home" / "outbox" / "outbox.sqlite3"
    path.write_bytes(path.read_bytes()[:20] + b"\xff" * 8000)
    bench.labrelay("outbox", "list")


def calls_may_outlast_the_broker(bench: Bench) -> None:
    bench.environment["LABRELAY_CALL_TIMEOUT"] = "4000"


def flower_is_open(bench: Bench) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "labrelay", "flower", "--open", "--port", str(port)],
        env=bench.lab.environment, cwd=bench.lab.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    bench.stack.callback(process.wait, 20)
    bench.stack.callback(process.terminate)
    bench.arguments += ["--timeout", "20"]
    url = bench.lab.wait_until(lambda: flower_address(bench.lab.folder), 30, "Flower's address")
    bench.lab.wait_until(lambda: flower_answers(url), 60, "Flower")


#: A destination that is not there is found by asking it as well.
REFUSES = ("destination.refuses",)

FAULTS = (
    Fault(redis_is_away, "redis.unreachable", "error", "Start it, or correct LABRELAY_REDIS_URL"),
    Fault(redis_knows_no_such_password, "redis.refused", "error", "Correct user and password in LABRELAY_REDIS_URL"),
    Fault(redis_evicts, "redis.evicts", "error", "CONFIG SET maxmemory-policy noeviction"),
    Fault(redis_keeps_nothing_on_disk, "redis.forgets", "error", "CONFIG SET appendonly yes"),
    Fault(redis_is_full, "redis.full", "error", "Raise maxmemory"),
    Fault(redis_is_a_replica, "redis.replica", "error", "Name the primary"),
    Fault(a_user_may_not_write_hashes, "redis.rights", "error", "ACL SETUSER anna +hset"),
    Fault(a_user_may_not_use_the_keys, "redis.keys", "error", "ACL SETUSER anna ~labrelay:*"),
    Fault(the_clock_is_wrong, "clock.skew", "warning", "NTP"),
    Fault(a_variable_is_misspelt, "settings.unknown", "error", "Did you mean data_roots?"),
    Fault(a_table_of_the_settings_is_misspelt, "settings.invalid", "error", "`labrelay settings` lists the options"),
    Fault(others_may_read_the_secrets, "settings.exposed", "warning", "chmod 600", also=REFUSES),
    Fault(a_secret_leads_nowhere, "settings.secrets", "error", "or put the secret there", also=("settings.invalid",)),
    Fault(the_instruments_are_not_mounted, "path.unreadable", "error", "Mount it"),
    Fault(the_archive_is_read_only, "path.unwritable", "error", "right to write there", also=("disk.full",)),
    Fault(a_disk_is_full, "disk.full", "error", "Free space", also=("path.unwritable",)),
    Fault(a_repository_is_down, "destination.refuses", "error", "Correct [destinations.cdcs]"),
    Fault(a_repository_refuses_the_token, "destination.refuses", "error", "its secrets"),
    Fault(a_repository_hangs, "destination.silent", "error", "labrelay pause silent"),
    Fault(a_plugin_is_broken, "plugin.unavailable", "warning", "pip install a_package_nobody_has"),
    Fault(a_destination_is_paused, "destination.paused", "warning", "labrelay resume archive"),
    Fault(a_destination_is_down_as_the_workers_found, "destination.down", "warning", "resume hook", False, REFUSES),
    Fault(no_worker_is_running, "worker.none", "error", "labrelay worker", worker=False),
    Fault(a_worker_is_of_another_version, "worker.version", "warning", "Upgrade the older one"),
    Fault(an_export_is_dead, "ledger.dead-letters", "warning", "labrelay dead list", worker=False),
    Fault(something_waits_in_the_outbox, "outbox.waiting", "warning", "labrelay outbox flush"),
    Fault(an_outbox_was_damaged, "outbox.damaged", "error", "Submit the sessions of that time again"),
    Fault(calls_may_outlast_the_broker, "timeouts.visibility", "warning", "Lower call_timeout"),
    Fault(flower_is_open, "flower.open", "warning", "LABRELAY_FLOWER_BASIC_AUTH"),
)


@contextmanager
def bench_of(lab: Any) -> Iterator[Bench]:
    """Yield a lab with one destination and without plugins that nobody configured."""
    lab.environment["LABRELAY_PLUGIN_PATH"] = ""
    lab.destinations["archive"] = {"type": "disk", "root": str(lab.folder / "archive")}
    lab.write_settings()
    (lab.folder / "labrelay.toml").chmod(0o600)
    with ExitStack() as stack:
        yield Bench(lab, stack)


def flower_address(folder: Path) -> str:
    try:
        return (folder / "home" / "flower" / "lock").read_text().partition(" ")[2].strip()
    except FileNotFoundError:
        return ""
