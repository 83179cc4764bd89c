"""Size and sha256 of the record and its files, and whether any of them is still being written."""

from __future__ import annotations

import hashlib
import mimetypes
import os
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath, PureWindowsPath
from typing import Literal

from labrelay.context import Activity, Artifact, ExportContext
from labrelay.digests import digest
from labrelay.errors import InvalidInput, StillBeingWritten
from labrelay.settings import ProducerSettings

#: Bytes up to which a file is read in one piece to hash it, at a third of the cost of reading it piece by piece.
_READ_WHOLE = 2**20
#: Windows would translate line ends otherwise.
_READ_ONLY = os.O_RDONLY | getattr(os, "O_BINARY", 0)


@dataclass(frozen=True)
class Manifest:
    """A context completed with sizes and hashes, its digest, and what the submitter should know."""

    context: ExportContext
    digest: str
    warnings: tuple[str, ...]
    #: The wire form of the context.
    text: str


@dataclass(frozen=True)
class _Named:
    field: str
    path: Path
    role: Literal["raw", "preview", "derived"]


def make_manifest(context: ExportContext, settings: ProducerSettings) -> Manifest:
    """Look at every file of a context, and return the context as the workers will see it.

    Files over ``hash_limit`` are fingerprinted by size and modification time; they are hashed when delivered
    (DESIGN section 5). Paths are mapped last, so that the producer opens its own spelling.

    Raises
    ------
    InvalidInput
        A file is missing, not a file, unreadable or outside ``data_roots``.
    StillBeingWritten
        Size or modification time of a file moved while it was looked at.
    """
    warnings: list[str] = []
    left_out: set[Path] = set()
    files: list[_Named] = []
    for named in _named_files(context):
        if named.role == "preview" and not named.path.is_file():
            warnings.append(f"{named.field}: preview {named.path} does not exist and is left out")
            left_out.add(named.path)
            continue
        files.append(named)
    record = _Named("xml_file_path", context.xml_file_path, "raw")
    for named in [record, *files]:
        _refuse_outside(named, settings.data_roots)
    of_record, *of_files = _stat_settled([record, *files], settings.settle_seconds)
    described = {artifact.path: artifact for artifact in context.artifacts}
    artifacts = tuple(
        _artifact(
            named,
            described.get(named.path, Artifact(path=named.path)),
            seen,
            _sha256(named, seen) if seen.st_size <= settings.hash_limit else None,
            settings.path_map,
        )
        for named, seen in zip(files, of_files, strict=True)
    )
    completed = context.with_fields(
        xml_file_path=map_path(record.path, settings.path_map),
        xml_size=of_record.st_size,
        xml_sha256=_sha256(record, of_record),
        artifacts=artifacts,
        activities=tuple(_map_activity(a, settings.path_map, left_out) for a in context.activities),
    )
    return Manifest(completed, digest(completed), tuple(warnings), completed.to_json())


def paths_of(context: ExportContext) -> list[Path]:
    """Return the record and every file that a context names, each once, as the producer spells them."""
    return [context.xml_file_path, *(named.path for named in _named_files(context))]


def map_path(path: Path, path_map: dict[str, str]) -> Path:
    """Return the path as the workers see it: the longest matching prefix wins; drive letters and UNC count.

    Examples
    --------
    >>> str(map_path(Path("/mnt/titan/a.dm3"), {"/mnt/titan": "/srv/titan"}))
    '/srv/titan/a.dm3'
    """
    mapped = _mapped_text(str(path), path_map) if path_map else None
    return path if mapped is None else Path(mapped)


def _mapped_text(text: str, path_map: dict[str, str]) -> str | None:
    for prefix in sorted(path_map, key=len, reverse=True):
        windows = "\\" in prefix or prefix[1:2] == ":" or prefix.startswith("//")
        flavour: type[PurePath] = PureWindowsPath if windows else type(PurePath(text))
        # "Z:" alone would be the drive without its root.
        base = flavour(f"{prefix}\\" if windows and prefix.endswith(":") else prefix)
        try:
            rest = flavour(text).relative_to(base)
        except ValueError:
            continue
        return "/".join([path_map[prefix].rstrip("/"), *rest.parts])
    return None


def _map_activity(activity: Activity, path_map: dict[str, str], left_out: set[Path]) -> Activity:
    if not path_map and left_out.isdisjoint(activity.previews):
        return activity
    return activity.model_copy(
        update={
            "files": tuple(_mapped_text(f, path_map) or f for f in activity.files),
            "previews": tuple(
                None if p is None or p in left_out else map_path(p, path_map) for p in activity.previews
            ),
        }
    )


