"""deploy/redis.conf and deploy/users.acl on a real server: each part does its whole job, and nothing else."""

from __future__ import annotations

import base64
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import redis
import yaml
from deployed import as_admin, as_user, labrelay, start_worker
from lab import Lab, wait_until
from redis.exceptions import NoPermissionError
from redis_servers import Server, await_loaded, free_port, launch
from tools import ROOT

from labrelay.results import ExportState

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

_TOKEN = "t0ken-of-the-hook-42"
#: By the access list, of a script by it, or of everybody by the server.
_REFUSED = r"no permissions|The user executing the script can't|DEBUG command not allowed"
_FORBIDDEN = [
    ("FLUSHALL",),
    ("FLUSHDB",),
    ("CONFIG", "GET", "*"),
    ("CONFIG", "SET", "maxmemory", "1"),
    ("SHUTDOWN", "NOSAVE"),
    ("DEBUG", "SLEEP", "0"),
    ("KEYS", "*"),
    ("ACL", "LIST"),
    ("MONITOR",),
    ("CLIENT", "LIST"),
    ("REPLICAOF", "127.0.0.1", "1"),
    ("MODULE", "LIST"),
    ("SCRIPT", "FLUSH"),
    ("FUNCTION", "FLUSH"),
    ("SWAPDB", "0", "1"),
    ("SAVE",),
]


def refused(server: Server, secrets: Path) -> list[tuple[str, str, str]]:
    """What the server refused somebody since it began: (user, why, what)."""
    with as_admin(server, secrets) as client:
        return [(entry["username"], entry["reason"], entry["object"]) for entry in client.acl_log()]


def test_producer_worker_and_people_do_their_whole_jobs_and_are_refused_nothing(
    lab: Lab, server: Server, secrets: Path
) -> None:
    # Given a worker with its own user, whose destination refuses one session and holds another
    refuse = lab.folder / "refuse"
    lab.recorder("archive", refuse_while=refuse, find_in_log=True)
    lab.recorder("second", hold_while=lab.held, find_in_log=True)
    start_worker(lab, secrets)

    with lab.client() as client:
        # When the producer submits, submits again, replaces, waits, lists, reads trails and cancels
        delivered = client.submit(lab.session(1))
        assert client.submit(lab.session(1)).outcome == "duplicate"
        assert client.wait(delivered.export_id, 90).state is ExportState.DELIVERED
        many = client.submit_many([lab.session(number) for number in range(10, 30)])
        assert all(client.wait(each.export_id, 90).state is ExportState.DELIVERED for each in many)
        refuse.touch()
        dead = client.submit(lab.session(2))
        assert client.wait(dead.export_id, 90).state is ExportState.DEAD
        refuse.unlink()
        lab.held.touch()
        held = client.submit(lab.session(3))
        wait_until(lambda: client.status(held.export_id).state is ExportState.RUNNING, what="the held call")
        client.cancel(held.export_id)
        lab.held.unlink()
        assert client.trail(delivered.export_id)
        assert client.ledger.recent()

    # And a person pauses, resumes, replays and looks with the worker's address
    for arguments in (
        ("pause", "second", "--reason", "maintenance"),
        ("resume", "second"),
        ("dead", "list"),
        ("dead", "replay", dead.export_id),
        ("list",),
        ("plan", str(write_context(lab))),
        ("check",),
    ):
        answer = labrelay(lab, secrets, "worker", *arguments)
        assert answer.returncode == 0, f"{arguments}\n{answer.stdout}{answer.stderr}"
    assert lab.finished(dead.export_id).state is ExportState.DELIVERED

    # And the monitor reads what there is
    for arguments in (
        ("status", delivered.export_id),
        ("list", "--json"),
        ("trail", delivered.export_id),
        ("dead", "list"),
    ):
        answer = labrelay(lab, secrets, "monitor", *arguments)
        assert answer.returncode == 0, f"{arguments}\n{answer.stdout}{answer.stderr}"

    # And the worker stops as it should
    for worker in lab.workers:
        worker.send(15)
        assert worker.wait() == 0

    # Then the server refused none of it
    assert refused(server, secrets) == []


def write_context(lab: Lab) -> Path:
    path = lab.folder / "context.json"
    path.write_text(lab.session(40).to_json())
    return path


