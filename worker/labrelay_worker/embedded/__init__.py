"""The embedded Redis: a real server with its data on disk, for a machine without a Redis of its own."""

from labrelay_worker.embedded.binary import find_redis_server
from labrelay_worker.embedded.shared import EmbeddedRedis, stop_embedded

__all__ = ["EmbeddedRedis", "find_redis_server", "stop_embedded"]
