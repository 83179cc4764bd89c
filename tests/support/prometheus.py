"""A real Prometheus beside a lab, with the configuration of deploy/ in quick time."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from lab import Lab, wait_until
from tools import DEPLOY, tool

Labels = tuple[tuple[str, str], ...]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Prometheus:
    """A running server."""

    url: str

    def query(self, expression: str) -> dict[Labels, float]:
        """Return the value of each series that an expression has now."""
        found = self._get(f"query?{urllib.parse.urlencode({'query': expression})}")["result"]
        return {tuple(sorted(each["metric"].items())): float(each["value"][1]) for each in found}

    def by(self, label: str, expression: str) -> dict[str, float]:
        """Return the values of an expression by one label."""
        return {dict(labels)[label]: value for labels, value in self.query(expression).items()}

    def alerts(self) -> set[str]:
        """Return the alerts that are pending or firing."""
        return {alert["labels"]["alertname"] for alert in self._get("alerts")["alerts"]}

    def targets(self) -> dict[str, str]:
        """Return the health of each target by its address."""
        return {t["labels"]["instance"]: t["health"] for t in self._get("targets?state=active")["activeTargets"]}

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}", timeout=10) as answer:
            return json.load(answer)["data"]


@contextmanager
def ledger_metrics(lab: Lab) -> Iterator[str]:
    """Run `labrelay metrics --serve`; yields its address."""
    port = free_port()
    with (lab.folder / "metrics.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "labrelay", "metrics", "--serve", str(port)],
            env=lab.environment, cwd=lab.folder, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        wait_until(lambda: _answers(f"http://127.0.0.1:{port}/metrics"), what="the ledger's metrics")
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def prometheus(lab: Lab, ledger: str) -> Iterator[Prometheus]:
    """Run Prometheus on deploy/'s configuration, with the addresses of this lab and every second."""
    program = tool("prometheus")
    folder = lab.folder / "prometheus"
    folder.mkdir()
    shutil.copy(DEPLOY / "prometheus" / "alerts.yml", folder)
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text().replace("127.0.0.1:9469", ledger))
    config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    for job in config["scrape_configs"]:
        for discovery in job.get("http_sd_configs", []):
            discovery["refresh_interval"] = "1s"
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
             f"--web.listen-address=127.0.0.1:{port}", "--query.lookback-delta=20s"],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        wait_until(lambda: _answers(f"http://127.0.0.1:{port}/-/ready"), what="Prometheus")
        yield Prometheus(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(30)


def panel_queries(dashboard: Path) -> list[tuple[str, str]]:
    """Return every expression of a Grafana dashboard, with its panel's title and Grafana's variables filled in."""
    queries = []
    for panel in json.loads(dashboard.read_text())["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"].replace("$__rate_interval", "5m").replace("$destination", ".*")
            queries.append((panel["title"], expression))
    return queries


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False