def test_what_scripts_wrote_survives_a_restart_under_the_access_list(lab: Lab, server: Server, secrets: Path) -> None:
    # Given accepted exports
    with lab.client() as client:
        ids = [client.submit(lab.session(number)).export_id for number in range(20)]

    # When the server is restarted: it reads its file with the rights of the default user
    server.stop()
    again = launch(
        server.folder, "--aclfile", secrets / "redis_acl", conf=ROOT / "deploy" / "redis.conf", port=server.port
    )

    # Then every one is still there, and nobody can log in as that user
    try:
        with as_admin(again, secrets) as admin:
            await_loaded(admin)
        with lab.client() as client:
            assert {client.status(export_id).state for export_id in ids} == {ExportState.QUEUED}
        for login in ({}, {"password": ""}, {"username": "default", "password": "anything"}):
            with pytest.raises(redis.AuthenticationError), redis.Redis(port=server.port, **login) as stranger:
                stranger.ping()
    finally:
        again.stop()


@pytest.mark.parametrize("user", ["producer", "worker", "monitor", "flower"])
def test_no_user_of_a_part_administers_the_server(user: str, server: Server, secrets: Path) -> None:
    with as_user(secrets, user) as client:
        for command in _FORBIDDEN:
            with pytest.raises(redis.ResponseError, match=_REFUSED):
                client.execute_command(*command)


@pytest.mark.parametrize("user", ["producer", "worker", "monitor", "flower"])
def test_no_user_of_a_part_reaches_beyond_the_prefix(user: str, server: Server, secrets: Path) -> None:
    with as_user(secrets, user) as client:
        for command in (("GET", "other"), ("HGETALL", "other"), ("EVAL", "return redis.call('GET', 'other')", "0")):
            with pytest.raises(redis.ResponseError, match=_REFUSED):
                client.execute_command(*command)
        with client.pubsub() as channel:
            channel.subscribe("other")
            with pytest.raises(redis.ResponseError, match=_REFUSED):
                channel.get_message(timeout=5)


def test_a_producer_finds_no_secret_of_a_destination_in_all_it_can_read(
    lab: Lab, server: Server, secrets: Path
) -> None:
    # Given an export delivered to a destination with a token
    lab.destinations["hook"] = {"type": "webhook", "url": f"http://127.0.0.1:{free_port()}/", "token": _TOKEN}
    lab.recorder("archive")
    start_worker(lab, secrets)
    with lab.client() as client:
        export_id = client.submit(lab.session(), strategy="best_effort").export_id
        wait_until(lambda: "hook" in repr(client.trail(export_id)), what="the first try of the hook")

    # When the producer reads every key that it may, by whatever command
    with as_admin(server, secrets) as admin:
        keys = {key: admin.type(key) for key in admin.scan_iter("*")}
    read, closed = "", []
    reading = {"hash": ("HGETALL",), "list": ("LRANGE", 0, -1), "zset": ("ZRANGE", 0, -1), "set": ("SMEMBERS",)}
    with as_user(secrets, "producer") as producer:
        for key, kind in keys.items():
            command, *rest = reading.get(kind, ("GET",))
            try:
                read += repr(producer.execute_command(command, key, *rest))
            except NoPermissionError:
                closed.append(key)

    # Then it has read the export, not the rooms of others, and no token
    assert export_id in read
    assert _TOKEN not in read
    assert "labrelay:leader" in closed
    for key in ("breakers", "pauses", "leader", "unacked", "held:archive", "pace:x", "places:x", "suspects"):
        with pytest.raises(NoPermissionError), as_user(secrets, "producer") as producer:
            producer.execute_command("HSET", f"labrelay:{key}", "a", "b")


def test_the_monitor_cannot_write_anything_not_even_by_a_script(lab: Lab, server: Server, secrets: Path) -> None:
    # Given an export
    with lab.client() as client:
        export_id = client.submit(lab.session()).export_id

    # When the monitor tries to write, or to let a script write
    with as_user(secrets, "monitor") as monitor:
        for command in (
            ("SET", "labrelay:x", "1"),
            ("DEL", f"labrelay:export:{export_id}"),
            ("HSET", f"labrelay:export:{export_id}", "state", "delivered"),
            ("ZADD", "labrelay:due", 1, "x"),
            ("LPUSH", "labrelay:labrelay.exports", "x"),
            ("PUBLISH", "labrelay:/0.celeryev", "x"),
            ("EVAL", f"return redis.call('DEL', 'labrelay:export:{export_id}')", "0"),
            ("EXPIRE", "labrelay:due", 1),
        ):
            with pytest.raises(redis.ResponseError, match=_REFUSED):
                monitor.execute_command(*command)

    # Then the export is as it was, and a command that would write says so
    lab.destinations["archive"] = {"type": "disk", "root": str(lab.folder / "archive")}
    lab.write_settings()
    for command in (("cancel", export_id), ("pause", "archive")):
        answer = labrelay(lab, secrets, "monitor", *command)
        assert answer.returncode != 0
        assert "may not do that" in answer.stderr
        assert "Traceback" not in answer.stderr
    with lab.client() as client:
        assert client.status(export_id).state is ExportState.QUEUED


