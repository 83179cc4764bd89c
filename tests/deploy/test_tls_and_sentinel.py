"""Producer and worker over TLS, and through a failover behind Sentinel, on real servers."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
from lab import installation, wait_until
from redis_servers import PATIENT, Server, free_port, launch, serving
from tools import ROOT, run

from labrelay.errors import LedgerUnavailable
from labrelay.results import ExportState

pytestmark = pytest.mark.integration

_TRIO = 3


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """An authority, and a certificate of the server for this machine's address."""
    folder = tmp_path / "tls"
    folder.mkdir()
    for arguments in (
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem",
        "req -newkey rsa:2048 -nodes -subj /CN=redis -keyout redis.key -out redis.csr",
    ):
        made = run("openssl", *arguments.split(), cwd=folder)
        assert made.returncode == 0, made.stderr
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    sign = "x509 -req -in redis.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out redis.pem"
    assert run("openssl", *sign.split(), cwd=folder).returncode == 0
    return folder


def tls_options(certificates: Path) -> list[str]:
    """What deploy/redis-tls.conf says, with the places of a test."""
    text = (ROOT / "deploy" / "redis-tls.conf").read_text()
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.startswith("tls-")]
    kept = [(name, value.replace("/etc/labrelay/tls", str(certificates))) for name, value in lines]
    return [part for name, value in kept if name not in ("tls-port",) for part in (f"--{name}", value.strip('"'))]


def test_producer_and_worker_deliver_over_tls_and_refuse_a_server_that_is_another(
    tmp_path: Path, certificates: Path
) -> None:
    # Given a Redis that speaks nothing but TLS, and an installation that knows its authority
    with serving(tmp_path / "server", *tls_options(certificates), tls=True) as server:
        url = f"rediss://127.0.0.1:{server.port}/0?ssl_ca_certs={certificates / 'ca.pem'}"
        with installation(tmp_path, url, LABRELAY_DATA_ROOTS=str(tmp_path), **PATIENT) as lab:
            lab.recorder("archive")
            lab.start_worker()

            # When a session is submitted, then it is delivered, by its wake-up and not by the reconciler
            with lab.client() as client:
                submission = client.submit(lab.session())
                assert submission.warnings == ()
                assert client.wait(submission.export_id, 90).state is ExportState.DELIVERED
            assert "received" in lab.workers[0].output()

        # And who does not know the authority does not talk to it
        url = f"rediss://127.0.0.1:{server.port}/0"
        (tmp_path / "stranger").mkdir()
        with (
            installation(tmp_path / "stranger", url, LABRELAY_OUTBOX="false") as lab,
            lab.client() as client,
            pytest.raises(LedgerUnavailable, match="CERTIFICATE_VERIFY_FAILED"),
        ):
            client.submit(lab.session())


