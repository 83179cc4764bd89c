"""`labrelay doctor` finds each planted fault of a real installation and names its repair; a healthy one has none."""

from __future__ import annotations

import json
import subprocess
import zipfile

import pytest
from planted_faults import FAULTS, bench_of

pytestmark = pytest.mark.integration


@pytest.fixture
def bench(lab):
    with bench_of(lab) as bench:
        yield bench


def findings(answer: subprocess.CompletedProcess[str]) -> dict[str, list[dict[str, str]]]:
    """Return the findings by code, but for plugins that a test's folder offers and nobody configured."""
    report = json.loads(answer.stdout)
    assert report["schema"] == "labrelay.doctor/1"
    found: dict[str, list[dict[str, str]]] = {}
    for finding in report["findings"]:
        if finding["severity"] != "note":
            found.setdefault(finding["code"], []).append(finding)
    return found


def test_a_healthy_installation_has_no_finding(bench):
    # Given a worker, a destination, and nothing broken
    bench.lab.start_worker()

    # When the doctor looks
    answer = bench.labrelay("doctor", "--json")

    # Then there is nothing to say, not even a note, and monitoring is content
    assert json.loads(answer.stdout)["findings"] == [], answer.stdout
    assert json.loads(answer.stdout)["skipped"] == {}
    assert answer.returncode == 0
    assert "nothing found" in bench.labrelay("doctor").stdout


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_found_and_its_repair_named(bench, fault):
    # Given an installation with one fault
    if fault.worker:
        bench.lab.start_worker()
    fault.plant(bench)

    # When the doctor looks
    answer = bench.labrelay("doctor", "--json", *bench.arguments)

    # Then it is found, and nothing else; with its repair; and monitoring hears of it
    found = findings(answer)
    assert found.keys() == {fault.code, *fault.also}, answer.stdout + answer.stderr
    assert {finding["severity"] for finding in found[fault.code]} == {fault.severity}
    assert all(fault.repair in finding["repair"] for finding in found[fault.code])
    severities = {finding["severity"] for each in found.values() for finding in each}
    assert answer.returncode == (1 if "error" in severities else 7)
    for secret in ("hush", "guessed-wrong", "a-token-of-yesterday"):
        assert secret not in answer.stdout + answer.stderr


def test_at_least_fifteen_different_faults_are_planted():
    assert len({fault.code for fault in FAULTS}) >= 15


def test_the_table_names_the_repair_and_the_trouble(bench):
    # Given a Redis that evicts
    bench.lab.start_worker()
    bench.redis.config_set("maxmemory-policy", "allkeys-lru")

    # When a person asks
    answer = bench.labrelay("doctor", COLUMNS="200")

    # Then the table says what follows and what to do
    assert "redis.evicts" in answer.stdout
    assert "1 error" in answer.stdout, answer.stdout


def test_a_check_can_be_left_out_and_a_misspelt_one_is_refused(bench):
    bench.lab.start_worker()
    bench.redis.config_set("maxmemory-policy", "allkeys-lru")
    assert "redis.evicts" not in bench.labrelay("doctor", "--json", "--skip", "redis").stdout
    refused = bench.labrelay("doctor", "--skip", "rediss")
    assert refused.returncode == 2
    assert "worker-rights" in refused.stderr


SECRETS = {
    "in the settings file": "toml-5ecret-value-0001",
    "in a header": "head-5ecret-value-0002",
    "in an address": "addr-5ecret-value-0003",
    "in the environment": "envi-5ecret-value-0004",
    "in the secrets directory": "file-5ecret-value-0005",
    "of Redis": "redi-5ecret-value-0006",
    "of Flower": "flow-5ecret-value-0007",
    "of nobody known, in a log": "Bearer loggd5ecretValue0008",
}


def test_the_support_archive_holds_what_helps_and_no_secret(bench):
    # Given secrets wherever one can be, repeated in errors and logs
    lab = bench.lab
    names = ("toml", "header", "address", "env", "file", "redis", "flower", "log")
    secret = dict(zip(names, SECRETS.values(), strict=True))
    bench.redis.execute_command("ACL", "SETUSER", "anna", "on", f">{secret['redis']}", "~*", "&*", "+@all")
    lab.destinations["hook"] = {
        "type": "webhook",
        "url": f"http://user:{secret['address']}@127.0.0.1:1/?sig={secret['address']}",
        "token": secret["toml"],
        "idempotent": True,
    }
    lab.write_settings()
    folder = lab.folder / "secrets"
    folder.mkdir()
    (folder / "labrelay_flower_basic_auth").write_text(f"me:{secret['flower']}\n")
    (folder / "labrelay_backends").write_text(json.dumps({"s3": {"type": "zarr", "secret_key": secret["file"]}}))
    bench.environment |= {
        "LABRELAY_REDIS_URL": bench.url_of("anna", secret["redis"]),
        "LABRELAY_SECRETS_DIR": str(folder),
        "LABRELAY_DESTINATIONS__HOOK__HEADERS": json.dumps({"X-Odd": secret["header"]}),
        "LABRELAY_DESTINATIONS__OTHER__TYPE": "webhook",
        "LABRELAY_DESTINATIONS__OTHER__URL": "http://127.0.0.1:1/",
        "LABRELAY_DESTINATIONS__OTHER__TOKEN": secret["env"],
    }
    lab.start_worker(**bench.environment)
    with lab.client() as client:
        export_id = client.submit(lab.session(), destinations=["hook"]).export_id
        lab.wait_until(
            lambda: client.status(export_id).deliveries and client.status(export_id).deliveries[0].error_kind
        )
    log = lab.folder / "home" / "worker.log"
    log.parent.mkdir(exist_ok=True)
    log.write_text("".join(f"said {value}\n" for value in secret.values()) + "what helps\n")

    # When the archive is written
    path = lab.folder / "support.zip"
    answer = bench.labrelay("doctor", "--bundle", str(path))

    # Then it tells what helps
    assert answer.returncode in (1, 7), answer.stderr
    with zipfile.ZipFile(path) as archive:
        texts = {name: archive.read(name).decode() for name in archive.namelist()}
    assert {"doctor.json", "versions.json", "settings.json", "labrelay.toml.json", "ledger.json"} <= texts.keys()
    assert "what helps" in texts["logs/worker.log"]
    assert export_id in json.loads(texts["ledger.json"])["trails"]
    assert "celery" in json.loads(texts["versions.json"])["packages"]
    assert json.loads(texts["doctor.json"])["findings"]

    # And no secret, nowhere; and nobody else reads it
    for where, value in SECRETS.items():
        for name, text in texts.items():
            assert value.removeprefix("Bearer ") not in text, f"the secret {where} is in {name}"
        assert value not in answer.stdout + answer.stderr
    assert path.stat().st_mode & 0o077 == 0

    # And it is not overwritten
    assert bench.labrelay("doctor", "--bundle", str(path)).returncode == 2
