"""Destination `backend`: deliver the record, its files and previews to any storage backend.

Everything lands under ``{instrument}/{date}/{session}/``; ``manifest.json`` is written last, so that a folder with
one is complete.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from pydantic import Field

from labrelay.context import Artifact, ExportContext
from labrelay.errors import Misconfigured, Rejected, Transient
from labrelay.results import ExportResult
from labrelay_worker.backends.base import BackendError, Corrupt, StorageBackend, Unavailable
from labrelay_worker.backends.registry import get_backend_instance
from labrelay_worker.destinations.base import Destination, Options

MANIFEST = "manifest.json"
MANIFEST_SCHEMA = "labrelay.manifest/1"
_UNSAFE = re.compile(r"[^\w.=@+-]+")
_LONGEST_NAME = 100


class BackendOptions(Options):
    """Options of ``type = "backend"``."""

    backend: str = Field(description="name of a backend type or of a [backends.NAME] table")


class BackendDestination(Destination):
    """Delivers to a backend. Sending twice makes one object: names are fixed and writes are whole."""

    name = "backend"
    priority = 20
    idempotent = True
    Options: ClassVar[type[Options]] = BackendOptions

    def __init__(self, name: str, options: BackendOptions) -> None:
        super().__init__(name, options)
        self._backend_name = options.backend

    def validate_config(self) -> tuple[bool, str | None]:
        """Return whether the backend can be made."""
        try:
            self._backend()
        except (KeyError, RuntimeError, Misconfigured) as error:
            return False, str(error)
        return True, None

    def export(self, context: ExportContext) -> ExportResult:
        """Store the record and every file, check each against what was submitted, then write the manifest."""
        backend, folder = self._backend(), session_folder(context)
        entries = [self._store(backend, context.xml_file_path, folder, context.xml_file_path.name, _record(context))]
        for artifact, name in _names(context.artifacts):
            entries.append(self._store(backend, artifact.path, folder, name, artifact))
        document = {
            "schema": MANIFEST_SCHEMA,
            "export_id": context.export_id,
            "revision": context.revision,
            "session_identifier": context.session_identifier,
            "instrument_pid": context.instrument_pid,
            "files": entries,
        }
        try:
            backend.save(document, str(folder / MANIFEST), if_exists="replace")
        except BackendError as error:
            raise _delivery_error(error) from error
        return self._result(backend, folder, len(entries))

    def find(self, context: ExportContext) -> ExportResult | None:
        """Return the result if this very revision is stored, whole and unchanged."""
        backend, folder = self._backend(), session_folder(context)
        try:
            document = backend.load(str(folder / MANIFEST))
            if not isinstance(document, dict) or document.get("revision") != context.revision:
                return None
            if document.get("export_id") != context.export_id:
                return None
            for entry in document["files"]:
                path = str(folder / entry["path"])
                if backend.size(path) != entry["size"] or backend.sha256(path) != entry["sha256"]:
                    return None
        except (FileNotFoundError, Corrupt, KeyError, TypeError):
            return None
        except BackendError as error:
            raise _delivery_error(error) from error
        return self._result(backend, folder, len(document["files"]))

    def _backend(self) -> StorageBackend:
        backend = get_backend_instance(self._backend_name)
        if not isinstance(backend, StorageBackend):
            raise Misconfigured(f"backend {self._backend_name!r} stores nothing, so it cannot hold a record")
        return backend

    def _store(
        self, backend: StorageBackend, source: Path, folder: PurePosixPath, name: str, expected: Artifact
    ) -> dict[str, Any]:
        if expected.sha256 is None:
            _require_fingerprint(source, expected)
        try:
            size, sha256 = backend.save_file(source, str(folder / name), sha256=expected.sha256, if_exists="replace")
        except Corrupt:
            raise Rejected(f"{source} changed since it was submitted; submit it again with --replace") from None
        except FileNotFoundError:
            raise Transient(f"{source} is not there on this worker; is its share mounted?") from None
        except BackendError as error:
            raise _delivery_error(error) from error
        return {"path": name, "source": str(source), "role": expected.role, "size": size, "sha256": sha256}

    def _result(self, backend: StorageBackend, folder: PurePosixPath, files: int) -> ExportResult:
        return self.succeeded(
            str(folder), backend.url(str(folder)), verified=f"sha256 of {files} files equal to what was submitted"
        )


def session_folder(context: ExportContext) -> PurePosixPath:
    """Return ``{instrument}/{date}/{session}`` as safe names; a changed name ends in the export id's beginning."""
    date = context.dt_from.date().isoformat()
    return PurePosixPath(_safe(context.instrument_pid, context), date, _safe(context.session_identifier, context))


def _safe(text: str, context: ExportContext) -> str:
    safe = _UNSAFE.sub("_", text).strip("._") or "_"
    if safe == text and len(safe) <= _LONGEST_NAME:
        return safe
    # Two sessions whose names differ only in replaced characters must not share a folder.
    return f"{safe[:_LONGEST_NAME]}-{context.export_id[:8]}"


def _names(artifacts: Iterable[Artifact]) -> list[tuple[Artifact, str]]:
    """Name each artifact below its role's folder, keeping the tree below what the files have in common."""
    result: list[tuple[Artifact, str]] = []
    for role, folder in (("raw", "files"), ("derived", "derived"), ("preview", "previews")):
        chosen = [artifact for artifact in artifacts if artifact.role == role]
        if not chosen:
            continue
        common = os.path.commonpath([artifact.path.parent for artifact in chosen])
        for artifact in chosen:
            parts = [_safe_part(part) for part in artifact.path.relative_to(common).parts]
            result.append((artifact, "/".join([folder, *parts])))
    return result


def _safe_part(part: str) -> str:
    return part.replace("\\", "_").replace("\x00", "_")


def _record(context: ExportContext) -> Artifact:
    return Artifact(path=context.xml_file_path, size=context.xml_size, sha256=context.xml_sha256)


def _require_fingerprint(source: Path, expected: Artifact) -> None:
    try:
        stat = source.stat()
    except OSError as error:
        raise Transient(f"cannot read {source} on this worker ({error.strerror})") from None
    if expected.mtime_ns is not None and (stat.st_size, stat.st_mtime_ns) != (expected.size, expected.mtime_ns):
        raise Rejected(f"{source} changed since it was submitted; submit it again with --replace")


def _delivery_error(error: BackendError) -> Transient | Rejected:
    return Transient(str(error)) if isinstance(error, Unavailable) else Rejected(str(error))
