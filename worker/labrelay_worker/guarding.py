"""What a worker refuses to touch: files outside ``data_roots`` and records that changed since submit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from labrelay.context import ExportContext
from labrelay.errors import Rejected, Transient
from labrelay.manifest import is_under


def require_unchanged(context: ExportContext, data_roots: tuple[Path, ...]) -> None:
    """Check that every named file may be opened and that the record is the one that was submitted.

    Raises
    ------
    Rejected
        A file lies outside ``data_roots``, or the record has other content by now.
    Transient
        The record cannot be read on this worker at the moment.
    """
    for path in _paths(context) if data_roots else ():
        if not is_under(path, data_roots):
            raise Rejected(f"{path} lies outside data_roots; add its folder to LABRELAY_DATA_ROOTS on the workers")
    if context.xml_sha256 is None:
        return
    try:
        with context.xml_file_path.open("rb") as record:
            found = hashlib.file_digest(record, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Transient(
            f"cannot read {context.xml_file_path} on this worker ({reason}); is its share mounted here?"
        ) from None
    if found != context.xml_sha256:
        raise Rejected(f"{context.xml_file_path} changed since it was submitted; submit it again with --replace")


def _paths(context: ExportContext) -> Iterable[Path]:
    yield context.xml_file_path
    for artifact in context.artifacts:
        yield artifact.path
    for activity in context.activities:
        yield from map(Path, activity.files)
        yield from (preview for preview in activity.previews if preview is not None)