def _named_files(context: ExportContext) -> Iterable[_Named]:
    seen: set[Path] = set()
    for index, artifact in enumerate(context.artifacts):
        if artifact.path not in seen:
            seen.add(artifact.path)
            yield _Named(f"artifacts[{index}].path", artifact.path, artifact.role)
    for number, activity in enumerate(context.activities):
        for index, file in enumerate(activity.files):
            if Path(file) not in seen:  # a file of several signals is listed once per signal
                seen.add(Path(file))
                yield _Named(f"activities[{number}].files[{index}]", Path(file), "raw")
        for index, preview in enumerate(activity.previews):
            if preview is not None and preview not in seen:
                seen.add(preview)
                yield _Named(f"activities[{number}].previews[{index}]", preview, "preview")


def _artifact(
    named: _Named, described: Artifact, seen: os.stat_result, sha256: str | None, path_map: dict[str, str]
) -> Artifact:
    """Return one file as the workers will see it, with what the submitter says of it kept."""
    if described.sha256 is not None and sha256 not in (None, described.sha256):
        raise InvalidInput(
            named.field, f"{named.path} is not the file with the sha256 given", "Correct it or leave sha256 out"
        )
    return Artifact(
        path=map_path(named.path, path_map),
        role=named.role,
        media_type=described.media_type or mimetypes.guess_type(named.path.name)[0],
        size=seen.st_size,
        sha256=sha256 or described.sha256,
        mtime_ns=None if sha256 else seen.st_mtime_ns,
        backend=described.backend,
    )


def _refuse_outside(named: _Named, roots: tuple[Path, ...]) -> None:
    if not named.path.is_absolute():
        raise InvalidInput(named.field, f"{named.path} is not absolute", "Give --root, or absolute paths")
    if roots and not is_under(named.path, roots):
        listed = ", ".join(map(str, roots))
        raise InvalidInput(
            named.field,
            f"{named.path} lies outside data_roots ({listed})",
            "Move it there or extend LABRELAY_DATA_ROOTS",
        )


def is_under(path: Path, roots: Iterable[Path]) -> bool:
    """Return whether a path lies under one of the roots once symbolic links are followed."""
    try:
        real = path.resolve()
    except (OSError, RuntimeError, ValueError):  # a circle of links or a null byte lies nowhere
        return False
    return any(real.is_relative_to(root.resolve()) for root in roots)


def _stat_settled(files: list[_Named], settle_seconds: float) -> list[os.stat_result]:
    first = [_stat(named) for named in files]
    newest = max(seen.st_mtime for seen in first)
    fresh_for = settle_seconds - (time.time() - newest)
    if fresh_for <= 0:
        return first
    time.sleep(min(fresh_for, settle_seconds))
    for named, seen in zip(files, first, strict=True):
        _refuse_moved(named, seen, _stat(named))
    return first


def _stat(named: _Named) -> os.stat_result:
    try:
        found = named.path.stat()
    except FileNotFoundError:
        raise InvalidInput(
            named.field, f"no such file {named.path}", "Correct the path, --root or path_map"
        ) from None
    except (OSError, ValueError) as error:  # a null byte in a path is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise InvalidInput(named.field, f"{str(named.path)!r}: {reason}", "Make it readable") from None
    if not stat.S_ISREG(found.st_mode):
        raise InvalidInput(named.field, f"{named.path} is not a file", "Name a file")
    return found


def _refuse_moved(named: _Named, before: os.stat_result, after: os.stat_result) -> None:
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise StillBeingWritten(
            named.field, f"{named.path} is still being written", "Submit again when the instrument has finished"
        )


def _sha256(named: _Named, before: os.stat_result) -> str:
    try:
        if before.st_size <= _READ_WHOLE:
            result = hashlib.sha256(_read(named.path, before.st_size)).hexdigest()
        else:
            with named.path.open("rb", buffering=0) as file:  # `file_digest` has a buffer of its own
                result = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InvalidInput(named.field, f"{named.path}: {error.strerror}", "Make it readable") from None
    _refuse_moved(named, before, _stat(named))
    return result


def _read(path: Path, size: int) -> bytes:
    """Return a small file's content; a file object would cost three times as much."""
    descriptor = os.open(path, _READ_ONLY)
    try:
        return b"".join(iter(lambda: os.read(descriptor, size + 1), b""))
    finally:
        os.close(descriptor)
