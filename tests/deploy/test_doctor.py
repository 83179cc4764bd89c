"""`labrelay doctor` as each user of deploy/users.acl sees the Redis of deploy/redis.conf."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from deployed import as_admin, labrelay, start_worker
from lab import Lab
from redis_servers import Server, await_loaded, launch
from tools import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def healthy(lab: Lab, secrets: Path) -> Lab:
    """Start a worker, and let the settings be for their owner alone."""
    lab.environment["LABRELAY_PLUGIN_PATH"] = ""
    lab.destinations["archive"] = {"type": "disk", "root": str(lab.folder / "archive")}
    start_worker(lab, secrets)
    (lab.folder / "labrelay.toml").chmod(0o600)
    return lab


def examined(lab: Lab, secrets: Path, user: str, *arguments: str) -> tuple[list[dict[str, Any]], int]:
    """Return what the doctor finds as a user, and its exit code."""
    answer = labrelay(lab, secrets, user, "doctor", "--json", *arguments)
    assert "Traceback" not in answer.stderr
    return json.loads(answer.stdout)["findings"], answer.returncode


def test_a_worker_has_all_its_rights_and_a_producer_all_of_its_own(lab: Lab, server: Server, secrets: Path) -> None:
    healthy(lab, secrets)
    assert examined(lab, secrets, "worker") == ([], 0)
    assert examined(lab, secrets, "producer", "--skip", "worker-rights") == ([], 0)


def test_a_producer_on_a_machine_with_workers_is_told_that_it_is_none(
    lab: Lab, server: Server, secrets: Path
) -> None:
    (finding,), code = examined(healthy(lab, secrets), secrets, "producer")
    assert (finding["code"], finding["subject"], code) == ("redis.rights", "producer", 1)
    assert "which it takes to run a worker" in finding["problem"]


def test_the_monitor_is_told_once_that_it_may_only_read_and_is_healthy(
    lab: Lab, server: Server, secrets: Path
) -> None:
    (finding,), code = examined(healthy(lab, secrets), secrets, "monitor")
    assert (finding["code"], finding["severity"], code) == ("redis.read-only", "note", 0)
    assert "can neither submit nor run a worker" in finding["problem"]


def test_the_monitor_with_the_wrong_keys_is_still_an_error(lab: Lab, server: Server, secrets: Path) -> None:
    healthy(lab, secrets)
    with as_admin(server, secrets) as admin:
        admin.execute_command("ACL", "SETUSER", "monitor", "resetkeys", "%R~other:*")
    findings, code = examined(lab, secrets, "monitor")
    assert "redis.keys" in {finding["code"] for finding in findings}
    assert code == 1


def test_looking_leaves_nothing_in_redis(lab: Lab, server: Server, secrets: Path) -> None:
    # Given a server without a worker
    lab.write_settings()
    with as_admin(server, secrets) as admin:
        before = set(admin.keys("*"))

        # When each looks
        for user in ("producer", "worker", "monitor"):
            examined(lab, secrets, user)

        # Then there is no key that was not there before
        assert set(admin.keys("*")) == before


@pytest.mark.parametrize("user", ["worker", "monitor"])
@pytest.mark.parametrize("rights", ["-@all", "+@all -del", "resetkeys ~other:*"])
def test_a_default_user_without_all_rights_is_found_before_the_restart(
    user: str, rights: str, lab: Lab, server: Server, secrets: Path
) -> None:
    # Given the trap
    healthy(lab, secrets)
    with as_admin(server, secrets) as admin:
        admin.execute_command("ACL", "SETUSER", "default", "off", *rights.split())

    # When the doctor looks
    findings, code = examined(lab, secrets, user)

    # Then it says what a restart would do, and how to prevent it
    (finding,) = [finding for finding in findings if finding["severity"] == "error"]
    assert (finding["code"], code) == ("redis.drops", 1)
    assert "every export" in finding["problem"]
    assert "ACL SETUSER default resetpass ~* &* +@all" in finding["repair"]


@pytest.mark.parametrize("repaired", [False, True], ids=["as it was", "with the repair"])
def test_what_the_doctor_foretells_happens_and_its_repair_prevents_it(
    repaired: bool, lab: Lab, server: Server, secrets: Path
) -> None:
    # Given exports under a default user that may do nothing
    with as_admin(server, secrets) as admin:
        admin.execute_command("ACL", "SETUSER", "default", "off", "resetkeys", "-@all")
    with lab.client() as client:
        ids = [client.submit(lab.session(number)).export_id for number in range(3)]
    lab.write_settings()
    found = [each for each in examined(lab, secrets, "worker")[0] if each["code"] == "redis.drops"]
    assert found

    # When its repair is done, or not, and the server is restarted
    with as_admin(server, secrets) as admin:
        if repaired:
            admin.execute_command(*found[0]["repair"].partition("run ")[2].partition(" (")[0].split())
        admin.execute_command("ACL", "SAVE")
    server.stop()
    acl = secrets / "redis_acl"
    again = launch(server.folder, "--aclfile", acl, conf=ROOT / "deploy" / "redis.conf", port=server.port)

    # Then they are there, or gone
    try:
        with as_admin(again, secrets) as admin:
            await_loaded(admin)
            there = [key for key in admin.keys("labrelay:export:*") if key.rpartition(":")[2] in ids]
        assert len(there) == (3 if repaired else 0)
    finally:
        again.stop()


def test_a_user_who_may_not_look_is_told_so_and_no_false_alarm_is_raised(
    lab: Lab, server: Server, secrets: Path
) -> None:
    healthy(lab, secrets)
    with as_admin(server, secrets) as admin:
        admin.execute_command("ACL", "SETUSER", "worker", "-acl|dryrun")
    (finding,), code = examined(lab, secrets, "worker")
    assert (finding["code"], finding["severity"], code) == ("redis.drops-unseen", "note", 0)
    assert "ACL SETUSER worker +acl|dryrun" in finding["repair"]
