"""SIGKILL for an embedded Redis that loses nothing by it, however slow the disk is just then."""

from __future__ import annotations

import os
import signal

import redis

from labrelay_worker.embedded import EmbeddedRedis


def kill(server: EmbeddedRedis) -> None:
    """Kill it once everything that it has confirmed is with the system, as its users are promised."""
    folder = server.folder
    # While a flush to the disk is under way, `everysec` confirms for two seconds what only its own memory holds.
    with redis.Redis.from_url((folder / "url").read_text().strip()) as client:
        client.config_set("appendfsync", "no")
    os.kill(int((folder / "pid").read_text()), signal.SIGKILL)
