"""The alerts and the dashboard of deploy/, on a real Prometheus that scraped a real run."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import click
import pytest
import yaml
from lab import lab
from prometheus import Prometheus, ledger_metrics, panel_queries, prometheus
from tools import DEPLOY, tool

from labrelay.cli import main
from labrelay.metrics.families import LEDGER_FAMILIES, WORKER_FAMILIES
from labrelay.results import DeliveryState, ExportState

__all__ = ["lab"]

RULES = [
    rule
    for group in yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
QUERIES = panel_queries(DEPLOY / "grafana" / "labrelay.json")
#: An alert's expression is a value compared with a number.
COMPARISON = re.compile(r"(?P<value>.+) (?P<sign>>|==) (?P<limit>[\d.]+)\s*", re.DOTALL)


def shows_numbers(server: Prometheus, expression: str) -> bool:
    return any(not math.isnan(value) for value in server.query(expression).values())


def promtool(*arguments: str | Path) -> str:
    done = subprocess.run([tool("promtool"), *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_finds_no_fault_in_rules_and_configuration():
    assert f"{len(RULES)} rules found" in promtool("check", "rules", DEPLOY / "prometheus/alerts.yml")
    assert "is valid" in promtool("check", "config", DEPLOY / "prometheus/prometheus.yml")


def test_each_alert_fires_when_it_should_and_no_other_does():
    assert "SUCCESS" in promtool("test", "rules", Path(__file__).with_name("alerts_test.yml"))


def test_every_alert_is_tried_by_the_rules_tests():
    tried = Path(__file__).with_name("alerts_test.yml").read_text()
    assert [rule["alert"] for rule in RULES if rule["alert"] not in tried] == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_it_costs_and_what_to_do(rule):
    # Then it has the three sentences, a severity, and no command that labrelay does not have
    assert rule["annotations"].keys() == {"summary", "consequence", "repair"}
    assert rule["labels"]["severity"] in ("page", "ticket")
    context = click.Context(main)
    for named in re.findall(r"`labrelay ([a-z]+)(?: ([a-z]+))?", " ".join(rule["annotations"].values())):
        command = main.get_command(context, named[0])
        assert command is not None, named
        if isinstance(command, click.Group) and named[1]:
            assert command.get_command(context, named[1]) is not None, named


def test_dashboard_and_alerts_ask_only_for_what_there_is():
    known = {family.name for family in (*LEDGER_FAMILIES, *WORKER_FAMILIES)}
    expressions = [expression for _, expression in QUERIES] + [rule["expr"] for rule in RULES]
    asked = {name for text in expressions for name in re.findall(r"\blabrelay_\w+", text)}
    assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in asked} - known == set()


@pytest.mark.integration
@pytest.mark.timeout(300)
def test_what_prometheus_shows_of_a_real_run_is_what_the_ledger_says(lab):
    # Given a worker with threads and one with prefork, and destinations that deliver, refuse and are away
    refuse = lab.folder / "refuse"
    lab.recorder("good", 80)
    lab.recorder("picky", 60, refuse_while=refuse)
    lab.destinations["gone"] = {"type": "webhook", "url": "http://127.0.0.1:1/", "priority": 40}
    lab.write_settings()
    for pool in ("threads", "prefork"):
        # On a busy machine the short leases of other tests would be lost, which is an alert.
        lab.start_worker(pool, 2, LABRELAY_METRICS_PORT="0", LABRELAY_LEASE_SECONDS="60")
    with ledger_metrics(lab) as ledger, prometheus(lab, ledger) as server, lab.client() as client:
        lab.wait_until(lambda: list(server.targets().values()).count("up") == 3, what="three targets")

        def submit(numbers: range, *destinations: str) -> list[str]:
            return [client.submit(lab.session(n), destinations=destinations).export_id for n in numbers]

        # When some are delivered and some refused, twice for the rates, and some wait for the one that is away
        for first in (0, 10):
            delivered = submit(range(first + 1, first + 6), "good")
            refuse.touch()
            refused = submit(range(first + 6, first + 9), "good", "picky")
            assert {lab.finished(each).state for each in delivered} == {ExportState.DELIVERED}
            assert {lab.finished(each).state for each in refused} == {ExportState.DEAD}
            refuse.unlink()
            if first == 0:
                submit(range(21, 24), "gone")
                lab.wait_until(
                    lambda: server.query('labrelay_deliveries_total{outcome="failed"} > 0'), what="the first failures"
                )
        lab.wait_until(lambda: server.query("sum(labrelay_exports) == 19"), what="the last scrape of the ledger")
        lab.wait_until(lambda: server.query('sum(labrelay_runs_total{state="dead"}) == 6'), what="the last scrapes")
        lab.wait_until(
            lambda: server.query('labrelay_breaker_state{destination="gone", state="open"} == 1'), what="the breaker"
        )

        # Then the ledger's numbers are those of `labrelay status`
        counts = {str(state): number for state, number in client.ledger.counts().items()}
        finals = {name: counts[name] for name in ("delivered", "dead", "unknown", "cancelled")}
        lab.wait_until(
            lambda: finals.items() <= server.by("state", "sum by (state) (labrelay_exports)").items(),
            what=f"the last scrape of {finals}",
        )
        lab.wait_until(
            lambda: server.query("sum(labrelay_dead_letters)") == {(): finals["dead"]}, what="dead letters"
        )

        # And what all workers counted together is what `labrelay list` shows
        listed = Counter((d.destination, str(d.state)) for e in client.ledger.recent(limit=100) for d in e.deliveries)
        everything = 'sum(labrelay_delivery_seconds_count{destination="good"}) == 16'
        lab.wait_until(lambda: server.query(everything), what="the last scrapes of the workers")
        counted = server.query("sum by (destination, outcome) (labrelay_deliveries_total)")
        for name, state in (("good", DeliveryState.DELIVERED), ("picky", DeliveryState.FAILED)):
            assert counted[("destination", name), ("outcome", str(state))] == listed[name, str(state)] > 0
        # And both workers took part in it under one address each
        assert len(server.query('labrelay_claims_total{answer="claimed"}')) == 2
        assert server.query("sum(labrelay_workers)") == {(): 3}

        # And every panel of the dashboard has numbers
        for title, expression in QUERIES:
            lab.wait_until(lambda query=expression: shows_numbers(server, query), what=f"{title}: {expression}")

        # And every alert has something to compare, and those that should say something do
        for rule in RULES:
            compared = COMPARISON.fullmatch(rule["expr"])
            assert compared is not None, rule["expr"]
            if not compared["value"].startswith("absent("):
                assert server.query(compared["value"]), rule["alert"]
        expected = {"LabrelayDeadLetters", "LabrelayDestinationHeld"}
        lab.wait_until(lambda: expected <= server.alerts(), what="the alerts")
        # A rate is seen or not by what the first scrapes saw: that of the refusals is high enough to be told.
        assert server.alerts() - expected <= {"LabrelayDestinationFailing"}


@pytest.mark.integration
def test_a_scrape_on_standard_output_is_what_promtool_takes(lab):
    # Given a ledger with an export in it
    lab.recorder("good")
    with lab.client() as client:
        client.submit(lab.session())

    # When it is scraped once
    command = [sys.executable, "-m", "labrelay", "metrics"]
    said = subprocess.run(command, env=lab.environment, capture_output=True, text=True, check=True).stdout

    # Then it is in Prometheus's format, and its names follow the rules
    assert 'labrelay_exports{state="queued"} 1.0' in said
    done = subprocess.run(
        [tool("promtool"), "check", "metrics"], input=said, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
