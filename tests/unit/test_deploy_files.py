"""What deploy/ promises is what its files say."""

from __future__ import annotations

import configparser
import re
import tomllib
from pathlib import Path

import pytest
import yaml

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


@pytest.fixture
def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(_DEPLOY / "labrelay-worker.service")
    return parser


def test_the_service_gives_the_drain_its_time_and_signals_the_worker_alone(unit: configparser.ConfigParser) -> None:
    service = unit["Service"]
    assert float(service["TimeoutStopSec"]) == _GRACE
    assert service["KillMode"] == "mixed"
    assert service["KillSignal"] == "SIGTERM"
    assert service["ExecStart"].endswith("/labrelay worker")


def test_the_service_is_confined_and_gets_its_secrets_as_credentials(unit: configparser.ConfigParser) -> None:
    service = unit["Service"]
    assert service["User"] == "labrelay"
    assert service["NoNewPrivileges"] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert service["CapabilityBoundingSet"] == ""
    assert service["LoadCredential"] == "labrelay:/etc/labrelay/secrets"
    assert "Environment=LABRELAY_SECRETS_DIR=%d" in (_DEPLOY / "labrelay-worker.service").read_text()


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
    assert "USER labrelay" in lines
    assert not any("REMAP_SIGTERM" in line for line in lines if not line.startswith("#"))


def test_compose_publishes_only_to_this_machine_and_waits_out_the_drain() -> None:
    text = (_DEPLOY / "compose.yaml").read_text()
    published = re.findall(r'^\s+- "([\d.:]+:\d+)"', text, re.MULTILINE)
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
    graces = re.findall(r"stop_grace_period: (\d+)s", text)
    assert len(graces) == 3
    assert all(float(grace) == _GRACE for grace in graces)
    assert ":/data:ro" in text


def test_compose_parses_and_checks_the_health_of_every_service() -> None:
    services = yaml.safe_load((_DEPLOY / "compose.yaml").read_text())["services"]
    assert services.keys() == {"redis", "worker", "flower"}
    assert all("healthcheck" in service for service in services.values())
    assert "ports" not in services["redis"]


@pytest.mark.parametrize("path", sorted(path for path in _DEPLOY.rglob("*") if path.is_file()), ids=lambda p: p.name)
def test_no_deployment_file_names_a_package_index(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"pypi|index-url|ghcr\.io|quay\.io|docker\.io", text)
