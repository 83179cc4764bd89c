"""Which well of which plate a session's images belong to, as ``metadata.plate`` of the context says. Pure.

::

    "plate": {
      "name": "screen 7, plate 3",
      "rows": 8, "columns": 12,
      "well": "B03",
      "wells": {"image_1.dm3": "B03", "sub/image_2.dm3": {"well": "B04", "field": 1}}
    }

``name`` is needed. ``rows`` and ``columns`` are numbers or lists of names; left out, the plate has those seen.
``well`` holds for every file that ``wells`` does not name, by its name or the end of its path; a file without either
is an image outside the plate. ``field`` is the first image's number in its well, 0 unless told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from labrelay.context import ExportContext
from labrelay.errors import Rejected
from labrelay_worker.reading.signal import Well

_KNOWN = frozenset({"name", "rows", "columns", "well", "wells", "field"})
_WELL = re.compile(r"([A-Za-z]+)0*([0-9]+)")
_NAME = re.compile(r"[A-Za-z0-9]+")
_LETTERS = 26
_MOST = 702  # rows A to ZZ


@dataclass
class Plate:
    """A plate and the way from a file to its well; counts the images of each well.

    Parameters
    ----------
    name, rows, columns
        What the plate declares.
    wells
        Well and first image number by file name or end of path; under "" what holds for all others.
    """

    name: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    wells: Mapping[str, tuple[str, str, int]]
    _next: dict[tuple[str, str, int], int] = field(default_factory=dict)

    def place(self, path: Path) -> Well | None:
        """Return the next place for an image of a file; None: it belongs to no well."""
        named = [key for key in self.wells if key and path.parts[-len(PurePosixPath(key).parts) :] == _parts(key)]
        known = self.wells.get(max(named, key=len, default=""))
        if known is None:
            return None
        row, column, first = known
        number = self._next.get(known, first)
        self._next[known] = number + 1
        return Well(self.name, row, column, number, self.rows, self.columns)


def plate_of(context: ExportContext) -> Plate | None:
    """Return the plate that a context names, if any.

    Raises
    ------
    Rejected
        ``metadata.plate`` cannot be understood; names the field and the cure.
    """
    given = context.metadata.get("plate")
    if given is None:
        return None
    if not isinstance(given, Mapping) or not isinstance(given.get("name"), str) or not given["name"].strip():
        raise _refused("", "is an object with at least a name")
    if unknown := sorted(given.keys() - _KNOWN):
        raise _refused(f".{unknown[0]}", f"is not known; use {', '.join(sorted(_KNOWN))}")
    rows = _names(given.get("rows", ()), "rows", _row_name)
    columns = _names(given.get("columns", ()), "columns", lambda number: str(number + 1))
    wells: dict[str, tuple[str, str, int]] = {}
    named = given.get("wells", {})
    if not isinstance(named, Mapping):
        raise _refused(".wells", "is an object of file names and wells")
    if "well" in given:
        wells[""] = _well(given, "", rows, columns)
    for key, value in named.items():
        entry = value if isinstance(value, Mapping) else {"well": value}
        wells[str(key)] = _well(entry, f".wells[{key}]", rows, columns)
    return Plate(given["name"].strip(), rows, columns, wells)


def _well(
    entry: Mapping[str, Any], where: str, rows: tuple[str, ...], columns: tuple[str, ...]
) -> tuple[str, str, int]:
    match = _WELL.fullmatch(str(entry.get("well", "")))
    number = entry.get("field", 0)
    if match is None:
        raise _refused(f"{where}.well", "is a well such as B03")
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise _refused(f"{where}.field", "is a number from 0")
    row, column = match[1].upper(), match[2]
    # A plate that calls its columns 01, 02 … keeps its names.
    column = next((name for name in columns if name.lstrip("0") == column), column)
    for name, known, kind in ((row, rows, "rows"), (column, columns, "columns")):
        if known and name not in known:
            raise _refused(f"{where}.well", f"{entry['well']} is not among the plate's {kind}")
    return row, column, number


def _names(given: Any, key: str, name_of: Any) -> tuple[str, ...]:
    if isinstance(given, int) and not isinstance(given, bool) and 0 < given <= _MOST:
        return tuple(name_of(number) for number in range(given))
    if isinstance(given, list | tuple) and all(isinstance(name, str) and _NAME.fullmatch(name) for name in given):
        return tuple(dict.fromkeys(given))
    raise _refused(f".{key}", "is a number, or a list of names of letters and digits")


def _row_name(number: int) -> str:
    first, last = divmod(number, _LETTERS)
    return (chr(ord("A") + first - 1) if first else "") + chr(ord("A") + last)


def _parts(key: str) -> tuple[str, ...]:
    return PurePosixPath(key).parts


def _refused(where: str, problem: str) -> Rejected:
    return Rejected(f"metadata.plate{where} {problem}; correct it and submit again with --replace")
