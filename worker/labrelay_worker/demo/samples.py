"""Makes sample sessions to look at and to try labrelay with: records, instrument files, previews, contexts."""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from labrelay_worker.demo.image_files import write_mrc, write_preview, write_tiff
from labrelay_worker.demo.micrographs import Micrograph, diffraction_rings, lattice_fringes, nanoparticles
from labrelay_worker.demo.scenes import Session, Shot, Subject, sample_sessions
from labrelay_worker.demo.session_record import session_record


def make_samples(folder: Path, *, sessions: int = 2, seed: int = 1) -> list[Path]:
    """Write sample sessions and return their records, in order.

    The layout is that of an instrument pipeline: ``records/*.xml``, ``instrument/`` (the root of the locations in
    the records), ``nexus/`` (the root of their previews) and ``contexts/*.json``, ready-made export contexts of
    the same stem with paths relative to the folder.

    Parameters
    ----------
    folder
        Where they go; what is there under the same names is replaced.
    sessions
        How many.
    seed
        The same seed gives the same bytes.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     [record.name for record in make_samples(Path(folder), sessions=1)]
    ['2025-03-03_FEI-Titan-TEM-012345_1001.xml']
    """
    return [_make_session(folder, session, seed) for session in sample_sessions(sessions)]


def _make_session(folder: Path, session: Session, seed: int) -> Path:
    instrument, previews = folder / "instrument" / session.folder, folder / "nexus" / session.folder
    record = folder / "records" / f"{session.stem}.xml"
    context = folder / "contexts" / f"{session.stem}.json"
    for made in (instrument, previews, record.parent, context.parent):
        made.mkdir(parents=True, exist_ok=True)
    shots = [shot for shots in session.scene.activities for shot in shots]
    for index, shot in enumerate(shots):
        taken = session.start + timedelta(minutes=shot.minute)
        signals = _expose(shot, (seed, session.number, index))
        _write_raw(instrument / shot.file_name, shot, signals)
        _date(instrument / shot.file_name, taken)
        for name, image in zip(shot.previews, signals.values(), strict=True):
            write_preview(previews / name, image)
            _date(previews / name, taken)
    record.write_bytes(session_record(session))
    text = json.dumps(_context(session), ensure_ascii=False, indent=1)
    context.write_bytes(f"{text}\n".encode())
    for written in (record, context):
        _date(written, session.end)
    return record


def _expose(shot: Shot, seed: tuple[int, ...]) -> dict[str, Micrograph]:
    """Return the image of each signal; all of them see the same field of view."""
    return {signal: _take(shot, signal, np.random.default_rng(seed)) for signal in shot.signals}


def _take(shot: Shot, signal: str, rng: np.random.Generator) -> Micrograph:
    if shot.subject is Subject.LATTICE:
        return lattice_fringes(rng, pixel_nm=shot.pixel)
    if shot.subject is Subject.RINGS:
        return diffraction_rings(rng, pixels_per_reciprocal_nm=1 / shot.pixel)
    return nanoparticles(rng, bright=signal == "HAADF")


def _write_raw(path: Path, shot: Shot, signals: dict[str, Micrograph]) -> None:
    if path.suffix == ".mrc":
        write_mrc(path, signals[shot.signals[0]], pixel_nm=shot.pixel)
    else:
        write_tiff(path, signals, pixel_nm=shot.pixel)


def _date(path: Path, when: datetime) -> None:
    """Give a file the time of its session: a fresh one would look as if it were still being written."""
    os.utime(path, (when.timestamp(), when.timestamp()))


def _context(session: Session) -> dict[str, Any]:
    scene = session.scene
    return {
        "xml_file_path": f"records/{session.stem}.xml",
        "session_identifier": session.identifier,
        "instrument_pid": scene.instrument_pid,
        "dt_from": session.start.isoformat(),
        "dt_to": session.end.isoformat(),
        "user": scene.username,
        "activities": [_activity(session, shots) for shots in scene.activities],
        "reservation_event": {
            "username": scene.username,
            "user_full_name": scene.full_name,
            "experiment_title": scene.title,
            "experiment_purpose": scene.motivation,
            "internal_id": str(session.number),
        },
    }


def _activity(session: Session, shots: tuple[Shot, ...]) -> dict[str, Any]:
    return {
        "start": (session.start + timedelta(minutes=shots[0].minute)).isoformat(),
        "files": [f"instrument/{session.folder}/{shot.file_name}" for shot in shots for _ in shot.signals],
        "previews": [f"nexus/{session.folder}/{preview}" for shot in shots for preview in shot.previews],
    }
