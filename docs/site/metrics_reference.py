"""The reference page of metrics and alerts, from the families in the code and the rules in ``deploy/``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from labrelay.metrics.families import LEDGER_FAMILIES, WORKER_FAMILIES, Family

RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "alerts.yml"

_HEAD = """# Metrics and alerts

How to have them scraped: [Monitoring](../monitoring.md). No label takes a value that grows with the exports.
"""
_LEDGER = """## Of the ledger

From `labrelay metrics`, in one place for each ledger; those of the outbox are about the machine it runs on.
"""
_WORKER = """## Of each worker

From the workers' `metrics_port`; to be summed over all of them. Workers with threads or solo also tell of their
process (`process_cpu_seconds_total`, `process_resident_memory_bytes`, …).
"""
_ALERTS = """## Alerts

The rules of `deploy/prometheus/alerts.yml`. `page` wants somebody now, `ticket` today.
"""


def page() -> str:
    """Return the page as Markdown."""
    parts = [_HEAD, _LEDGER, _families(LEDGER_FAMILIES), _WORKER, _families(WORKER_FAMILIES), _ALERTS, _alerts()]
    return "\n\n".join(parts) + "\n"


def _families(families: Sequence[Family]) -> str:
    rows = [
        f"| `{family.name}` | {family.kind} | {', '.join(f'`{label}`' for label in family.labels)} | {family.help} |"
        for family in families
    ]
    return "\n".join(["| metric | type | labels | meaning |", "|---|---|---|---|", *rows])


def _alerts() -> str:
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    rows = []
    for rule in rules:
        notes, severity = rule["annotations"], rule["labels"]["severity"]
        when = " ".join(rule["expr"].split()).replace("|", r"\|")
        cells = f"{rule['alert']} ({severity})", f"`{when}` for {rule['for']}", notes["consequence"], notes["repair"]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(["| alert | when | what it costs | what to do |", "|---|---|---|---|", *rows])
