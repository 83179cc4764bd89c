"""Put the site's pages together: everything in ``docs/``, what is generated from the code, and the way to each."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from docs.site import cli_reference, metrics_reference, settings_reference, wire_reference

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

#: Pages in the order they are read; whatever else is in ``docs/`` joins the how-to guides by itself.
SECTIONS = {
    "Tutorial": ["tutorial"],
    "How-to guides": [
        "watching",
        "checking",
        "doctor",
        "dead-letters",
        "outbox",
        "deploy",
        "flower",
        "monitoring",
        "operations",
    ],
    "Destinations": ["destinations/*", "writing-a-destination"],
    "Reference": ["reference/*", "backends", "ledger"],
    "Explanation": ["architecture", "limits-and-breakers", "reliability", "scaling"],
}
_CATCH_ALL = "How-to guides"

_GENERATED = {
    "reference/cli.md": cli_reference.page,
    "reference/metrics.md": metrics_reference.page,
    "reference/settings.md": settings_reference.page,
    "reference/wire.md": wire_reference.wire_page,
    "reference/redis-names.md": wire_reference.keys_page,
}
_API = """# Python

## Pipelines

```{eval-rst}
.. autofunction:: labrelay.submit
.. autofunction:: labrelay.submit_many
.. autofunction:: labrelay.status
.. autofunction:: labrelay.wait
.. autofunction:: labrelay.cancel
.. autofunction:: labrelay.plan
.. autoclass:: labrelay.client.Client
   :members:
   :exclude-members: ledger, dead_letters
```

## What goes in, what comes out

```{eval-rst}
.. autoclass:: labrelay.context.ExportContext
   :members: parse, from_nexus_record, to_json, export_id, get_result, has_successful_export
.. autoclass:: labrelay.results.Submission
   :members: is_duplicate, is_spooled
.. autoclass:: labrelay.results.ExportStatus
.. autoclass:: labrelay.results.DeliveryStatus
.. autoclass:: labrelay.results.Receipt
.. autoclass:: labrelay.results.ExportResult
```

## Errors

```{eval-rst}
.. automodule:: labrelay.errors
   :members:
```

## Destinations

```{eval-rst}
.. automodule:: labrelay_worker.destinations.base
   :members: ExportDestination, Destination, Limits, Findable, Updatable, Linkable, Checkable
.. automodule:: labrelay_worker.destinations.findings
   :members:
```

## Backends

```{eval-rst}
.. automodule:: labrelay_worker.backends.base
   :members: DataSink, StorageBackend, StreamingBackend
```
"""
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?P<target>[^)#\s]+)(?P<anchor>#[^)]*)?\)")


def assemble(folder: Path) -> list[str]:
    """Fill a folder with the site's sources, and return the pages' names."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(DOCS, folder, ignore=shutil.ignore_patterns("site"))
    for page in folder.rglob("*.md"):
        page.write_text(linked(page.read_text(), DOCS / page.relative_to(folder)))
    (folder / "reference").mkdir(exist_ok=True)
    (folder / "reference" / "python.md").write_text(_API)
    for name, make in _GENERATED.items():
        (folder / name).write_text(make())
    pages = sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.md"))
    (folder / "index.md").write_text(index(pages))
    return pages


def sections(pages: list[str]) -> dict[str, list[str]]:
    """Return the pages of each section, every page once."""
    placed: dict[str, list[str]] = {}
    left = list(pages)
    for title, wanted in SECTIONS.items():
        placed[title] = []
        for name in wanted:
            fits = [page for page in left if page == name or (name.endswith("/*") and page.startswith(name[:-1]))]
            placed[title] += fits
            left = [page for page in left if page not in fits]
    placed[_CATCH_ALL] += left
    return placed


def index(pages: list[str]) -> str:
    """Return the first page: what labrelay is, from the README, and the way to every page."""
    about = (ROOT / "README.md").read_text().partition("\n## ")[0]
    parts = [linked(about, ROOT / "README.md").strip()]
    for title, those in sections(pages).items():
        entries = "\n".join(those)
        parts.append(f"```{{toctree}}\n:maxdepth: 1\n:caption: {title}\n\n{entries}\n```")
    return "\n\n".join(parts) + "\n"


def linked(text: str, page: Path) -> str:
    """Return a page's text with its links as the site has them; what lies outside of the site is named instead."""

    def link(match: re.Match[str]) -> str:
        target = match["target"]
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        path = (page.parent / target).resolve()
        if path.is_relative_to(DOCS) and path.is_file() and page.is_relative_to(DOCS):
            return match[0]
        where = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) and path.exists() else None
        if where is None:
            return match[0]  # the build says that it leads nowhere
        shown = match[1].strip("`")
        return f"`{where}`" if shown in (target, where) else f"{match[1]} (`{where}` in the project)"

    return _LINK.sub(link, text)
