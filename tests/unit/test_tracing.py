"""What tracing costs those who do not want it: nothing is imported, and what is missing is said with its cure."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from labrelay.errors import InvalidInput
from labrelay.settings import ProducerSettings
from labrelay.tracing import NoTracing, tracing_of
from labrelay_worker.settings import WorkerSettings
from labrelay_worker.telemetry.assembling import telemetry_of

#: What only tracing and counting load; redis-py looks for OpenTelemetry's interface by itself.
OPTIONAL = ("prometheus_client", "opentelemetry.sdk.trace", "opentelemetry.exporter", "labrelay.spans")


def test_without_the_settings_neither_prometheus_nor_tracing_is_loaded():
    # When a producer's client and a worker's telemetry are made
    code = (
        "import sys; from labrelay.client import Client; Client(); "
        "from labrelay_worker import runtime; from labrelay_worker.telemetry.assembling import telemetry_of; "
        "from labrelay_worker.settings import WorkerSettings; telemetry_of(WorkerSettings()); "
        f"print([name for name in {OPTIONAL!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # Then neither library is loaded
    assert done.stdout.strip() == "[]"


def test_submits_are_not_traced_unless_asked_for():
    tracing = tracing_of(ProducerSettings())
    assert isinstance(tracing, NoTracing)
    assert tracing.submit([], lambda entries: []) == []


@pytest.mark.parametrize(
    ("missing", "settings", "cure"),
    [
        ("opentelemetry", {"traces": True}, r'pip install "labrelay\[otel\]"'),
        ("prometheus_client", {"metrics_port": 0}, r'pip install "labrelay\[monitor\]"'),
    ],
)
def test_what_is_not_installed_is_named_with_its_cure(monkeypatch, missing, settings, cure):
    # Given a machine without the extra
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name.startswith(missing) else find(name))
    # When it is asked for all the same
    with pytest.raises(InvalidInput, match=cure):
        telemetry_of(WorkerSettings(**settings))
