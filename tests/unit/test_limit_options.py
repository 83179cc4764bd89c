"""Limits as options of a destination."""

from __future__ import annotations

import pytest

from labrelay_worker.destinations.base import Limits
from labrelay_worker.destinations.registry import ExporterRegistry
from labrelay_worker.settings import WorkerSettings


def registry(tmp_path, **options) -> ExporterRegistry:
    table = {"type": "webhook", "url": "http://localhost/records", **options}
    return ExporterRegistry(WorkerSettings(home=tmp_path, destinations={"portal": table}))


def test_options_of_a_destination_set_its_limits(tmp_path):
    found = registry(tmp_path, per_second=1.5, concurrent=2, limit_account="lab").hosts(["portal"])["portal"]
    assert found.limits == Limits(account="lab", per_second=1.5, concurrent=2)


def test_without_options_the_limits_of_the_class_hold(tmp_path, monkeypatch):
    from labrelay_worker.destinations.webhook import WebhookDestination

    monkeypatch.setattr(WebhookDestination, "limits", Limits(per_second=3.0, concurrent=4))
    assert registry(tmp_path, concurrent=1).hosts(["portal"])["portal"].limits == Limits("", 3.0, 1)


@pytest.mark.parametrize("options", [{"per_second": 0}, {"concurrent": 0}, {"per_second": "often"}])
def test_a_wrong_limit_makes_the_destination_unavailable_with_the_reason(tmp_path, options):
    found = registry(tmp_path, **options)
    assert found.hosts(["portal"])["portal"].info.reason
    assert [plugin.name for plugin in found.unavailable] == ["portal"]
