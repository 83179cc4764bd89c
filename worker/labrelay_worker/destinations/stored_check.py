"""Compare what a backend holds of a session with what was delivered; reads, and writes nothing.

The manifest that was written last names every file with its sha256, so the session's own files are not needed:
they may have left the instrument's disk long ago.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from labrelay.context import ExportContext
from labrelay.results import Receipt
from labrelay_worker.backends.base import BackendError, Corrupt, StorageBackend, Unavailable
from labrelay_worker.destinations.findings import Finding, differs, equal, missing

_MOST_NAMED = 3


def compare(
    backend: StorageBackend, folder: PurePosixPath, manifest: str, context: ExportContext, receipt: Receipt
) -> Finding:
    """Return how a session stands.

    Parameters
    ----------
    backend
        Where it was delivered to.
    folder, manifest
        The session's folder there, and the name of its manifest.
    context, receipt
        What was submitted, and the proof of its delivery.

    Raises
    ------
    labrelay_worker.backends.base.Unavailable
        The backend cannot be read at the moment.
    """
    address = str(folder / manifest)
    try:
        document = backend.load(address)
    except FileNotFoundError:
        rooted = backend.is_dir(".")
        return missing(f"{address} is not there" + ("" if rooted else ", nor its root folder: is it mounted?"))
    except Corrupt as error:
        return differs(f"{address} cannot be read: {error}")
    if trouble := _not_of(document, context, receipt):
        return differs(f"{address} {trouble}")
    entries: list[Mapping[str, Any]] = document["files"]
    absent, changed = _look_at(backend, folder, entries)
    if len(absent) == len(entries):
        return missing(f"only the manifest is left; gone: {_some(absent)}")
    if absent or changed:
        parts = [(absent, "gone"), (changed, "changed")]
        return differs("; ".join(f"{word}: {_some(names)}" for names, word in parts if names))
    return equal(f"sha256 of {len(entries)} files as delivered")


def _not_of(document: Any, context: ExportContext, receipt: Receipt) -> str:
    """Return why a manifest is not the one that was written for this delivery; empty: it is."""
    entries = _entries(document)
    if entries is None:
        return "is no manifest of labrelay"
    if document.get("export_id") != context.export_id:
        return f"is of another export, {document.get('export_id')}"
    if document.get("revision") != context.revision:
        return f"is of revision {document.get('revision')}, not {context.revision}"
    strange = _unlike_submitted(entries, context, receipt)
    return f"itself was changed: {_some(strange)}" if strange else ""


def _entries(document: Any) -> list[Mapping[str, Any]] | None:
    """Return a manifest's entries, None if it is not one."""
    files = document.get("files") if isinstance(document, dict) else None
    if not isinstance(files, list) or not files:
        return None
    known = (isinstance(entry, dict) and {"path", "size", "sha256"} <= entry.keys() for entry in files)
    return files if all(known) else None


def _unlike_submitted(entries: Sequence[Mapping[str, Any]], context: ExportContext, receipt: Receipt) -> list[str]:
    """Return what the manifest names with another checksum than the ledger knows, or does not name at all."""
    named = {str(e.get("source")): str(e.get("source_sha256") or e["sha256"]) for e in entries}
    known = {artifact.path: artifact.sha256 for artifact in context.artifacts}
    known[context.xml_file_path] = receipt.sha256 or context.xml_sha256
    return [
        path.name
        for path, sha256 in known.items()
        if str(path) not in named or (sha256 is not None and named[str(path)] != sha256)
    ]


def _look_at(
    backend: StorageBackend, folder: PurePosixPath, entries: Sequence[Mapping[str, Any]]
) -> tuple[list[str], list[str]]:
    """Return the files that are not there, and those that are not what the manifest says."""
    absent, changed = [], []
    for entry in entries:
        path = str(entry.get("address") or folder / str(entry["path"]))
        try:
            same = backend.size(path) == entry["size"] and backend.sha256(path) == entry["sha256"]
        except FileNotFoundError:
            absent.append(str(entry["path"]))
        except Unavailable:
            raise
        except BackendError as error:
            changed.append(f"{entry['path']} ({error})")
        else:
            if not same:
                changed.append(str(entry["path"]))
    return absent, changed


def _some(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
