"""Fill a ledger quickly: one export of each stage is made by every real step, and copied inside Redis.

A million submits, claims and commits would take ten minutes; copies take one. `check` compares copies with exports
that went every step: field by field but for times, and by what they take in memory.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.growth.exports import FIRST_NUMBER, MIX, Site, entry
from benchmarks.queue.workload import document

from labrelay.context import export_id_of

_BATCH = 500
_SAMPLE = 20
#: What differs between two exports of one stage beside their number.
_TIMES = re.compile(r"\b\d{13}\b|\b\d{10}\.\d+|\d{4}-\d\d-\d\dT[0-9:.]+Z?|[0-9a-f]{64}")


@dataclass(frozen=True)
class Template:
    """One real export, as Redis holds it."""

    stage: str
    number: int
    fields: Sequence[str]
    trail: Sequence[str]
    bulk: str
    due: int

    @property
    def state(self) -> str:
        """Its state."""
        return dict(zip(self.fields[::2], self.fields[1::2], strict=True))["state"]


def take(site: Site, stage: str, number: int) -> Template:
    """Return what Redis holds of an export."""
    export_id = entry(number).export_id
    row: dict[str, str] = site.redis.hgetall(site.keys.export(export_id))  # type: ignore[assignment]
    packed: Any = site.redis.get(site.keys.packed(export_id))
    due: Any = site.redis.zscore(site.keys.due, export_id)
    trail: Any = site.redis.lrange(site.keys.trail(export_id), 0, -1)
    bulk = zlib.decompress(base64.b64decode(packed)).decode() if packed else ""
    return Template(stage, number, [part for pair in row.items() for part in pair], trail, bulk, int(due or 0))


def make_templates(site: Site) -> list[Template]:
    """Return one export of each stage, made by every real step on a server of its own."""
    templates = []
    for number, stage in enumerate(MIX, FIRST_NUMBER):
        site.bring_to(stage, [number])
        templates.append(take(site, stage, number))
    return templates


def fill(site: Site, template: Template, numbers: range) -> None:
    """Copy an export to these numbers."""
    script = site.redis.register_script((Path(__file__).parent / "fill.lua").read_text())
    instrument = document(0)["instrument_pid"]
    held = "beta" if template.stage == "waiting" else ""
    shared = [
        site.keys.prefix, template.number, template.state, template.due,
        json.dumps(template.fields), json.dumps(template.trail), held,
    ]  # fmt: skip

    def copy(start: int) -> None:
        own: list[Any] = []
        for number in range(start, min(start + _BATCH, numbers.stop)):
            own += [export_id_of.__wrapped__(instrument, f"bench-{number}"), number, _packed(template, number)]
        script(args=[*shared, *own])

    # Compressing, as Redis, leaves the interpreter to the next batch.
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(copy, range(numbers.start, numbers.stop, _BATCH)))


def _packed(template: Template, number: int) -> str:
    if not template.bulk:
        return ""
    text = template.bulk.replace(str(template.number), str(number))
    return base64.b64encode(zlib.compress(text.encode())).decode()


def fill_mix(site: Site, templates: Sequence[Template], count: int) -> range:
    """Fill a ledger with `MIX`; return the numbers of its delivered exports."""
    at, delivered = FIRST_NUMBER + 1000, range(0)
    for template in templates:
        numbers = range(at, at + count * MIX[template.stage] // 1000)
        fill(site, template, numbers)
        at, delivered = numbers.stop, numbers if template.stage == "packed" else delivered
    # As packing leaves it: its next look finds nothing to do.
    site.redis.set(site.keys.packed_until, site.redis.time()[0] * 1000)
    return delivered


def check(copies: Site, real: Site, templates: Sequence[Template]) -> dict[str, float]:
    """Compare copies with exports that went every step.

    Returns
    -------
    dict
        By stage: memory of the copies' keys over that of the others.

    Raises
    ------
    SystemExit
        They differ.
    """
    ratios = {}
    for index, template in enumerate(templates):
        first = FIRST_NUMBER + 100 + index * _SAMPLE
        numbers = range(first, first + _SAMPLE)
        fill(copies, template, numbers)
        real.bring_to(template.stage, numbers)
        for number in numbers:
            one, other = (_comparable(take(site, template.stage, number)) for site in (copies, real))
            if one != other:
                differs = sorted(set(one).symmetric_difference(other))
                raise SystemExit(f"copies differ from a real export that is {template.stage}: {differs[:4]}")
        ratios[template.stage] = _memory(copies, numbers) / _memory(real, numbers)
    return ratios


def _comparable(export: Template) -> list[str]:
    row = zip(export.fields[::2], export.fields[1::2], strict=True)
    bulk = json.loads(export.bulk) if export.bulk else {"fields": {}, "trail": []}
    parts = [*(f"{field}={value}" for field, value in (*row, *bulk["fields"].items())), *export.trail, *bulk["trail"]]
    return sorted(_TIMES.sub("*", part) for part in parts)


def _memory(site: Site, numbers: range) -> int:
    total = 0
    for number in numbers:
        export_id = entry(number).export_id
        for key in (site.keys.export(export_id), site.keys.trail(export_id), site.keys.packed(export_id)):
            total += site.redis.memory_usage(key, samples=0) or 0
    return total
