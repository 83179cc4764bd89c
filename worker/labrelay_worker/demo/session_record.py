"""Writes the Nexus record of a sample session, as NexusLIMS would."""

from __future__ import annotations

import uuid
from datetime import timedelta
from urllib.parse import quote
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from labrelay.nexus_xml import NAMESPACE
from labrelay_worker.demo.scenes import Session, Shot, Subject


def session_record(session: Session) -> bytes:
    """Return the record, valid against the Nexus experiment schema, with the line ends of its instrument PC."""
    scene = session.scene
    root = Element("Experiment", {"xmlns": NAMESPACE})
    _add(root, "title", scene.title)
    summary = SubElement(root, "summary", {"ref": session.identifier})
    _add(summary, "experimenter", scene.full_name)
    _add(summary, "instrument", scene.instrument, pid=scene.instrument_pid)
    _add(summary, "reservationStart", session.start.isoformat())
    _add(summary, "reservationEnd", session.end.isoformat())
    _add(summary, "motivation", scene.motivation)
    sample_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{session.identifier}#sample"))
    sample = SubElement(root, "sample", {"ref": f"sample-{session.number}", "id": sample_id})
    _add(sample, "name", scene.sample)
    _add(sample, "description", scene.sample_description)
    project = SubElement(root, "project")
    _add(project, "name", scene.project)
    _add(project, "project_id", f"project-{scene.folder.lower()}")
    for number, shots in enumerate(scene.activities):
        _add_activity(root, session, number, shots, sample_id)
    indent(root)
    text: str = tostring(root, encoding="unicode")
    document = f"<?xml version='1.0' encoding='UTF-8'?>\n{text}\n"
    return document.replace("\n", scene.line_end).encode()


def _add_activity(root: Element, session: Session, number: int, shots: tuple[Shot, ...], sample_id: str) -> None:
    activity = SubElement(root, "acquisitionActivity", {"seqno": str(number)})
    _add(activity, "startTime", (session.start + timedelta(minutes=shots[0].minute)).isoformat())
    _add(activity, "sampleID", sample_id)
    setup = SubElement(activity, "setup")
    for name, value, unit in session.scene.setup:
        _add(setup, "param", value, name=name, **({"unit": unit} if unit else {}))
    for shot in shots:
        for signal, preview in zip(shot.signals, shot.previews, strict=True):
            kind, scale = ("Diffraction", "1/nm") if shot.subject is Subject.RINGS else ("Image", "nm")
            dataset = SubElement(activity, "dataset", {"type": kind, "role": "Experimental"})
            _add(dataset, "name", shot.file_name)
            _add(dataset, "location", quote(f"/{session.folder}/{shot.file_name}"))
            _add(dataset, "preview", quote(f"/{session.folder}/{preview}"))
            _add(dataset, "meta", signal, name="Signal")
            _add(dataset, "meta", f"{shot.pixel:g}", name="Pixel Size", unit=scale)


def _add(parent: Element, tag: str, text: str, **attributes: str) -> None:
    SubElement(parent, tag, attributes).text = text
