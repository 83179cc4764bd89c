"""The record as CDCS takes it: the text of the file, checked, with the PID of its session where there are PIDs.

The file itself is never changed.
"""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import dataclass, replace
from xml.sax.saxutils import quoteattr

from lxml import etree

from labrelay.context import ExportContext
from labrelay.errors import Rejected, Transient

MIB = 2**20
#: What may stand before the root element: white space, the declaration, processing instructions, comments.
_PROLOG = re.compile(r"\A\ufeff?(?:\s|<\?.*?\?>|<!--.*?-->)*<[^\s/>]+", re.DOTALL)
_WHERE = re.compile(r",\s*line \d+, column \d+\s*$")
_UTF8 = frozenset({"", "utf-8", "utf8", "us-ascii", "ascii"})


@dataclass(frozen=True)
class RecordText:
    """One record, well-formed.

    Parameters
    ----------
    text
        What is sent: the file's characters, line ends and all, at most with a ``pid`` more.
    name
        The file, for error texts.
    own_pid
        The ``pid`` of the root element in the file; empty: none.
    added_pid
        The ``pid`` that was added to it; empty: none.
    """

    text: str
    name: str
    own_pid: str = ""
    added_pid: str = ""

    @property
    def pid(self) -> str:
        """The ``pid`` it is sent with."""
        return self.own_pid or self.added_pid

    def with_pid(self, pid: str) -> RecordText:
        """Return it with a ``pid`` on its root element; one that the file brings itself is kept."""
        if self.own_pid or not pid:
            return self
        match = _PROLOG.match(self.text)
        if match is None:
            raise Rejected(f"{self.name}: no place for the pid is found in it; save the record as plain XML")
        text = f"{self.text[: match.end()]} pid={quoteattr(pid)}{self.text[match.end() :]}"
        return replace(self, text=text, added_pid=pid)

    def is_held_by(self, stored: str) -> str:
        """Return in words how a server's text holds this record, or nothing if it holds another one.

        A server with PIDs writes the XML anew: its declaration and white space go, the content stays.
        """
        if stored == self.text:
            return "byte-identical"
        try:
            same = _same_elements(parsed(self.text.encode()), parsed(stored.encode()), pid_matters=bool(self.pid))
        except etree.XMLSyntaxError:
            return ""
        return "the same XML, written anew by the server" if same else ""


def read_record(context: ExportContext, *, longest: int) -> RecordText:
    """Read the record of a context and check what CDCS would answer 500 to.

    Parameters
    ----------
    context
        Names the file and its checksum.
    longest
        Bytes it may have.

    Raises
    ------
    Rejected
        It is too large, changed, not well-formed, or in an encoding that cannot travel in JSON.
    Transient
        It cannot be read on this worker at the moment.
    """
    path = context.xml_file_path
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= longest else b""
    except OSError as error:
        raise Transient(f"cannot read {path} on this worker ({error.strerror}); is its share mounted here?") from None
    if size > longest:
        text = f"{path.name} has {size / MIB:.1f} MiB; max_record_mib allows {longest / MIB:g}"
        raise Rejected(f"{text}. Make the record smaller, or raise max_record_mib if the server takes more")
    if context.xml_sha256 is not None and hashlib.sha256(data).hexdigest() != context.xml_sha256:
        raise Rejected(f"{path} changed since it was submitted; submit it again with --replace")
    try:
        root = parsed(data)
    except etree.XMLSyntaxError as error:
        message = _WHERE.sub("", error.msg or "it is no XML").strip()
        raise Rejected(f"{path.name}, line {error.lineno or 1}: {message}. {_cure_of(message)}") from None
    document = root.getroottree().docinfo
    if document.doctype:  # type: ignore[attr-defined]
        raise Rejected(f"{path.name}: it declares a DTD, and CDCS resolves no entities; save it without a DOCTYPE")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = ""
    if not text or (document.encoding or "").lower() not in _UTF8:
        problem = f"its encoding is {document.encoding}" if text else "it is not encoded as UTF-8"
        cure = "CDCS takes XML inside JSON and reads it as UTF-8; save the record as UTF-8"
        raise Rejected(f"{path.name}: {problem}, but {cure}")
    return RecordText(text, path.name, own_pid=root.get("pid", "").strip())


def parsed(data: bytes) -> etree._Element:
    """Return the root of an XML text, with no entity resolved and nothing fetched, within libxml2's limits.

    Raises
    ------
    etree.XMLSyntaxError
        It is not well-formed, or one of its texts has more than 10 MB.
    """
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False,
        remove_comments=True, remove_pis=True,
    )  # fmt: skip
    return etree.parse(io.BytesIO(data), parser).getroot()


def _cure_of(message: str) -> str:
    if "Resource limit exceeded" in message:
        return "A single text may have 10 MB: keep data in files and name them in the record"
    return "It is not well-formed XML: build the record again"


def _same_elements(one: etree._Element, other: etree._Element, *, pid_matters: bool) -> bool:
    nodes, others = list(one.iter()), list(other.iter())
    if len(nodes) != len(others):
        return False
    for a, b in zip(nodes, others, strict=True):
        if (a.tag, _strip(a.text), _strip(a.tail)) != (b.tag, _strip(b.text), _strip(b.tail)):
            return False
        # Without a pid of ours the server may have put one of its own on the root.
        ignored = frozenset() if pid_matters or a is not one else frozenset({"pid"})
        if _attributes(a, ignored) != _attributes(b, ignored):
            return False
    return True


def _strip(text: str | None) -> str:
    return (text or "").strip()


def _attributes(element: etree._Element, ignored: frozenset[str]) -> dict[str, str]:
    return {str(name): str(value) for name, value in element.attrib.items() if name not in ignored}
