"""Reads a Nexus experiment record into the fields of an export context."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import unquote
from xml.etree.ElementTree import Element

from labrelay.errors import InvalidInput
from labrelay.nexus_xml import NAMESPACE, read_elements, shown

_READ = (
    "title",
    "summary",
    "summary/experimenter",
    "summary/instrument",
    "summary/reservationStart",
    "summary/reservationEnd",
    "summary/motivation",
    "sample",
    "sample/name",
    "sample/description",
    "project",
    "project/name",
    "project/division",
    "project/group",
    "project/project_id",
    "project/ref",
    "acquisitionActivity",
    "acquisitionActivity/startTime",
    "acquisitionActivity/dataset",
    "acquisitionActivity/dataset/location",
    "acquisitionActivity/dataset/preview",
)
_NAMESPACES = {"": NAMESPACE}
_XML_BLANKS = " \t\r\n"
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def read_nexus_record(
    path: Path,
    *,
    session_identifier: str | None,
    instrument_root: Path | None,
    preview_root: Path | None,
) -> dict[str, Any]:
    """Return what a record says, as `ExportContext.model_validate` accepts it.

    Parameters
    ----------
    path
        The XML record.
    session_identifier
        The session it belongs to; None: the record's file stem.
    instrument_root
        Folder that the record's URL-encoded dataset locations are relative to; needed when it names any.
    preview_root
        The same for its previews; without it no previews are named.

    Raises
    ------
    InvalidInput
        In one line: the file or element at fault, what is wrong with it, and the cure. Elements are numbered
        from 1, as XPath does.
    """
    root = read_elements(path, _READ)
    record = f"{shown(path.name)}: "
    activities = [
        _activity(element, f"{record}acquisitionActivity[{number}]", instrument_root, preview_root)
        for number, element in enumerate(root.iterfind("acquisitionActivity", _NAMESPACES), start=1)
    ]
    starts = [activity["start"] for activity in activities if activity["start"] is not None]
    dt_from = _time(root, "summary/reservationStart", record) or min(starts, default=None)
    dt_to = _time(root, "summary/reservationEnd", record) or max(starts, default=None)
    for field, value in (("summary/reservationStart", dt_from), ("summary/reservationEnd", dt_to)):
        if value is None:
            raise InvalidInput(
                f"{record}{field}", "missing, and no acquisitionActivity has a startTime", "Add it with its offset"
            )
    return {
        "xml_file_path": path.absolute(),
        "session_identifier": path.stem if session_identifier is None else session_identifier,
        "instrument_pid": _instrument_pid(root, record),
        "dt_from": dt_from,
        "dt_to": dt_to,
        "user": _text(root, "summary/experimenter"),
        "activities": activities,
        "reservation_event": _reservation(root, dt_from, dt_to),
    }


def join_location(root: PurePath, location: str) -> PurePath:
    """Return the path that a record's URL-encoded location names under a root.

    Raises
    ------
    ValueError
        It names nothing under the root; the text says why.

    Examples
    --------
    >>> from pathlib import PurePosixPath
    >>> str(join_location(PurePosixPath("/data"), "/Titan/gold%20particles.mrc"))
    '/data/Titan/gold particles.mrc'
    """
    if _ADDRESS.match(location):
        msg = "is a web address, not a path"
        raise ValueError(msg)
    try:
        relative = type(root)(unquote(location, errors="strict").lstrip("/"))
    except UnicodeDecodeError:
        msg = "is not URL-encoded UTF-8"
        raise ValueError(msg) from None
    if "\0" in str(relative):
        msg = "has a zero byte in it"
        raise ValueError(msg)
    if not relative.parts:
        msg = "names no file"
        raise ValueError(msg)
    # Windows drops trailing blanks and dots of a name, which makes ".. " another way up;
    # and a drive or a leading backslash replaces the root there instead of extending it.
    if relative.anchor or any(not part.rstrip(" .") for part in relative.parts):
        msg = "leads out of its root"
        raise ValueError(msg)
    return root / relative


def _activity(
    element: Element, where: str, instrument_root: Path | None, preview_root: Path | None
) -> dict[str, Any]:
    files: list[str] = []
    previews: list[Path | None] = []
    for number, dataset in enumerate(element.iterfind("dataset", _NAMESPACES), start=1):
        field = f"{where}/dataset[{number}]"
        location = _raw(dataset, "location")
        if not location:
            raise InvalidInput(f"{field}/location", "missing or empty", "Add the path below the instrument root")
        if instrument_root is None:
            raise InvalidInput(
                "instrument_root",
                f"not given, and {field}/location names the file '{shown(location)}'",
                "Pass instrument_root (`--root`), the folder that locations are relative to",
            )
        files.append(str(_locate(instrument_root, location, f"{field}/location")))
        if preview_root is not None:
            preview = _raw(dataset, "preview")
            # the schema allows a web address here, and there is nothing on disk to deliver then
            is_local = preview and not _ADDRESS.match(preview)
            previews.append(_locate(preview_root, preview, f"{field}/preview") if is_local else None)
    return {"start": _time(element, "startTime", f"{where}/"), "files": files, "previews": previews}


def _locate(root: Path, location: str, field: str) -> Path:
    try:
        return Path(join_location(root.absolute(), location))
    except ValueError as error:
        raise InvalidInput(
            field, f"'{shown(location)}' {error}", "Write it as a URL-encoded path relative to the root"
        ) from None


def _time(element: Element, name: str, parent: str) -> datetime | None:
    text = _raw(element, name)
    if not text:
        return None
    field = f"{parent}{name}"
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(
            field, f"'{shown(text)}' is not a time", "Write it like 2026-11-21T10:00:00+01:00"
        ) from None
    if time.utcoffset() is None:
        raise InvalidInput(
            field, f"'{shown(text)}' has no time zone", f"Add the offset, e.g. {time.isoformat()}+01:00"
        )
    return time


def _instrument_pid(root: Element, record: str) -> str:
    for instrument in root.iterfind("summary/instrument", _NAMESPACES):
        pid = _collapsed(instrument.get("pid"))
        if pid is not None:
            return pid
    raise InvalidInput(
        f"{record}summary/instrument@pid",
        "missing",
        'Add the instrument\'s persistent identifier, e.g. <instrument pid="FEI-Titan-TEM-012345">',
    )


def _reservation(root: Element, start: datetime | None, end: datetime | None) -> dict[str, Any]:
    full_name = _text(root, "summary/experimenter")
    summary = root.find("summary", _NAMESPACES)
    samples = list(root.iterfind("sample", _NAMESPACES))
    projects = list(root.iterfind("project", _NAMESPACES))
    return {
        "experiment_title": _text(root, "title"),
        "experiment_purpose": _raw(root, "summary/motivation") or None,
        "instrument": _text(root, "summary/instrument"),
        "start_time": start,
        "end_time": end,
        # A destination that makes accounts must not be led to make one called "Bob Scientist".
        "username": full_name if full_name and " " not in full_name else None,
        "user_full_name": full_name,
        "url": None if summary is None else _collapsed(summary.get("ref")),
        "sample_name": _all(_text(sample, "name") for sample in samples),
        "sample_details": _all(_text(sample, "description") for sample in samples),
        "sample_pid": _all(_collapsed(sample.get("ref")) for sample in samples),
        "project_name": _all(_text(project, "name") for project in projects),
        "project_id": _all(_text(project, "project_id") for project in projects),
        "project_ref": _all(_text(project, "ref") for project in projects),
        "division": _text(root, "project/division"),
        "group": _text(root, "project/group"),
    }


def _raw(element: Element, name: str) -> str:
    return (element.findtext(name, "", _NAMESPACES) or "").strip(_XML_BLANKS)


def _text(element: Element, name: str) -> str | None:
    return _collapsed(element.findtext(name, None, _NAMESPACES))


def _collapsed(text: str | None) -> str | None:
    """Return an xs:token as a reader sees it: blanks collapsed, None when nothing is left."""
    return " ".join((text or "").split()) or None


def _all(values: Iterator[str | None]) -> tuple[str | None, ...] | None:
    """Return the parallel values, or None when no one has any."""
    listed = tuple(values)
    return listed if any(listed) else None
