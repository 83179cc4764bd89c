"""What deploy/ promises is what its files say."""

from __future__ import annotations

import configparser
import json
import os
import re
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from tools import ROOT, run, tool

from labrelay.metrics.serving import address_of, listen
from labrelay.settings import load_settings
from labrelay_worker.settings import WorkerSettings, load_worker_settings

_DEPLOY = Path(__file__).parents[2] / "deploy"
_GRACE = WorkerSettings.model_fields["drain_seconds"].default + 45


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LABRELAY_HOME", str(tmp_path))
    for name in ("LABRELAY_CONFIG", "LABRELAY_SECRETS_DIR", "LABRELAY_REDIS_URL"):
        monkeypatch.delenv(name, raising=False)


def directives(name: str) -> dict[str, str]:
    """Return the settings of a Redis configuration."""
    lines = (_DEPLOY / name).read_text().splitlines()
    pairs = (
        (line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines if line and not line.startswith("#")
    )
    return dict(pairs)


_UNITS = sorted((_DEPLOY / "systemd").glob("*.service"))


def service_of(path: Path) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(path)
    return parser["Service"]


@pytest.mark.parametrize("path", _UNITS, ids=lambda path: path.stem)
def test_systemd_accepts_each_unit_and_finds_it_confined(path: Path, tmp_path: Path) -> None:
    # Given the unit with a program that is there
    unit = tmp_path / path.name
    unit.write_text(path.read_text().replace("/opt/labrelay/bin/labrelay", sys.executable))

    # When systemd itself reads it, then it says nothing, and rates its exposure low
    verified = run("systemd-analyze", "verify", unit)
    assert (verified.returncode, verified.stderr) == (0, "")
    rated = run("systemd-analyze", "security", "--offline=true", "--threshold=20", unit)
    assert rated.returncode == 0, rated.stdout[-300:]


@pytest.mark.parametrize("path", _UNITS, ids=lambda path: path.stem)
def test_each_service_stops_in_its_own_time_and_sees_its_own_secrets_alone(path: Path) -> None:
    service = service_of(path)
    assert float(service["TimeoutStopSec"]) == _GRACE
    assert service["KillMode"] == "mixed"
    assert service["KillSignal"] == "SIGTERM"
    assert service["User"] == "labrelay"
    user = {"labrelay-worker": "worker", "labrelay-watch": "producer", "labrelay-metrics": "monitor"}.get(
        path.stem, "flower"
    )
    text = path.read_text()
    assert re.findall(r"LoadCredential=labrelay_redis_url:(\S+)", text) == [f"/etc/labrelay/secrets/{user}_redis_url"]
    assert "Environment=LABRELAY_SECRETS_DIR=%d" in text


def test_the_example_settings_are_accepted_by_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABRELAY_CONFIG", str(_DEPLOY / "labrelay.toml.example"))
    monkeypatch.setenv("LABRELAY_DESTINATIONS__HOOK__TOKEN", "from-the-environment")

    settings = load_worker_settings()

    assert settings.destinations["archive"] == {"type": "disk", "root": "/srv/exports", "priority": 100}
    assert settings.destinations["hook"]["token"] == "from-the-environment"
    assert settings.destinations["hook"]["url"].startswith("https://")
    assert set(settings.routes[0].destinations) <= settings.destinations.keys()


def test_the_example_holds_no_secret_and_only_known_options() -> None:
    example = tomllib.loads((_DEPLOY / "labrelay.toml.example").read_text())
    assert example.keys() <= WorkerSettings.model_fields.keys()
    for table in example["destinations"].values():
        assert not {"token", "password", "api_key", "secret"} & table.keys()


def test_the_secret_files_of_the_deployments_reach_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "labrelay_redis_url").write_text("redis://labrelay:hush@redis:6379/0\n")
    (secrets / "labrelay_destinations").write_text('{"hook": {"token": "from-the-file"}}')
    monkeypatch.setenv("LABRELAY_SECRETS_DIR", str(secrets))
    monkeypatch.setenv("LABRELAY_CONFIG", str(_DEPLOY / "labrelay.toml.example"))

    settings = load_settings(WorkerSettings)

    assert settings.resolve_redis_url() == "redis://labrelay:hush@redis:6379/0"
    assert settings.destinations["hook"]["token"] == "from-the-file"
    assert settings.destinations["hook"]["type"] == "webhook"


