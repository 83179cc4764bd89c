"""Whether a record that CDCS already has belongs to this session: pure functions on titles and XML.

Nothing is unique at a CDCS server but a PID, so the title is the key: the record's file stem. Two sessions may have
files of one name; which of them a found record belongs to is decided here, and where it cannot be told, nobody is
overwritten.
"""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from lxml import etree

from labrelay.context import ExportContext
from labrelay.errors import Conflict
from labrelay_worker.destinations.cdcs_record import RecordText, parsed

LONGEST_TITLE = 200
_KEY_DIGITS = 12
#: Characters of a record within which its root element begins.
_BEGINNING = 64 * 1024


@dataclass(frozen=True)
class Titles:
    """The titles that the record of a session may have.

    Parameters
    ----------
    plain
        The file stem, as NexusLIMS titles records; records of other sessions may have it too.
    own
        The same with digits of the export id: nobody else's.
    """

    plain: str
    own: str


@dataclass(frozen=True)
class StoredRecord:
    """A record as CDCS holds it.

    Parameters
    ----------
    record_id, template, workspace, owner
        Ids as text; workspace and owner are empty if there is none.
    title, text
        Its title and its XML.
    """

    record_id: str
    template: str
    workspace: str
    owner: str
    title: str
    text: str

    @property
    def pid(self) -> str:
        """The PID on its root element; empty: none, or no XML."""
        beginning = io.BytesIO(self.text[:_BEGINNING].encode())
        try:
            _, root = next(
                iter(etree.iterparse(beginning, events=("start",), resolve_entities=False, no_network=True))
            )
        except (etree.XMLSyntaxError, StopIteration):
            return ""
        return str(root.get("pid", "")).strip()


class Kinship(Enum):
    """Whose a found record is."""

    SAME = "this session's"
    OTHER = "another session's"
    UNSURE = "not known whose"


def titles_of(context: ExportContext) -> Titles:
    """Return the titles of a session, as CDCS takes them: 1 to 200 characters, no outer white space, not ``..``."""
    key = f" ({context.export_id.replace('-', '')[:_KEY_DIGITS]})"
    stem = context.xml_file_path.stem
    stem = "".join("_" if unicodedata.category(sign).startswith("C") else sign for sign in stem).strip()
    if not stem.strip("."):
        stem = "record"
    own = stem[: LONGEST_TITLE - len(key)].strip() + key
    # A stem that had to be cut is no longer one session's.
    return Titles(stem if len(stem) <= LONGEST_TITLE else own, own)


def kinship(found: StoredRecord, record: RecordText, titles: Titles, pid: str) -> Kinship:
    """Return whose a found record is.

    Parameters
    ----------
    found
        A record whose title or pid is one of this session's.
    record
        What is to be delivered.
    titles
        The session's titles.
    pid
        What a PID of this session ends in, see `pid_of`.
    """
    if found.title == titles.own:
        return Kinship.SAME
    try:
        theirs, ours = _Traits.of(found.text), _Traits.of(record.text)
    except etree.XMLSyntaxError:
        return Kinship.UNSURE
    if "/LR-" in theirs.pid:
        return _same_if(theirs.pid.endswith(f"/{pid}"))
    if record.own_pid and theirs.pid:
        return _same_if(theirs.pid == record.own_pid)
    if record.with_pid(theirs.pid).is_held_by(found.text):
        return Kinship.SAME
    return theirs.compare(ours)


def _same_if(same: bool) -> Kinship:
    return Kinship.SAME if same else Kinship.OTHER


def free_title(occupants: Sequence[tuple[StoredRecord, Kinship]], titles: Titles, context: ExportContext) -> str:
    """Return the title for a new record.

    Parameters
    ----------
    occupants
        The records that have the plain title, and whose they are; none of them is this session's.
    titles
        The session's titles.
    context
        Its revision counts: a first revision with other content cannot be an earlier state of this session.

    Raises
    ------
    Conflict
        One of them may be an earlier revision of this very session: a second record must not be made blindly.
    """
    if not occupants:
        return titles.plain
    unsure = [stored.record_id for stored, whose in occupants if whose is Kinship.UNSURE]
    if context.revision > 1 and unsure:
        raise Conflict(
            f"CDCS has a record titled {titles.plain!r} (id {', '.join(unsure)}) with other content, and nothing"
            " shows whether it is an earlier revision of this session or another session's. Delete or rename it"
            " there, then replay"
        )
    return titles.own


def pid_of(context: ExportContext) -> str:
    """Return what the PID of a session ends in: the same for every revision, and no number, which is not found."""
    return f"LR-{context.export_id}"


@dataclass(frozen=True)
class _Traits:
    """What inside a Nexus record tells sessions apart (Nexus experiment schema 1.0)."""

    pid: str
    identifier: str
    title: str
    summary: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...]
    locations: frozenset[str]

    @classmethod
    def of(cls, text: str) -> _Traits:
        """Read them from a record's XML."""
        root = parsed(text.encode())
        summary = root.find("{*}summary")
        return cls(
            pid=root.get("pid", "").strip(),
            identifier=_text(root.find("{*}id")),
            title=_text(root.find("{*}title")),
            summary=() if summary is None else tuple(_node(node) for node in summary.iter()),
            locations=frozenset(
                _text(node) for node in root.iterfind("{*}acquisitionActivity/{*}dataset/{*}location")
            ),
        )

    def compare(self, other: _Traits) -> Kinship:
        """Compare by the record's own id, else by what was measured where: no two sessions share a raw file."""
        if self.identifier and other.identifier:
            return _same_if(self.identifier == other.identifier)
        shared = self.locations & other.locations
        if shared:
            equal = self.summary and (self.title, self.summary) == (other.title, other.summary)
            return Kinship.SAME if equal else Kinship.UNSURE
        if self.locations and other.locations:
            return Kinship.OTHER
        for name in ("instrument", "reservationStart", "reservationEnd"):
            mine, theirs = self._part(name), other._part(name)
            if mine and theirs and mine != theirs:
                return Kinship.OTHER
        return Kinship.UNSURE

    def _part(self, name: str) -> list[tuple[str, tuple[tuple[str, str], ...]]]:
        return [(text, attributes) for tag, text, attributes in self.summary if tag == name]


def _node(element: etree._Element) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    attributes = sorted((str(name), str(value)) for name, value in element.attrib.items())
    return etree.QName(element).localname, _text(element), tuple(attributes)


def _text(element: etree._Element | None) -> str:
    return "" if element is None else (element.text or "").strip()
