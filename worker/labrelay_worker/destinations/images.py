"""Deliver one file of a session as images, to a backend that takes signals."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from labrelay.context import Artifact
from labrelay.errors import Rejected, Transient
from labrelay_worker.backends.base import StorageBackend
from labrelay_worker.destinations.plates import Plate
from labrelay_worker.reading.files import read_signals
from labrelay_worker.reading.signal import Signal

_UNSAFE = re.compile(r"[^\w.=@+-]+")


def store_images(
    backend: StorageBackend,
    artifact: Artifact,
    name: str,
    folder: PurePosixPath,
    plates: PurePosixPath,
    plate: Plate | None,
) -> list[dict[str, Any]]:
    """Store every signal of a file as an image; return the manifest's entries.

    Parameters
    ----------
    backend
        Takes signals.
    artifact
        The file, and what is known of its content.
    name
        Where its bytes would go in the session's folder.
    folder, plates
        The session's folder, and the folder of the instrument's plates.
    plate
        The plate that the session's images belong to, if any.

    Raises
    ------
    Unreadable
        It holds no signal that can be read; nothing was stored.
    Rejected
        It is not what was submitted.
    BackendError
        The backend could not store it; nothing of this file was stored.
    """
    source, before = artifact.path, _fingerprint(artifact.path)
    sha256 = _hash(source)
    if artifact.sha256 is not None and sha256 != artifact.sha256:
        raise changed(source)
    signals = read_signals(source)
    placed: list[tuple[Signal, str]] = []
    for number, signal in enumerate(signals):
        well = plate.place(source) if plate and signal.is_image else None
        address = (
            folder / _name(name, number, signal, many=len(signals) > 1)
            if plate is None or well is None
            else plates / f"{safe_name(plate.name)}.ome.zarr" / well.row / well.column / str(well.field)
        )
        placed.append((replace(signal, identity=f"{sha256}:{number}", well=well), str(address)))
    addresses = [address for _, address in placed]
    backend.save_batch([signal for signal, _ in placed], addresses, if_exists="replace")
    if _fingerprint(source) != before:
        raise changed(source)
    return [
        {
            "path": str(PurePosixPath(address).relative_to(folder)) if _is_below(address, folder) else address,
            "address": address,
            "source": str(source),
            "source_sha256": sha256,
            "role": artifact.role,
            "signal": number,
            "shape": list(signal.shape),
            "dtype": str(signal.data.dtype),
            "size": backend.size(address),
            "sha256": backend.sha256(address),
        }
        for number, (signal, address) in enumerate(placed)
    ]


def safe_name(text: str) -> str:
    """Return a name for a file; a changed one ends in the beginning of its hash, so that two never share one."""
    safe = _UNSAFE.sub("_", text).strip("._") or "_"
    return safe if safe == text else f"{safe[:100]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def changed(source: Path) -> Rejected:
    """Return the refusal of a file that is not what was submitted."""
    return Rejected(f"{source} changed since it was submitted; submit it again with --replace")


def _name(name: str, number: int, signal: Signal, *, many: bool) -> str:
    path = PurePosixPath(name)
    stem = f"{path.name}.{number}" if many else path.name
    suffix = ".ome.zarr" if signal.is_image else ".zarr"
    return str(PurePosixPath("images", *path.parent.parts[1:], stem + suffix))


def _is_below(address: str, folder: PurePosixPath) -> bool:
    return PurePosixPath(address).is_relative_to(folder)


def _fingerprint(source: Path) -> tuple[int, int]:
    try:
        stat = source.stat()
    except OSError as error:
        raise Transient(f"cannot read {source} on this worker ({error.strerror})") from None
    return stat.st_size, stat.st_mtime_ns


def _hash(source: Path) -> str:
    try:
        with source.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise Transient(f"cannot read {source} on this worker ({error.strerror})") from None
