"""The archive of ended exports: JSON Lines on disk, a file a month, a line per export with all there was of it."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from labrelay.errors import NoSuchExport
from labrelay.names import (
    ARCHIVE_SCHEMA,
    FIELD_DELIVERY,
    FIELD_INTENT,
    FIELD_PREVIOUS_RECEIPT,
    FIELD_RECEIPT,
)
from labrelay.results import ArchiveInfo, TrailEntry
from labrelay.rows import Row, by_destination, trail_entry

_KINDS = {
    "deliveries": FIELD_DELIVERY,
    "intents": FIELD_INTENT,
    "receipts": FIELD_RECEIPT,
    "previous_receipts": FIELD_PREVIOUS_RECEIPT,
}

#: The second field of every line, so the first of this name: a context may hold anything.
_ID_IN_LINE = re.compile(r'"export_id":\s*"([^"]+)"')


def archive_line(export_id: str, row: Row, trail: Sequence[str], *, at: datetime, why: str) -> str:
    """Return everything the ledger knows of an export as one line of JSON.

    Parameters
    ----------
    export_id
        The export.
    row
        Its hash, with the context.
    trail
        Its trail list.
    at
        Server time of archiving.
    why
        ``retention`` or ``dropped``.
    """
    simple = {field: value for field, value in row.items() if field[1:2] != ":" and field != "context"}
    document = {
        "schema": ARCHIVE_SCHEMA,
        "export_id": export_id,
        "archived_at": at.isoformat(),
        "why": why,
        "state": row["state"],
        "session_identifier": row["session"],
        "instrument_pid": row["instrument"],
        "row": simple,
        "context": _parsed(row["context"]),
        **{title: _parsed_fields(row, kind) for title, kind in _KINDS.items()},
        "trail": [_parsed_step(line) for line in trail],
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


class Archive:
    """Appends to and reads from the archive files of one folder.

    Parameters
    ----------
    folder
        Made when first written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = socket.gethostname()

    def append(self, lines: Sequence[str], at: datetime) -> Path:
        """Write lines to the month's file; they are on the disk when this returns.

        Raises
        ------
        OSError
            Nothing may be removed from the ledger. A part may have been written; readers skip it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{at:%Y-%m}.jsonl"
        is_new = not path.exists()
        with path.open("ab", buffering=0) as file:
            data = ("\n".join(lines) + "\n").encode()
            if _is_torn(path):
                data = b"\n" + data
            if file.write(data) != len(data):
                msg = f"only a part of {len(data)} bytes was written; is the disk full?"
                raise OSError(msg)
            os.fsync(file.fileno())
        if is_new:
            _sync_folder(self.folder)
        return path

    @staticmethod
    def find(path: Path, export_id: str) -> dict[str, Any] | None:
        """Return the last record of an export in a file, None if it has none."""
        return Archive.find_many(path, [export_id]).get(export_id)

    @staticmethod
    def find_many(path: Path, export_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return the last record of each of these exports that a file has, in one reading of it."""
        found: dict[str, dict[str, Any]] = {}
        wanted = frozenset(export_ids)
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                named = _ID_IN_LINE.search(line)
                if named is None or named[1] not in wanted:
                    continue
                try:
                    record = json.loads(line)
                except ValueError:  # torn by a crash; the same export was written again after it
                    continue
                found[named[1]] = record
        return found


def archived_trail(export_id: str, where: ArchiveInfo) -> list[TrailEntry]:
    """Return the trail of an archived export.

    Raises
    ------
    NoSuchExport
        Its archive file is not on this machine; the text says where it is.
    """
    path = Path(where.file)
    record = Archive.find(path, export_id) if path.is_file() else None
    if record is None:
        raise NoSuchExport(f"export {export_id} was archived to {where.file} on {where.host}: read its trail there")
    return [TrailEntry.model_validate(step) for step in record["trail"]]


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:  # kept as it is: an export that nobody can read must not be lost on its way out
        return text


def _parsed_fields(row: Row, kind: str) -> dict[str, Any]:
    return {name: _parsed(value) for name, value in by_destination(row, kind).items()}


def _parsed_step(line: str) -> Any:
    return trail_entry(line).model_dump(mode="json", exclude_none=True)


def _is_torn(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows writes folder entries through by itself, and cannot open a folder
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
