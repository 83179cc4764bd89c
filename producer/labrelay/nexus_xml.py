"""Reads the XML of a Nexus record within bounds: instrument records are foreign, and a pipeline must survive them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, SubElement

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import XMLParser

from labrelay.errors import InvalidInput

NAMESPACE = "https://data.nist.gov/od/dm/nexus/experiment/v1.0"

_ROOT = f"{{{NAMESPACE}}}Experiment"
_MAX_BYTES = 64 * 2**20
_MAX_DEPTH = 100
#: Expat scans an unfinished token again with every block: small blocks make a hostile file quadratic.
_BLOCK_BYTES = 2**20
_SHOWN_CHARACTERS = 80


def read_elements(path: Path, wanted: Iterable[str]) -> Element:
    """Return the record's root with only the wanted elements under it.

    What is not wanted is dropped while the file streams by, so the result is as small as the answer.

    Parameters
    ----------
    path
        The record.
    wanted
        Slash-separated paths below the root, e.g. ``summary`` and ``summary/experimenter``; a path is kept only
        if its parent is wanted too.

    Raises
    ------
    InvalidInput
        There is no such file, or it is not a Nexus record that can be read safely.
    """
    _refuse_unreadable(path)
    try:
        parser = XMLParser(target=_WantedElements(path, frozenset(wanted)), forbid_dtd=True)
        for block in _blocks(path):
            parser.feed(block)
        root: Element = parser.close()
    except DefusedXmlException:
        raise InvalidInput(
            shown(path), "refused: it declares a DTD or entities", "Save the record without a DOCTYPE"
        ) from None
    except ParseError as error:
        raise InvalidInput(shown(path), f"not XML ({error})", "Name the finished record of a session") from None
    except (LookupError, ValueError) as error:
        raise InvalidInput(shown(path), f"not readable XML ({error})", "Save the record as UTF-8") from None
    except OSError as error:
        raise InvalidInput(shown(path), f"cannot be read ({error.strerror})", "Make it readable") from None
    return root


def shown(value: object) -> str:
    """Return a foreign value as one short line, fit for an error text."""
    text = "".join(character if character.isprintable() else " " for character in str(value)).strip()
    return text if len(text) <= _SHOWN_CHARACTERS or isinstance(value, Path) else f"{text[:_SHOWN_CHARACTERS]}…"


class _WantedElements:
    """Parser target that builds the wanted elements alone and stops at the first thing out of bounds."""

    def __init__(self, path: Path, wanted: frozenset[str]) -> None:
        self._path, self._wanted = path, wanted
        self._names: list[str] = []
        self._kept: list[tuple[Element, list[str]] | None] = []
        self._root: Element | None = None

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self._names.append(tag.removeprefix(f"{{{NAMESPACE}}}"))
        if len(self._names) > _MAX_DEPTH:
            raise InvalidInput(
                shown(self._path),
                f"nested deeper than {_MAX_DEPTH} elements",
                "Build the record again; it is damaged",
            )
        element = None
        if self._root is None:
            _refuse_other_root(self._path, tag)
            element = self._root = Element(tag, attributes)
        elif (parent := self._kept[-1]) is not None and "/".join(self._names[1:]) in self._wanted:
            element = SubElement(parent[0], tag, attributes)
        self._kept.append(None if element is None else (element, []))

    def data(self, text: str) -> None:
        if (kept := self._kept[-1]) is not None:
            kept[1].append(text)

    def end(self, _tag: str) -> None:
        self._names.pop()
        if (kept := self._kept.pop()) is not None:
            kept[0].text = "".join(kept[1])

    def close(self) -> Element | None:
        return self._root


def _refuse_unreadable(path: Path) -> None:
    try:
        size = path.stat().st_size
    except (OSError, ValueError) as error:
        why = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
        raise InvalidInput(shown(path), why, "Correct the path of the record") from None
    if path.is_dir():
        raise InvalidInput(shown(path), "is a folder", "Name the record inside it, e.g. a file *.xml")
    if not path.is_file():  # a pipe or device would block for ever
        raise InvalidInput(shown(path), "is not a regular file", "Save the record to disk first")
    if size == 0:
        raise InvalidInput(shown(path), "the file is empty", "Wait until the record is written, or build it again")


def _blocks(path: Path) -> Iterator[bytes]:
    size = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            size += len(block)
            if size > _MAX_BYTES:  # counted while reading: the file may still grow
                raise InvalidInput(
                    shown(path),
                    f"larger than {_MAX_BYTES // 2**20} MiB",
                    "Name the record itself; its data files are named inside it",
                )
            yield block


def _refuse_other_root(path: Path, tag: str) -> None:
    if tag != _ROOT:
        raise InvalidInput(
            shown(path),
            f"XML, but not a Nexus record: its root element is {shown(tag)}",
            f"Name a record whose root is Experiment in namespace {NAMESPACE}",
        )
