"""An installation on the Redis of deploy/: its configuration, its access list, each part with its own user."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from lab import Lab, installation
from redis_servers import PATIENT, Server, serving
from tools import ROOT


@pytest.fixture
def server(tmp_path: Path, secrets: Path) -> Iterator[Server]:
    options = ["--aclfile", secrets / "redis_acl"]
    with serving(tmp_path / "server", *options, conf=ROOT / "deploy" / "redis.conf") as server:
        for url in secrets.glob("*_redis_url"):
            url.write_text(url.read_text().replace("PORT", str(server.port)))
        yield server


@pytest.fixture
def lab(tmp_path: Path, server: Server, secrets: Path) -> Iterator[Lab]:
    """An installation whose own process is the producer; `start_worker` is given the worker's address."""
    with installation(tmp_path, address(secrets, "producer"), **PATIENT) as lab:
        yield lab


def address(secrets: Path, user: str) -> str:
    return (secrets / f"{user}_redis_url").read_text().strip()


def as_user(secrets: Path, user: str) -> redis.Redis:
    return redis.Redis.from_url(address(secrets, user), decode_responses=True)


def as_admin(server: Server, secrets: Path) -> redis.Redis:
    password = (secrets / "redis_admin_password").read_text().strip()
    return redis.Redis(port=server.port, username="admin", password=password, decode_responses=True)


def labrelay(lab: Lab, secrets: Path, user: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = lab.environment | {"LABRELAY_REDIS_URL": address(secrets, user)}
    return subprocess.run(
        [sys.executable, "-m", "labrelay", *arguments],
        env=environment, cwd=lab.folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def start_worker(lab: Lab, secrets: Path) -> Any:
    lab.write_settings()
    return lab.start_worker(LABRELAY_REDIS_URL=address(secrets, "worker"))
