"""deploy/redis.conf is taken by a real server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import DEVNULL, Popen

import pytest
import redis

from labrelay_worker.embedded import find_redis_server

pytestmark = pytest.mark.integration

_CONF = Path(__file__).parents[2] / "deploy" / "redis.conf"


@pytest.fixture
def server(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    socket = tmp_path_factory.mktemp("s") / "s"
    places = ["--port", "0", "--unixsocket", str(socket), "--dir", str(tmp_path)]
    process = Popen([find_redis_server(tmp_path), str(_CONF), *places], stdin=DEVNULL, stdout=DEVNULL)
    client = redis.Redis(unix_socket_path=str(socket), decode_responses=True)
    try:
        deadline = time.monotonic() + 15
        while not answers(client):
            assert process.poll() is None, "redis-server refuses deploy/redis.conf"
            assert time.monotonic() < deadline, "redis-server does not answer"
            time.sleep(0.02)
        yield client
    finally:
        client.close()
        process.terminate()
        process.wait(15)


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def test_the_deployed_redis_appends_everything_to_disk_and_evicts_nothing(
    server: redis.Redis, tmp_path: Path
) -> None:
    assert server.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    assert server.config_get("appendonly") == {"appendonly": "yes"}
    assert server.config_get("appendfsync") == {"appendfsync": "everysec"}
    assert server.config_get("save") == {"save": ""}
    assert server.config_get("protected-mode") == {"protected-mode": "yes"}

    server.set("written", "down")

    assert any(b"written" in path.read_bytes() for path in tmp_path.rglob("appendonly*") if path.is_file())
