"""The disaster drill of docs/operations.md: the disk of Redis is lost, and a backup is restored elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from lab import Lab, installation
from redis_servers import PATIENT, Server, launch
from tools import ROOT, tool

from labrelay.results import ExportState

pytestmark = [pytest.mark.integration, pytest.mark.faults]


def labrelay(lab: Lab, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "labrelay", *arguments],
        env=lab.environment, cwd=lab.folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


class Facility:
    """Redis as it is deployed, with its backups."""

    def __init__(self, folder: Path, secrets: Path) -> None:
        self.folder, self.secrets = folder, secrets
        self.options = ["--aclfile", secrets / "redis_acl"]
        self.server = launch(folder / "redis", *self.options, conf=ROOT / "deploy" / "redis.conf")
        self.url = (secrets / "worker_redis_url").read_text().strip().replace("PORT", str(self.server.port))

    def back_up(self) -> Path:
        target = self.folder / "backup"
        environment = dict(os.environ) | {
            "REDISCLI_AUTH": (self.secrets / "redis_admin_password").read_text().strip()
        }
        tool("redis-cli")
        done = subprocess.run(
            ["bash", ROOT / "deploy" / "backup.sh", self.server.folder, target, "127.0.0.1", str(self.server.port)],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return target

    def lose_the_disk(self) -> None:
        self.server.kill()
        shutil.rmtree(self.server.folder)

    def restore(self, backup: Path) -> Server:
        elsewhere = self.folder / "elsewhere"
        shutil.copytree(backup, elsewhere)
        self.server = launch(elsewhere, *self.options, conf=ROOT / "deploy" / "redis.conf", port=self.server.port)
        return self.server


@pytest.fixture
def facility(tmp_path: Path, secrets: Path) -> Any:
    facility = Facility(tmp_path, secrets)
    yield facility
    facility.server.stop()


def drill(lab: Lab, facility: Facility) -> list[str]:
    """Lose Redis between a backup and deliveries after it; bring it back as the document says; return the exports."""
    with lab.client() as client:
        # Given exports delivered before the backup, and others that wait in it
        worker = lab.start_worker()
        ids = [client.submit(lab.session(number)).export_id for number in range(4)]
        for export_id in ids:
            client.wait(export_id, 90)
        worker.send(15)
        worker.wait()
        ids += [client.submit(lab.session(number)).export_id for number in range(4, 8)]
        backup = facility.back_up()

        # And after it those are delivered, and new ones that the backup knows nothing of
        worker = lab.start_worker()
        ids += [client.submit(lab.session(number)).export_id for number in range(8, 12)]
        for export_id in ids:
            client.wait(export_id, 90)
        worker.send(15)
        worker.wait()

    # When the disk of Redis is lost, and the backup restored on another one
    facility.lose_the_disk()
    facility.restore(backup)
    with lab.client() as client:
        # And the sessions since the backup are submitted again, one among them that never was before
        outcomes = [client.submit(lab.session(number)).outcome for number in range(13)]
        assert outcomes == ["duplicate"] * 8 + ["accepted"] * 5
        ids.append(lab.session(12).export_id)

    # And, before any worker starts, the ledger is told of it
    told = labrelay(lab, "restored")
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("9 unfinished exports")
    lab.start_worker()
    return ids


@pytest.mark.timeout(400)
def test_after_a_restore_nothing_is_lost_and_nothing_is_delivered_again(tmp_path: Path, facility: Facility) -> None:
    # Given destinations that can be asked
    with installation(tmp_path, facility.url, LABRELAY_DATA_ROOTS=str(tmp_path), **PATIENT) as lab:
        lab.recorder("archive", find_in_log=True)
        lab.recorder("second", find_in_log=True)

        # When the drill is done
        ids = drill(lab, facility)

        # Then every export is delivered, and each destination accepted each of them once, before or after
        assert {lab.finished(export_id).state for export_id in ids} == {ExportState.DELIVERED}
        for name in ("archive", "second"):
            accepted = Counter(event["id"] for event in lab.events(event="accepted", name=name))
            assert accepted == dict.fromkeys(ids, 1)


@pytest.mark.timeout(400)
def test_what_cannot_be_asked_after_a_restore_is_parked_for_a_person(tmp_path: Path, facility: Facility) -> None:
    # Given a destination that cannot be asked
    with installation(tmp_path, facility.url, LABRELAY_DATA_ROOTS=str(tmp_path), **PATIENT) as lab:
        lab.destinations["portal"] = {"type": "blind", "log": str(lab.events_file)}
        lab.write_settings()

        # When the drill is done
        ids = drill(lab, facility)

        # Then what was delivered before the backup stands, and of the rest nothing is sent unasked
        states = [lab.finished(export_id).state for export_id in ids]
        assert states == [ExportState.DELIVERED] * 4 + [ExportState.UNKNOWN] * 9
        accepted = Counter(event["id"] for event in lab.events(event="accepted"))
        assert accepted == dict.fromkeys(ids[:12], 1)


def test_the_ledger_is_not_doubted_while_workers_run(tmp_path: Path, facility: Facility) -> None:
    with installation(tmp_path, facility.url, LABRELAY_DATA_ROOTS=str(tmp_path), **PATIENT) as lab:
        lab.recorder("archive", find_in_log=True)
        lab.start_worker()

        told = labrelay(lab, "restored")

        assert told.returncode == 2
        assert "Stop them first" in told.stderr
