"""Keep a record as it was submitted: NexusLIMS moves it after the export and overwrites it at a rebuild.

Copies lie beside the records, in ``.labrelay/<export id>/<content>/<the record's own name>``: workers can read what
is there, and the name is the title at CDCS and eLabFTW.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from labrelay.errors import InvalidInput, LabrelayError
from labrelay.results import ExportState

if TYPE_CHECKING:
    from labrelay.client import Client

FOLDER = ".labrelay"
#: States in which nobody needs the record any more.
_DONE = frozenset({ExportState.DELIVERED, ExportState.CANCELLED})
#: Seconds that a copy is kept at least: another process may have staged it and not submitted it yet.
_YOUNG = 3600.0


def stage(record: Path, export_id: str, folder: Path) -> Path:
    """Copy a record below a folder, unless this very content is there, and return the copy.

    Raises
    ------
    InvalidInput
        It cannot be read, or the folder cannot be written.
    """
    try:
        content = record.read_bytes()
        target = folder / FOLDER / export_id / hashlib.sha256(content).hexdigest()[:16] / record.name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f".{target.name}.{os.getpid()}")
            partial.write_bytes(content)
            partial.replace(target)
    except OSError as error:
        raise InvalidInput(
            str(error.filename or record),
            f"the record cannot be kept for the workers ({error.strerror})",
            "Make the record readable and its folder writable",
        ) from None
    return target


def tidy(folder: Path, client: Client) -> int:
    """Remove the copies of exports that are delivered or cancelled; answers of how many exports.

    Whatever cannot be looked up or removed now stays for the next time.
    """
    removed = 0
    for kept in sorted((folder / FOLDER).glob("*")) if (folder / FOLDER).is_dir() else []:
        with suppress(LabrelayError, OSError):
            youngest = max(path.stat().st_mtime for path in [kept, *kept.glob("*")])
            if time.time() - youngest > _YOUNG and client.status(kept.name).state in _DONE:
                shutil.rmtree(kept)
                removed += 1
    return removed