class Trio:
    """A master, two replicas and three sentinels, with the access list in force."""

    def __init__(self, folder: Path, secrets: Path, stack: ExitStack) -> None:
        self.secrets = secrets
        # What a trio needs beside the users of a single server.
        acl = secrets / "redis_acl"
        users = (ROOT / "deploy" / "sentinel-users.acl").read_text()
        lines = [line.replace("#REPLICA", ">r").replace("#SENTINEL", ">s") for line in users.splitlines()]
        acl.write_text(acl.read_text() + "".join(f"{line}\n" for line in lines if line.startswith("user ")))
        self.servers: list[Server] = []
        for number in range(_TRIO):
            following = ["--replicaof", f"127.0.0.1 {self.servers[0].port}"] if self.servers else []
            options = ["--aclfile", acl, "--masteruser", "replica", "--masterauth", "r", *following]
            # A copy: Sentinel has the servers write down in their own file whom they follow.
            conf = folder / f"redis-{number}.conf"
            shutil.copy(ROOT / "deploy" / "redis.conf", conf)
            server = launch(folder / f"redis-{number}", *options, conf=conf)
            stack.callback(server.stop)
            self.servers.append(server)
        self.sentinels = [self._sentinel(folder / f"sentinel-{number}", stack) for number in range(_TRIO)]
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        for user in ("producer", "worker"):
            password = (secrets / f"{user}_redis_url").read_text().split(":")[2].split("@")[0]
            (secrets / f"{user}_redis_url").write_text(f"sentinel://{user}:{password}@{hosts}/0?master=labrelay")

    def _sentinel(self, folder: Path, stack: ExitStack) -> Server:
        folder.mkdir()
        text = (ROOT / "deploy" / "sentinel.conf").read_text()
        text = text.replace("redis-1 6379", f"localhost {self.servers[0].port}").replace("SENTINEL_PASSWORD", "s")
        conf = folder / "sentinel.conf"
        # Seconds are for networks; here everything is near.
        conf.write_text(
            text.replace("down-after-milliseconds labrelay 5000", "down-after-milliseconds labrelay 1000")
        )
        server = launch(folder, "--sentinel", conf=conf, port=free_port())
        stack.callback(server.stop)
        return server

    def address(self, user: str) -> str:
        return (self.secrets / f"{user}_redis_url").read_text()

    def master(self) -> int:
        """The port that a sentinel names."""
        with redis.Redis(port=self.sentinels[0].port, decode_responses=True) as sentinel:
            return int(sentinel.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME labrelay")[1])

    def is_whole(self) -> bool:
        """Whether every sentinel knows the other two, and both replicas follow."""
        for sentinel in self.sentinels:
            with redis.Redis(port=sentinel.port, decode_responses=True) as client:
                info = client.info("sentinel").get("master0", {"status": "", "slaves": 0, "sentinels": 0})
                if (info["status"], info["slaves"], info["sentinels"]) != ("ok", 2, 3):
                    return False
        return True


@pytest.fixture
def trio(tmp_path: Path, secrets: Path) -> Iterator[Trio]:
    with ExitStack() as stack:
        trio = Trio(tmp_path, secrets, stack)
        wait_until(trio.is_whole, 120, "the trio to know itself")
        yield trio


@pytest.mark.faults
@pytest.mark.timeout(400)
def test_a_failover_in_the_midst_loses_nothing_and_repeats_nothing(tmp_path: Path, trio: Trio) -> None:
    # Given two workers behind Sentinel
    with installation(tmp_path, trio.address("producer"), LABRELAY_DATA_ROOTS=str(tmp_path)) as lab:
        lab.recorder("archive", find_in_log=True)
        lab.recorder("second", find_in_log=True)
        for _ in range(2):
            lab.start_worker(LABRELAY_REDIS_URL=trio.address("worker"))
        before = trio.master()
        sessions = [lab.session(number) for number in range(120)]

        with lab.client() as client:
            # When the master is killed while sessions are submitted and delivered
            for number, session in enumerate(sessions):
                client.submit(session)
                if number == 50:
                    next(server for server in trio.servers if server.port == before).kill()
            wait_until(lambda: trio.master() != before, 60, "the failover")

            # Then what was spooled meanwhile is sent, and every session is delivered
            deadline = time.monotonic() + 60
            while client.flush().left and time.monotonic() < deadline:
                time.sleep(0.2)
            for session in sessions:
                assert client.wait(session.export_id, 90).state is ExportState.DELIVERED

        # And each destination accepted each of them once
        for name in ("archive", "second"):
            accepted = [event["id"] for event in lab.events(event="accepted", name=name)]
            assert sorted(accepted) == sorted(session.export_id for session in sessions)


@pytest.mark.timeout(400)
def test_without_its_replicas_a_submit_is_not_accepted_but_kept(tmp_path: Path, trio: Trio) -> None:
    # Given a master whose replicas are all gone
    master = trio.master()
    for server in trio.servers:
        if server.port != master:
            server.kill()

    # When a session is submitted, then it counts as accepted only by the outbox
    with installation(tmp_path, trio.address("producer")) as lab, lab.client() as client:
        assert client.submit(lab.session()).outcome == "spooled"