def test_redis_keeps_everything_and_evicts_nothing() -> None:
    redis = directives("redis.conf")
    assert redis["appendonly"] == "yes"
    assert redis["appendfsync"] == "everysec"
    assert redis["maxmemory-policy"] == "noeviction"
    assert redis["protected-mode"] == "yes"
    assert redis["bind"] == "127.0.0.1"
    assert redis["save"] == '""'


def test_the_container_runs_the_worker_itself_as_nobody_special_and_stops_by_sigterm() -> None:
    lines = (_DEPLOY / "Dockerfile").read_text().splitlines()
    assert 'ENTRYPOINT ["labrelay", "worker"]' in lines
    assert "STOPSIGNAL SIGTERM" in lines
    assert "USER ${LABRELAY_UID}:${LABRELAY_UID}" in lines
    assert not any("REMAP_SIGTERM" in line for line in lines if not line.startswith("#"))


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    checked = run("hadolint", "--no-color", _DEPLOY / "Dockerfile")
    assert (checked.returncode, checked.stdout) == (0, "")


def test_docker_compose_reads_the_file_as_it_is_meant() -> None:
    # Given the real docker-compose, which needs no engine to read a file
    binary = ROOT / ".venv-deploy" / "lib"
    composes = [*binary.rglob("compose/docker-compose")] or [tool("docker-compose")]

    # When it reads the file
    command = [str(composes[0]), "-f", str(_DEPLOY / "compose.yaml"), "config", "--format", "json"]
    read = subprocess.run(
        command, env=dict(os.environ) | {"LABRELAY_DATA": "/srv/data"}, capture_output=True, text=True, check=False
    )

    # Then every service is there, none runs with more than it needs, and the worker may drain
    assert read.returncode == 0, read.stderr
    services = json.loads(read.stdout)["services"]
    assert services.keys() == {"redis", "worker", "flower", "metrics", "prometheus", "grafana"}
    assert services["worker"]["stop_grace_period"] == "1m15s"
    for name in ("worker", "flower", "metrics", "prometheus", "grafana"):
        assert services[name]["cap_drop"] == ["ALL"]
        assert services[name]["read_only"] is True
    sources = {secret["source"] for secret in services["worker"]["secrets"]}
    assert sources == {"worker_redis_url", "labrelay_destinations"}


def test_compose_publishes_only_to_this_machine_and_waits_out_the_drain() -> None:
    text = (_DEPLOY / "compose.yaml").read_text()
    published = re.findall(r'^\s+- "([\d.:]+:\d+)"', text, re.MULTILINE)
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
    graces = re.findall(r"stop_grace_period: (\d+)s", text)
    assert len(graces) == 6
    assert all(float(grace) == _GRACE for grace in graces)
    assert ":/data:ro" in text


def test_the_prometheus_of_compose_can_measure_every_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a worker as compose starts it, and Prometheus in the network of the metrics
    services = yaml.safe_load((_DEPLOY / "compose.yaml").read_text())["services"]
    worker = services["worker"]
    for name in ("LABRELAY_METRICS_PORT", "LABRELAY_METRICS_HOST"):
        monkeypatch.setenv(name, worker["environment"][name])
    settings = load_settings(WorkerSettings)
    assert services["prometheus"]["network_mode"] == "service:metrics"

    # Then the worker serves its counters where other containers reach it, and announces them under its own name
    assert settings.metrics_port
    with listen(settings.metrics_host, 0) as listening:
        assert address_of(listening).partition(":")[0] == socket.gethostname()
    assert set(worker["networks"]) & set(services["metrics"]["networks"])


def test_compose_parses_and_checks_the_health_of_every_service() -> None:
    services = yaml.safe_load((_DEPLOY / "compose.yaml").read_text())["services"]
    assert all("healthcheck" in service for service in services.values())
    assert "ports" not in services["redis"]


@pytest.mark.parametrize("path", sorted(path for path in _DEPLOY.rglob("*") if path.is_file()), ids=lambda p: p.name)
def test_no_deployment_file_names_a_package_index(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"pypi|index-url|ghcr\.io|quay\.io|docker\.io", text)
