"""Read contexts from what people have: a JSON file, JSON Lines, a Nexus record, or standard input."""

from __future__ import annotations

import codecs
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from labrelay.context import Activity, ExportContext
from labrelay.errors import InvalidInput


def read_contexts(file: str, *, root: Path | None, session: str | None = None, limit: int) -> Iterator[ExportContext]:
    """Yield every context of a file, its relative paths resolved against a root.

    Parameters
    ----------
    file
        Path of a context (JSON), of several (one a line) or of a Nexus record (XML); ``-``: standard input.
    root
        Folder that relative paths start from. For a record, its ``instrument`` and ``nexus`` folders, where
        they exist, are the roots of files and previews.
    session
        Session identifier for a record; default: its file stem.
    limit
        Largest context, bytes.

    Raises
    ------
    InvalidInput
        Names the file, the line or the field, and the cure.
    """
    if file == "-":
        yield from _from_json(sys.stdin.buffer, "standard input", root, limit)
        return
    path = Path(file)
    if path.suffix.lower() == ".xml":
        yield _from_record(path, root, session)
        return
    try:
        if path.is_dir():
            raise InvalidInput(file, "is a folder", "Name a context (.json, .jsonl) or a record (.xml)")
        stream = path.open("rb")
    except FileNotFoundError:
        raise InvalidInput(file, "no such file", "Correct the path") from None
    except OSError as error:
        raise InvalidInput(
            file, f"cannot be read ({error.strerror})", "Correct the path or make it readable"
        ) from None
    with stream:
        yield from _from_json(stream, file, root, limit)


def _from_record(path: Path, root: Path | None, session: str | None) -> ExportContext:
    instrument = preview = root
    if root is not None:
        instrument = root / "instrument" if (root / "instrument").is_dir() else root
        preview = root / "nexus" if (root / "nexus").is_dir() else None
    return ExportContext.from_nexus_record(
        path, session_identifier=session, instrument_root=instrument, preview_root=preview
    )


def _from_json(stream: IO[bytes], source: str, root: Path | None, limit: int) -> Iterator[ExportContext]:
    first, number = _line(stream, source, limit).removeprefix(codecs.BOM_UTF8), 1
    while first and not first.strip():
        first, number = _line(stream, source, limit), number + 1
    if not first:
        raise InvalidInput(source, "is empty", "Give one JSON object, or one per line")
    if not _is_object(first):
        rest = stream.read(limit + 1)
        _refuse_large(len(first) + len(rest), source, limit)
        yield _resolved(ExportContext.parse(first + rest, source=source), root)
        return
    while first:
        if first.strip():
            yield _resolved(ExportContext.parse(first, source=f"{source}, line {number}"), root)
        first, number = _line(stream, source, limit), number + 1


def _line(stream: IO[bytes], source: str, limit: int) -> bytes:
    line = stream.readline(limit + 1)
    _refuse_large(len(line), source, limit)
    return line


def _refuse_large(size: int, source: str, limit: int) -> None:
    if size > limit:
        raise InvalidInput(
            source,
            f"a context is larger than {limit / 2**20:g} MiB",
            "Keep data in files and name them, or raise LABRELAY_MAX_CONTEXT_BYTES",
        )


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _resolved(context: ExportContext, root: Path | None) -> ExportContext:
    base = (root or Path()).absolute()

    def activity(item: Activity) -> Activity:
        return item.model_copy(
            update={
                "files": tuple(str(base / file) for file in item.files),
                "previews": tuple(preview and base / preview for preview in item.previews),
            }
        )

    return context.model_copy(
        update={
            "xml_file_path": base / context.xml_file_path,
            "activities": tuple(map(activity, context.activities)),
            "artifacts": tuple(a.model_copy(update={"path": base / a.path}) for a in context.artifacts),
        }
    )
