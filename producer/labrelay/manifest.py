"""Size and sha256 of the record and its files, and whether any of them is still being written."""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Iterable
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any, NamedTuple

from labrelay.context import Activity, Artifact, ExportContext
from labrelay.digests import Content
from labrelay.errors import InvalidInput
from labrelay.hashing import Hashes, NamedFile, stat_settled
from labrelay.settings import ProducerSettings


class Manifest(NamedTuple):
    """A context completed with sizes and hashes, and what the submitter should know."""

    context: ExportContext
    warnings: tuple[str, ...]
    content: Content
    #: The wire form of the context.
    text: str

    @property
    def digest(self) -> str:
        """The digest of the context."""
        return self.content.digest()


def make_manifest(context: ExportContext, settings: ProducerSettings, hashes: Hashes | None = None) -> Manifest:
    """Look at every file of a context, and return the context as the workers will see it.

    Files over ``hash_limit`` are fingerprinted by size and modification time; they are hashed when delivered
    (DESIGN section 5). Paths are mapped last, so that the producer opens its own spelling.

    Parameters
    ----------
    context, settings
        What is submitted, and how.
    hashes
        Those of files that other contexts of this submit named.

    Raises
    ------
    InvalidInput
        A file is missing, not a file, unreadable or outside ``data_roots``; or there is no JSON for the metadata.
    StillBeingWritten
        Size or modification time of a file moved while it was looked at.
    """
    hashes = hashes or Hashes()
    files, left_out, warnings = _present_files(context)
    record = NamedFile("xml_file_path", context.xml_file_path, "raw")
    for named in (record, *files):
        _refuse_outside(named, settings.data_roots)
    of_record, *of_files = stat_settled([record, *files], settings.settle_seconds)
    changed: dict[str, Any] = {
        "xml_file_path": map_path(record.path, settings.path_map),
        "xml_size": of_record.st_size,
        "xml_sha256": hashes.of(record, of_record),
    }
    if files or context.artifacts:
        described = {artifact.path: artifact for artifact in context.artifacts}
        changed["artifacts"] = tuple(
            _artifact(
                named,
                described.get(named.path, Artifact(path=named.path)),
                seen,
                hashes.of(named, seen) if seen.st_size <= settings.hash_limit else None,
                settings.path_map,
            )
            for named, seen in zip(files, of_files, strict=True)
        )
    if context.activities:
        changed["activities"] = tuple(_map_activity(a, settings.path_map, left_out) for a in context.activities)
    completed = context.with_fields(**changed)
    content = Content(completed)
    return Manifest(completed, tuple(warnings), content, content.wire_form())


def _present_files(context: ExportContext) -> tuple[list[NamedFile], set[Path], list[str]]:
    """Return the files beside the record, the previews that are not there, and a warning for each of these."""
    files, left_out, warnings = list[NamedFile](), set[Path](), list[str]()
    if not context.artifacts and not context.activities:
        return files, left_out, warnings
    for named in _named_files(context):
        if named.role == "preview" and _is_missing(named.path):
            warnings.append(f"{named.field}: preview {named.path} does not exist and is left out")
            left_out.add(named.path)
        else:
            files.append(named)
    return files, left_out, warnings


def _is_missing(path: Path) -> bool:
    try:
        return not path.is_file()
    except OSError:  # a folder that may not be entered, a name too long: `stat_settled` says what is wrong with it
        return False


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


def _named_files(context: ExportContext) -> Iterable[NamedFile]:
    seen: set[Path] = set()
    for index, artifact in enumerate(context.artifacts):
        if artifact.path not in seen:
            seen.add(artifact.path)
            yield NamedFile(f"artifacts[{index}].path", artifact.path, artifact.role)
    for number, activity in enumerate(context.activities):
        for index, file in enumerate(activity.files):
            if Path(file) not in seen:  # a file of several signals is listed once per signal
                seen.add(Path(file))
                yield NamedFile(f"activities[{number}].files[{index}]", Path(file), "raw")
        for index, preview in enumerate(activity.previews):
            if preview is not None and preview not in seen:
                seen.add(preview)
                yield NamedFile(f"activities[{number}].previews[{index}]", preview, "preview")


def _artifact(
    named: NamedFile, described: Artifact, seen: os.stat_result, sha256: str | None, path_map: dict[str, str]
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


def _refuse_outside(named: NamedFile, roots: tuple[Path, ...]) -> None:
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
