"""Two real Redis servers behind one address, and the failover from one to the other."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import redis

from labrelay_worker.embedded import find_redis_server

_START_SECONDS = 30.0


class Forwarder:
    """One address of this machine whose connections lead to a port that can be changed."""

    def __init__(self, port: int) -> None:
        self.target = port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def drop(self) -> None:
        """Close every connection; new ones are taken."""
        for end in list(self._open):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Take no connection any more."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.target), 5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            self._open |= {client, server}
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)
        self._open.discard(source)
        source.close()


class ReplicatedRedis:
    """A server and its replica, each with its append-only file, at one address.

    Parameters
    ----------
    folder
        Where both keep their data.
    """

    def __init__(self, folder: Path) -> None:
        ports = [_free_port(), _free_port()]
        self._processes = [_launch(folder / f"redis-{port}", port) for port in ports]
        self._primary, self._replica = (redis.Redis(port=port, decode_responses=True) for port in ports)
        for client in (self._primary, self._replica):
            _await(lambda client=client: _answers(client))
        self._forwarder = Forwarder(ports[0])
        self.url = f"redis://127.0.0.1:{self._forwarder.port}/0"
        self._replica.replicaof("127.0.0.1", str(ports[0]))
        self._ports = ports
        self._await_replica()

    def fail_over(self, *, lingering: float) -> None:
        """Hand over to the replica, which loses nothing, and close the connections to the old server after a while.

        Until then it refuses writes on them, as a server does whose sentinel or cloud is slow to cut them off.
        """
        self._await_replica()
        self._primary.execute_command("FAILOVER")
        _await(lambda: self._replica.info("replication")["role"] == "master")
        self._primary, self._replica = self._replica, self._primary
        self._ports.reverse()
        self._forwarder.target = self._ports[0]
        time.sleep(lingering)
        self._forwarder.drop()

    def close(self) -> None:
        """End both servers."""
        self._forwarder.close()
        for client in (self._primary, self._replica):
            client.close()
        for process in self._processes:
            process.kill()
            process.wait(30)

    def _await_replica(self) -> None:
        _await(lambda: self._replica.info("replication").get("master_link_status") == "up")


def _launch(folder: Path, port: int) -> subprocess.Popen[bytes]:
    folder.mkdir()
    options = {"port": str(port), "bind": "127.0.0.1", "dir": str(folder), "appendonly": "yes", "save": ""}
    # With the default a new replica waits for five seconds.
    options |= {"repl-diskless-sync": "yes", "repl-diskless-sync-delay": "0"}
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    with (folder / "redis.log").open("wb") as log:
        return subprocess.Popen([find_redis_server(folder), *arguments], stdout=log, stderr=log)


def _answers(client: redis.Redis) -> bool:
    with suppress(redis.RedisError):
        return bool(client.ping())
    return False


def _await(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.02)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