def test_the_flower_of_compose_shows_workers_and_tasks_with_its_own_user(
    lab: Lab, server: Server, secrets: Path
) -> None:
    # Given a worker, and Flower as compose starts it: its command, and the secrets that it mounts
    lab.recorder("archive")
    start_worker(lab, secrets)
    service = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]["flower"]
    mounted = lab.folder / "mounted"
    mounted.mkdir()
    for secret in service["secrets"]:
        (mounted / secret["target"]).write_text((secrets / secret["source"]).read_text())
    port = free_port()
    home = lab.folder / "flower-home"
    environment = {name: value for name, value in lab.environment.items() if name != "LABRELAY_REDIS_URL"}
    environment |= {
        "LABRELAY_SECRETS_DIR": str(mounted),
        "LABRELAY_HOME": str(home),
        "LABRELAY_FLOWER_PORT": str(port),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", *service["entrypoint"]],
        env=environment, cwd=lab.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        # When a session is delivered
        wait_until(lambda: asked(port, secrets, "/api/workers"), timeout=90, what="Flower with the worker")
        with lab.client() as client:
            assert client.wait(client.submit(lab.session()).export_id, 90).state is ExportState.DELIVERED

        # Then Flower shows the task, and the server refused Flower nothing
        wait_until(
            lambda: "session-1" in (asked(port, secrets, "/api/tasks") or ""), timeout=90, what="the task in Flower"
        )
        wait_until(
            lambda: asked(port, secrets, "/api/workers?refresh=1"), timeout=90, what="the worker's answer to Flower"
        )
        assert [entry for entry in refused(server, secrets) if entry[0] == "flower"] == []

        # And keeps its history where compose keeps it, and lets no stranger in
        wait_until(lambda: [*(home / "flower").glob("history*")], what="the saved history")
        assert service["environment"]["LABRELAY_HOME"] in {mount.partition(":")[2] for mount in service["volumes"]}
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/tasks", timeout=10)
    finally:
        process.terminate()
        process.wait(30)


def asked(port: int, secrets: Path, path: str) -> str | None:
    password = (secrets / "flower_basic_auth").read_text().strip()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}")
    request.add_header("Authorization", "Basic " + base64.b64encode(password.encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            text = answer.read().decode()
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return None
    return text if text not in ("", "{}") else None


def test_the_deployed_redis_appends_everything_to_disk_and_evicts_nothing(server: Server, secrets: Path) -> None:
    with as_admin(server, secrets) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("appendfsync") == {"appendfsync": "everysec"}
        assert client.config_get("save") == {"save": ""}
        assert client.config_get("protected-mode") == {"protected-mode": "yes"}
        client.set("written", "down")
    written = lambda: any(  # noqa: E731
        b"written" in path.read_bytes() for path in server.folder.rglob("appendonly*") if path.is_file()
    )
    wait_until(written, what="the write on disk")


def test_secrets_are_made_once_and_for_their_owner(secrets: Path) -> None:
    # Given a folder of secrets, when it is made again
    before = {path.name: path.read_text() for path in secrets.iterdir()}
    again = subprocess.run(
        ["bash", ROOT / "deploy" / "make-secrets.sh", secrets], capture_output=True, text=True, check=False
    )

    # Then nothing changed; nobody else can look into it; and the access list holds hashes, no passwords
    assert again.returncode == 1
    assert {path.name: path.read_text() for path in secrets.iterdir()} == before
    assert secrets.stat().st_mode & 0o077 == 0
    passwords = [before[name].split(":")[2].split("@")[0] for name in before if name.endswith("_redis_url")]
    assert len(set(passwords)) == 4
    assert not any(password in before["redis_acl"] for password in passwords)
