"""What a session looks like in LabArchives: its names, its entry, and the key it is found again by."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass

from labrelay.context import ExportContext
from labrelay_worker.destinations.notebook_html import file_list, link_list, preview_gallery, session_table

CAPTION = "NexusLIMS XML record"
#: No limit of LabArchives is known; names travel in the query of a GET.
LONGEST_NAME = 200

#: What XML 1.0 cannot carry (section 2.2), so that LabArchives could not answer it back.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_KEY = re.compile(r"labrelay:([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.(\d+)\.([0-9a-f]{16})")
_DIGEST = 16


@dataclass(frozen=True)
class Key:
    """Says in plain text, within an entry or a caption, what it is: export, revision, and content."""

    export_id: str
    revision: int
    digest: str

    def __str__(self) -> str:
        return f"labrelay:{self.export_id}.{self.revision}.{self.digest}"


def key_in(text: str) -> Key | None:
    """Return the key that an entry or caption ends in, or None."""
    found = _KEY.findall(text)
    return Key(found[-1][0], int(found[-1][1]), found[-1][2]) if found else None


def clean_name(text: str, *, ending: str = "") -> str:
    """Return a text as a name: one line of what XML can carry, of bounded length; a cut one keeps its ending."""
    line = " ".join(_NOT_XML.sub(" ", unicodedata.normalize("NFC", text)).split())
    if len(line) <= LONGEST_NAME:
        return line
    tail = f"… {hashlib.sha256(line.encode()).hexdigest()[:8]}{ending}"
    return f"{line[: LONGEST_NAME - len(tail)]}{tail}"


def page_name(context: ExportContext) -> str:
    """Return the name of a session's page: day and session identifier, as NexusLIMS has it."""
    return clean_name(f"{context.dt_from:%Y-%m-%d} — {context.session_identifier}")


def caption(context: ExportContext, record_sha256: str) -> str:
    """Return the caption of the attached record, which says whether it is the one of this revision."""
    return f"{CAPTION} {Key(context.export_id, context.revision, record_sha256[:_DIGEST])}"


def entry_html(context: ExportContext, *, links: Collection[str], preview_bytes: int) -> tuple[str, Key]:
    """Return the text entry of a session, and the key that it ends in. Blocking: reads the previews.

    Parameters
    ----------
    context
        The session.
    links
        Destinations to link to.
    preview_bytes
        Bytes the previews may take in the HTML.

    Raises
    ------
    Rejected
        A preview is not what was submitted.
    Transient
        A preview cannot be read on this worker at the moment.
    """
    gallery = preview_gallery(context, max_bytes=preview_bytes)
    body = session_table(context) + link_list(context, only=links) + gallery + file_list(context)
    digest = hashlib.sha256(body.encode()).hexdigest()[:_DIGEST]
    key = Key(context.export_id, context.revision, digest)
    return f"{body}<p>{key}</p>", key
