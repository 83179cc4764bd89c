"""What notebook entries say of a session, as HTML: facts, files, links and previews.

Everything foreign is escaped. Only elements, attributes and styles are used that the notebooks' own filters keep:
no ``class``, no ``thead``, table borders by attribute.
"""

from __future__ import annotations

import base64
import hashlib
import html
import mimetypes
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path, PurePath, PureWindowsPath
from urllib.parse import urlsplit

from labrelay.context import ExportContext
from labrelay.errors import Rejected, Transient

#: Files listed by name; the record lists the others.
LISTED_FILES = 1000
_PER_ROW = 4
#: What browsers show.
_IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def escaped(text: object) -> str:
    """Return foreign text as HTML shows it, in an attribute too; what cannot be printed becomes U+FFFD."""
    return html.escape(_UNPRINTABLE.sub("\ufffd", str(text)))


def is_web_address(text: str) -> bool:
    """Return whether a text is an http(s) address, so that a link to it runs no script and opens no file."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.netloc) and not re.search(r"\s", text)


def session_facts(context: ExportContext) -> list[tuple[str, str]]:
    """Return name and value of what is known of a session; times keep their offset from UTC."""
    event = context.reservation_event
    facts = [
        ("Session", context.session_identifier),
        ("Instrument", context.instrument_pid),
        ("Start", context.dt_from.isoformat()),
        ("End", context.dt_to.isoformat()),
        ("User", context.user),
    ]
    if event is not None:
        facts += [
            ("Experiment", event.experiment_title),
            ("Purpose", event.experiment_purpose),
            ("Sample", _joined(event.sample_name)),
            ("Project", _joined(event.project_name)),
            ("Reservation", event.url),
        ]
    facts += [("Activities", str(len(context.activities))), ("Record", context.xml_file_path.name)]
    return [(name, value) for name, value in facts if value]


def session_table(context: ExportContext) -> str:
    """Return the session's facts as a table; addresses become links."""
    return _table([f"<th>{escaped(name)}</th><td>{_linked(value)}</td>" for name, value in session_facts(context)])


def link_list(context: ExportContext, *, only: Collection[str] | None = None) -> str:
    """Return links to where the session was delivered before, empty if nowhere.

    Parameters
    ----------
    context
        Its ``previous_results`` say where.
    only
        Destinations to link to; None: all.
    """
    items = [
        f"<li>{escaped(name)}: {_linked(result.record_url)}</li>"
        for name, result in sorted(context.previous_results.items())
        if result.success and result.record_url and (only is None or name in only)
    ]
    return f"<h2>Records</h2><ul>{''.join(items)}</ul>" if items else ""


def file_list(context: ExportContext) -> str:
    """Return the session's files, each once, with size and sha256 where known; empty if there are none."""
    names = list(dict.fromkeys(file for activity in context.activities for file in activity.files))
    if not names:
        return ""
    known = {str(artifact.path): artifact for artifact in context.artifacts}
    folder = _common_folder(names)
    rows = ["<th>File</th><th>Bytes</th><th>sha256</th>"]
    for name in names[:LISTED_FILES]:
        artifact = known.get(name)
        size = "" if artifact is None or artifact.size is None else str(artifact.size)
        sha256 = "" if artifact is None else artifact.sha256 or ""
        cells = [f"<td>{escaped(_below(name, folder))}</td>", f"<td>{size}</td>", f"<td><code>{sha256}</code></td>"]
        rows.append("".join(cells))
    more = len(names) - LISTED_FILES
    where = f"<p>{len(names)} in <code>{escaped(folder)}</code></p>" if folder else f"<p>{len(names)}</p>"
    rest = f"<p>… and {more} more; the record lists all of them.</p>" if more > 0 else ""
    return f"<h2>Files</h2>{where}{_table(rows)}{rest}"


def previews(context: ExportContext) -> list[tuple[Path, str | None]]:
    """Return the previews in the order of their files, each once, with the sha256 they had when submitted."""
    known = {artifact.path: artifact.sha256 for artifact in context.artifacts}
    paths = dict.fromkeys(p for activity in context.activities for p in activity.previews if p is not None)
    return [(path, known.get(path)) for path in paths]


def preview_gallery(context: ExportContext, *, max_bytes: int) -> str:
    """Return the previews as images inside of the HTML, four a row; empty if there are none. Blocking: reads files.

    Parameters
    ----------
    context
        Its activities name the previews.
    max_bytes
        Bytes the gallery's HTML may have; the previews that would exceed it are named instead of shown.

    Raises
    ------
    Rejected
        A preview is not what was submitted.
    Transient
        A preview cannot be read on this worker at the moment.
    """
    shown: list[str] = []
    left_out: list[str] = []
    room, captions = max_bytes, _captions(context)
    for path, sha256 in previews(context):
        figure = _figure(path, sha256, captions.get(path, path.name), room)
        if figure is None:
            left_out.append(escaped(path.name))
        else:
            shown.append(f"<td>{figure}</td>")
            room -= len(shown[-1].encode())
    if not shown and not left_out:
        return ""
    rows = ["".join(shown[at : at + _PER_ROW]) for at in range(0, len(shown), _PER_ROW)]
    rest = f"<p>Not shown, too large or no image: {', '.join(left_out)}</p>" if left_out else ""
    return f"<h2>Previews</h2>{_table(rows) if rows else ''}{rest}"


def _captions(context: ExportContext) -> dict[Path, str]:
    """Return what each preview shows: a file of the session, and which of its signals if it has several."""
    captions: dict[Path, str] = {}
    for activity in context.activities:
        signals, so_far = Counter(activity.files), Counter[str]()
        for file, preview in zip(activity.files, activity.previews, strict=False):
            so_far[file] += 1
            if preview is not None:
                which = f" ({so_far[file]} of {signals[file]})" if signals[file] > 1 else ""
                captions.setdefault(preview, re.split(r"[\\/]", file)[-1] + which)
    return captions


def _figure(path: Path, sha256: str | None, caption: str, room: int) -> str | None:
    media_type = mimetypes.guess_type(path.name)[0]
    try:
        # Base64 makes four bytes of three; what cannot fit is not read at all.
        if media_type not in _IMAGES or path.stat().st_size * 4 / 3 > room:
            return None
        data = path.read_bytes()
    except OSError as error:
        text = f"cannot read {path} on this worker ({error.strerror}); is its share mounted here?"
        raise Transient(text) from None
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise Rejected(f"{path} changed since it was submitted; submit it again with --replace")
    source = f"data:{media_type};base64,{base64.b64encode(data).decode()}"
    figure = f'<img src="{source}" alt="{escaped(path.name)}" width="200"><br>{escaped(caption)}'
    return figure if len(figure.encode()) <= room else None


def _linked(value: str | None) -> str:
    text = escaped(value or "")
    return f'<a href="{text}">{text}</a>' if value and is_web_address(value) else text


def _table(rows: Sequence[str]) -> str:
    return f'<table border="1">{"".join(f"<tr>{row}</tr>" for row in rows)}</table>'


def _joined(values: Iterable[str | None] | None) -> str | None:
    return ", ".join(value for value in values or () if value) or None


def _common_folder(names: Sequence[str]) -> str:
    """Return the deepest folder that holds all; empty if there is none or they are spelled for another system."""
    if any("\\" in name or PureWindowsPath(name).drive for name in names):
        return ""
    try:
        return os.path.commonpath([str(PurePath(name).parent) for name in names])
    except ValueError:  # absolute and relative ones
        return ""


def _below(name: str, folder: str) -> str:
    return PurePath(name).relative_to(folder).as_posix() if folder else name
