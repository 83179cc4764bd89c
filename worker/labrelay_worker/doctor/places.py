"""Checks that a worker can read what it is to deliver, and write where it is to deliver."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from labrelay.doctor.examining import Patient
from labrelay.doctor.findings import Finding, error
from labrelay.doctor.home import free_bytes, judge_space, judge_writable, why_not_writable
from labrelay_worker.settings import WorkerSettings

_LOCAL_TYPES = frozenset({"disk", "zarr"})


def check(patient: Patient) -> Iterator[Finding]:
    """Look at the data roots, the archive and the folders that destinations write to."""
    settings = patient.settings
    if not isinstance(settings, WorkerSettings):
        return
    for root in settings.data_roots:
        yield from judge_readable(root, why_not_readable(root))
    folders = {"archive_folder": settings.archive}
    for kind, tables in (("destinations", settings.destinations), ("backends", settings.backends)):
        for name, table in tables.items():
            if (root_of_it := local_root(name, table)) is not None:
                folders[f"[{kind}.{name}] root"] = root_of_it
    for setting, folder in folders.items():
        yield from judge_writable(folder, why_not_writable(folder), setting)
        yield from judge_space(folder, free_bytes(folder))


def judge_readable(root: Path, why_not: str | None) -> Iterator[Finding]:
    """Find a data root that cannot be read."""
    if why_not is not None:
        yield error(
            "path.unreadable",
            str(root),
            f"this data root cannot be read ({why_not}): sessions below it cannot be delivered by this machine",
            "Mount it, give the user of labrelay the right to read it, or correct LABRELAY_DATA_ROOTS",
        )


def local_root(name: str, table: Mapping[str, Any]) -> Path | None:
    """Return the folder that a table of the settings writes to, None if it is none of this machine."""
    root = table.get("root")
    if table.get("enabled") is False or table.get("type", name) not in _LOCAL_TYPES:
        return None
    return Path(root).expanduser().absolute() if isinstance(root, str) and "://" not in root else None


def why_not_readable(root: Path) -> str | None:
    """List a folder; return why that is not possible, or None."""
    try:
        with os.scandir(root) as entries:
            next(entries, None)
    except OSError as trouble:
        return trouble.strerror or str(trouble)
    return None
