"""Experiments and uploads as eLabFTW describes them, read into types."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labrelay.errors import Transient

JsonObject = dict[str, Any]

#: States of entries and uploads.
NORMAL, ARCHIVED, DELETED = 1, 2, 3


@dataclass(frozen=True)
class Attachment:
    """A file as it should be attached."""

    path: Path
    name: str
    size: int
    sha256: str
    comment: str


@dataclass(frozen=True)
class Upload:
    """A file as it is attached; the server hashes nothing of 100,000,000 bytes or more."""

    id: str
    name: str
    size: int
    sha256: str | None
    comment: str

    def holds(self, file: Attachment) -> bool:
        """Return whether it is this very file; without a hash of the server, the comment names what was sent."""
        same_content = self.sha256 == file.sha256 if self.sha256 else self.comment == file.comment
        return self.name == file.name and self.size == file.size and same_content


@dataclass(frozen=True)
class Entry:
    """An experiment as the server has it; a search gives it without its uploads."""

    id: str
    state: int
    locked: bool
    team: int | None
    body: str
    tags: tuple[str, ...]
    metadata: JsonObject
    uploads: tuple[Upload, ...] = ()


def read_entry(row: Any) -> Entry:
    """Return an experiment from the JSON of an answer.

    Raises
    ------
    Transient
        It is described in a way that is not understood.
    """
    try:
        return Entry(
            id=str(int(row["id"])),
            state=int(row.get("state") or NORMAL),
            locked=bool(row.get("locked")),
            team=None if row.get("team") is None else int(row["team"]),
            body=str(row.get("body") or ""),
            tags=tuple(str(row.get("tags") or "").split("|")) if row.get("tags") else (),
            metadata=_metadata(row.get("metadata")),
            uploads=_uploads(row.get("uploads") or ()),
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        raise Transient("eLabFTW described an experiment in a way that is not understood") from None


def _metadata(value: object) -> JsonObject:
    """Return the metadata, which is text in most answers; what is no object counts as none."""
    try:
        decoded = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return {}
    return decoded if isinstance(decoded, dict) else {}


def _uploads(rows: Iterable[Mapping[str, Any]]) -> tuple[Upload, ...]:
    """Return the normal ones, oldest first, so that every worker takes the same of two equal ones."""
    normal = [_upload(row) for row in rows if row.get("state", NORMAL) == NORMAL]
    return tuple(sorted(normal, key=lambda upload: int(upload.id)))


def _upload(row: Mapping[str, Any]) -> Upload:
    hashed = row.get("hash") and row.get("hash_algorithm") == "sha256"
    return Upload(
        id=str(int(row["id"])),
        name=str(row["real_name"]),
        size=int(row["filesize"]),
        sha256=str(row["hash"]) if hashed else None,
        comment=str(row.get("comment") or ""),
    )
