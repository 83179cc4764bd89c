"""Checks that labrelay can keep what it must keep on this machine."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from labrelay.doctor.findings import Finding, error, warning

if TYPE_CHECKING:
    from labrelay.doctor.examining import Patient

#: Bytes: below the first nothing can be relied on; a Redis rewrites its file in a copy, so it needs room for two.
FULL, LOW = 100 * 2**20, 2**30


def check(patient: Patient) -> Iterator[Finding]:
    """Look at LABRELAY_HOME, which holds outbox, watch memory, archive and the embedded Redis."""
    home = patient.settings.home
    yield from judge_writable(home, why_not_writable(home), "LABRELAY_HOME")
    yield from judge_space(home, free_bytes(home))


def judge_writable(folder: Path, why_not: str | None, setting: str) -> Iterator[Finding]:
    """Find a folder that cannot be written."""
    if why_not is not None:
        yield error(
            "path.unwritable",
            str(folder),
            f"nothing can be written there ({why_not}): {setting} is of no use",
            f"Give the user of labrelay the right to write there, or correct {setting}",
        )


def judge_space(folder: Path, free: int | None) -> Iterator[Finding]:
    """Find a disk that is full, or soon is."""
    if free is None or free >= LOW:
        return
    left = f"{free / 2**20:.0f} MiB are left"
    if free < FULL:
        problem = f"the disk is full ({left}): what is to be kept there is refused"
        yield error("disk.full", str(folder), problem, "Free space, or move the folder to a larger disk")
    else:
        yield warning("disk.low", str(folder), f"the disk is nearly full ({left})", "Free space before it is full")


def why_not_writable(folder: Path) -> str | None:
    """Write and remove a small file; return why that is not possible, or None."""
    probe = existing(folder) / f".labrelay-doctor-{uuid.uuid4().hex}"
    try:
        descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, b"labrelay doctor\n" * 256)
        finally:
            os.close(descriptor)
            probe.unlink()
    except OSError as trouble:
        return trouble.strerror or str(trouble)
    return None


def free_bytes(folder: Path) -> int | None:
    """Return how much the user of this process may write there; None: not known."""
    try:
        return shutil.disk_usage(existing(folder)).free
    except OSError:
        return None


def existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that is there: labrelay makes its folders when it needs them."""
    return next((each for each in (folder, *folder.parents) if each.exists()), folder)
