"""Destination `backend`: deliver the record, its files and previews to any storage backend.

Everything lands under ``{instrument}/{date}/{session}/``; ``manifest.json`` is written last, so that a folder with
one is complete. A viewer backend keeps nothing: there the session is shown, and the receipt says how much was seen.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from pydantic import Field

from labrelay.context import Artifact, ExportContext
from labrelay.errors import LabrelayError, Misconfigured, Rejected, Transient
from labrelay.results import ExportResult, Receipt
from labrelay_worker.backends.base import BackendError, Corrupt, StorageBackend, StreamingBackend, Unavailable
from labrelay_worker.backends.registry import backend_registry, get_backend_instance
from labrelay_worker.backends.streaming import ViewerBackend
from labrelay_worker.destinations.base import Destination, Options
from labrelay_worker.destinations.findings import Finding, cannot_be_asked
from labrelay_worker.destinations.images import changed, store_images
from labrelay_worker.destinations.plates import Plate, plate_of
from labrelay_worker.destinations.stored_check import compare
from labrelay_worker.reading.files import Unreadable

MANIFEST = "manifest.json"
MANIFEST_SCHEMA = "labrelay.manifest/1"
_UNSAFE = re.compile(r"[^\w.=@+-]+")
_LONGEST_NAME = 100
_MOST_REASONS = 20  # in one receipt; the manifest has them all
#: Folder of an instrument's plates, beside its days: sessions of many days fill one plate.
PLATES = "plates"


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
        cls = backend_registry().class_of(options.backend)
        self.lossy = cls is not None and issubclass(cls, StreamingBackend)

    def validate_config(self) -> tuple[bool, str | None]:
        """Return whether the backend can be made and its root is there, or can be made too."""
        try:
            if not self.lossy:
                self._backend().ensure_directory("")
            elif (viewer := self._viewer()) is not None:
                viewer.place.read()
        except (KeyError, RuntimeError, LabrelayError, BackendError) as error:
            return False, str(error)
        return True, None

    def export(self, context: ExportContext) -> ExportResult:
        """Store the record and every file, check each against what was submitted, then write the manifest."""
        if self.lossy:
            return self._show(context)
        if (earlier := self.find(context)) is not None:
            return earlier
        backend, folder = self._backend(), session_folder(context)
        plate = plate_of(context)
        entries = [self._store(backend, context.xml_file_path, folder, context.xml_file_path.name, _record(context))]
        for artifact, name in _names(context.artifacts):
            entries += self._deliver(backend, artifact, folder, name, plate)
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
        return self._result(backend, folder, entries)

    def find(self, context: ExportContext) -> ExportResult | None:
        """Return the result if this very revision is stored, whole and unchanged; a viewer is shown it again."""
        if self.lossy:
            return None
        backend, folder = self._backend(), session_folder(context)
        try:
            document = backend.load(str(folder / MANIFEST))
            if not isinstance(document, dict) or document.get("revision") != context.revision:
                return None
            if document.get("export_id") != context.export_id:
                return None
            for entry in document["files"]:
                path = str(entry.get("address") or folder / entry["path"])
                if backend.size(path) != entry["size"] or backend.sha256(path) != entry["sha256"]:
                    return None
        except (FileNotFoundError, Corrupt, KeyError, TypeError):
            return None
        except BackendError as error:
            raise _delivery_error(error) from error
        return self._result(backend, folder, document["files"])

    def check(self, context: ExportContext, receipt: Receipt) -> Finding:
        """Compare everything that is stored with the manifest, and the manifest with what was submitted."""
        if self.lossy:
            return cannot_be_asked("a viewer keeps nothing")
        backend = self._backend()
        if not backend.outlives_process:
            return cannot_be_asked("it lives in the memory of the worker that delivered, which nobody else sees")
        try:
            return compare(backend, session_folder(context), MANIFEST, context, receipt)
        except BackendError as error:
            raise _delivery_error(error) from error

    def _show(self, context: ExportContext) -> ExportResult:
        from labrelay_worker.destinations.viewing import show_session  # noqa: PLC0415  it needs numpy

        viewer, folder = self._viewer(), session_folder(context)
        if viewer is None:
            raise Misconfigured(f"backend {self._backend_name!r} can be saved to, but shows no sessions")
        showing = show_session(viewer, context, folder.name)
        if not showing.is_seen:
            raise Rejected(f"nothing was shown: {showing}")
        shown = self.succeeded(folder.name, f"viewer:{viewer.place.name}", verified=str(showing))
        return shown.model_copy(update={"metadata": shown.metadata | showing.counts()})

    def _viewer(self) -> ViewerBackend | None:
        backend = get_backend_instance(self._backend_name)
        return backend if isinstance(backend, ViewerBackend) else None

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
            raise changed(source) from None
        except FileNotFoundError:
            raise Transient(f"{source} is not there on this worker; is its share mounted?") from None
        except BackendError as error:
            raise _delivery_error(error) from error
        return {"path": name, "source": str(source), "role": expected.role, "size": size, "sha256": sha256}

    def _deliver(
        self, backend: StorageBackend, artifact: Artifact, folder: PurePosixPath, name: str, plate: Plate | None
    ) -> list[dict[str, Any]]:
        """Store a file as images where the backend takes them and the file has any, else as it is."""
        if not backend.takes_signals or artifact.role == "preview":
            return [self._store(backend, artifact.path, folder, name, artifact)]
        if artifact.sha256 is None:
            _require_fingerprint(artifact.path, artifact)
        try:
            entries = store_images(backend, artifact, name, folder, folder.parents[1] / PLATES, plate)
        except Unreadable as reason:
            return [{**self._store(backend, artifact.path, folder, name, artifact), "not_an_image": str(reason)}]
        except BackendError as error:
            raise _delivery_error(error) from error
        if backend.keeps_originals:
            entries.append(self._store(backend, artifact.path, folder, name, artifact))
        return entries

    def _result(self, backend: StorageBackend, folder: PurePosixPath, entries: list[dict[str, Any]]) -> ExportResult:
        images = [entry for entry in entries if "signal" in entry]
        files = len(entries) - len(images)
        said = f"sha256 of {files} files equal to what was submitted"
        if images:
            said += f"; {len(images)} images made of files whose sha256 is what was submitted, and read back"
        result = self.succeeded(str(folder), backend.url(str(folder)), verified=said)
        unread = {entry["path"]: entry["not_an_image"] for entry in entries if "not_an_image" in entry}
        if not backend.takes_signals:
            return result
        reasons = "; ".join(f"{path}: {reason}" for path, reason in list(unread.items())[:_MOST_REASONS])
        told = {"images": len(images), "delivered_as_bytes": len(unread), "not_an_image": reasons}
        return result.model_copy(update={"metadata": {**result.metadata, **told}})


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
    safe = part.replace("\\", "_").replace("\x00", "_")
    if safe == part:
        return part
    # Two files whose names differ only in that must not take each other's place; the suffix says what they are.
    stem, dot, suffix = safe.rpartition(".")
    key = hashlib.sha256(part.encode(errors="surrogateescape")).hexdigest()[:8]
    return f"{stem}-{key}{dot}{suffix}" if stem else f"{safe}-{key}"


def _record(context: ExportContext) -> Artifact:
    return Artifact(path=context.xml_file_path, size=context.xml_size, sha256=context.xml_sha256)


def _require_fingerprint(source: Path, expected: Artifact) -> None:
    try:
        stat = source.stat()
    except OSError as error:
        raise Transient(f"cannot read {source} on this worker ({error.strerror})") from None
    if expected.mtime_ns is not None and (stat.st_size, stat.st_mtime_ns) != (expected.size, expected.mtime_ns):
        raise changed(source)


def _delivery_error(error: BackendError) -> Transient | Rejected:
    return Transient(str(error)) if isinstance(error, Unavailable) else Rejected(str(error))
