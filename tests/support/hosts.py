"""Hosts on one machine: network namespaces on a switch of their own, reachable from nowhere else."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools import missing, run, tool

_NET = "10.77.0"


@dataclass(frozen=True)
class Host:
    """One network namespace with an address."""

    namespace: str
    address: str

    def start(
        self, command: Sequence[str], log: Path, env: Mapping[str, str], cwd: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process on this host."""
        with log.open("ab") as output:
            return subprocess.Popen(
                [tool("ip"), "netns", "exec", self.namespace, *command],
                env=dict(env), cwd=cwd, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip


@contextmanager
def network(*names: str) -> Iterator[dict[str, Host]]:
    """Make hosts that see each other and nobody else; they vanish with the block."""
    if os.geteuid() != 0:
        missing("network namespaces need root")
    mark = f"lr{os.getpid()}"
    hub, hosts = f"{mark}-hub", {}
    made = [hub]
    try:
        created = run("ip", "netns", "add", hub)
        if created.returncode:
            missing(f"this machine has no network namespaces: {created.stderr.strip()}")
        _ip("-n", hub, "link", "add", "switch", "type", "bridge")
        _ip("-n", hub, "link", "set", "switch", "up")
        for number, name in enumerate(names, 1):
            host = Host(f"{mark}-{number}", f"{_NET}.{number}")
            _ip("netns", "add", host.namespace)
            made.append(host.namespace)
            _ip(
                "-n",
                hub,
                "link",
                "add",
                f"p{number}",
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                host.namespace,
            )
            _ip("-n", hub, "link", "set", f"p{number}", "master", "switch", "up")
            _ip("-n", host.namespace, "address", "add", f"{host.address}/24", "dev", "eth0")
            _ip("-n", host.namespace, "link", "set", "eth0", "up")
            _ip("-n", host.namespace, "link", "set", "lo", "up")
            hosts[name] = host
        yield hosts
    finally:
        for namespace in reversed(made):
            run("ip", "netns", "del", namespace)


def _ip(*arguments: str) -> None:
    done = run("ip", *arguments)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
