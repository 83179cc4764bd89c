"""The manifests of Kubernetes are what the schemas allow, and safe to scale."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from tools import ROOT, run

from labrelay_worker.settings import WorkerSettings

_FOLDER = ROOT / "deploy" / "kubernetes"
_GRACE = WorkerSettings.model_fields["drain_seconds"].default + 45


def documents() -> Iterator[dict[str, Any]]:
    for path in sorted(_FOLDER.glob("*.yaml")):
        yield from yaml.safe_load_all(path.read_text())


def pods() -> list[tuple[str, dict[str, Any]]]:
    return [(d["metadata"]["name"], d["spec"]["template"]["spec"]) for d in documents() if "template" in d["spec"]]


def scaled_object() -> dict[str, Any]:
    return next(document for document in documents() if document["kind"] == "ScaledObject")


#: All but the ScaledObject, which is KEDA's own kind: it has a test of its own.
_OF_KUBERNETES = sorted(path for path in _FOLDER.glob("*.yaml") if path.stem != "scaling")


@pytest.mark.parametrize("path", _OF_KUBERNETES, ids=lambda path: path.stem)
def test_the_schemas_of_kubernetes_accept_each_manifest(path: Path) -> None:
    checked = run("kubernetes-validate", "--strict", path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "WARN" not in checked.stdout + checked.stderr


def test_scaling_is_what_keda_and_the_autoscaler_take(tmp_path: Path) -> None:
    # Given the ScaledObject, when KEDA reads it, then it knows every field
    scaling = scaled_object()
    jsonschema.validate(scaling, json.loads((Path(__file__).parent / "scaled_object.json").read_text()))

    # And the autoscaler that it makes takes its behaviour
    behavior = scaling["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    made = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "made"},
        "spec": {
            "maxReplicas": scaling["spec"]["maxReplicaCount"],
            "scaleTargetRef": {"kind": "Deployment", "name": "labrelay-worker"},
            "behavior": behavior,
        },
    }
    path = tmp_path / "made.yaml"
    path.write_text(yaml.safe_dump(made))
    checked = run("kubernetes-validate", "--strict", path)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_scaling_counts_the_ledger_and_never_leaves_the_exports_without_a_worker() -> None:
    spec = scaled_object()["spec"]
    assert spec["minReplicaCount"] >= 1
    named = {trigger["name"]: trigger["metadata"]["valueLocation"] for trigger in spec["triggers"]}
    assert set(re.findall(r"[a-z_]+", spec["advanced"]["scalingModifiers"]["formula"])) == named.keys()
    assert named["running"] == 'labrelay_exports{state="running"}'
    assert named["due"] == "labrelay_due_exports"
    down = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    assert down["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 120}]
    assert down["policies"][0]["periodSeconds"] > _GRACE


def test_a_worker_that_is_scaled_in_may_drain_and_disruptions_take_one_at_a_time() -> None:
    worker = dict(pods())["labrelay-worker"]
    assert worker["terminationGracePeriodSeconds"] == _GRACE
    assert "lifecycle" not in worker["containers"][0]
    budget = next(document for document in documents() if document["kind"] == "PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1
    deployment = next(
        d for d in documents() if d["metadata"]["name"] == "labrelay-worker" and d["kind"] == "Deployment"
    )
    assert "replicas" not in deployment["spec"]


@pytest.mark.parametrize(("name", "pod"), pods(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_pod_is_nobody_special_and_watched(name: str, pod: dict[str, Any]) -> None:
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    for container in pod["containers"]:
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container.keys() & {"startupProbe", "readinessProbe", "livenessProbe"}
        assert container["resources"]["limits"]["memory"]


def test_the_services_of_labrelay_set_none_of_its_settings() -> None:
    # Given that Kubernetes tells each pod of the service `labrelay-flower` in a variable LABRELAY_FLOWER_PORT
    services = [d["metadata"]["name"] for d in documents() if d["kind"] == "Service"]
    assert "labrelay-flower" in services

    # Then it is told not to, wherever labrelay runs
    for name, pod in pods():
        assert not name.startswith("labrelay") or pod["enableServiceLinks"] is False, name


def test_there_is_one_flower_that_knows_its_own_secrets_alone() -> None:
    (flower,) = [d for d in documents() if d["metadata"]["name"] == "labrelay-flower" and d["kind"] != "Service"]
    assert (flower["kind"], flower["spec"]["replicas"]) == ("StatefulSet", 1)
    (secrets,) = [v["secret"] for v in flower["spec"]["template"]["spec"]["volumes"] if "secret" in v]
    assert {item["key"] for item in secrets["items"]} == {"flower_redis_url", "flower_basic_auth"}
    assert flower["spec"]["template"]["spec"]["containers"][0]["command"] == ["labrelay", "flower"]


def test_what_scaling_reads_is_what_the_metrics_say() -> None:
    families = pytest.importorskip("labrelay.metrics.families", reason="this version has no metrics yet")
    told = {family.name: family.labels for family in families.LEDGER_FAMILIES}
    for trigger in scaled_object()["spec"]["triggers"]:
        name, _, labels = trigger["metadata"]["valueLocation"].partition("{")
        assert tuple(re.findall(r"(\w+)=", labels)) == told[name]
