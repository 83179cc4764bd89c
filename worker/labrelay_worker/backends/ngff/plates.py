"""What a plate declares, rebuilt from what it holds. Pure.

Images of wells are committed one by one by any number of workers; the documents that name them (plate, rows, wells)
are always made anew from the images that are there, so that a commit repairs whatever another one did not finish.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from labrelay_worker.backends.base import Unsupported
from labrelay_worker.backends.ngff.metadata import (
    Version,
    group_documents,
    natural,
    plate_attributes,
    root_key,
    well_attributes,
)
from labrelay_worker.reading.signal import Well

_NAME = re.compile(r"[A-Za-z0-9]+")  # NGFF 0.5, plate: names of rows and columns
_PARTS = 3


@dataclass(frozen=True)
class Declared:
    """What a plate says of itself: its name and all its rows and columns, imaged or not."""

    name: str = ""
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()

    def joined(self, wells: Iterable[Well]) -> Declared:
        """Return it with what further wells say of their plate; a name once given stays."""
        name, rows, columns = self.name, set(self.rows), set(self.columns)
        for well in wells:
            name = name or well.plate
            rows |= {well.row, *well.rows}
            columns |= {well.column, *well.columns}
        return Declared(name, tuple(sorted(rows, key=natural)), tuple(sorted(columns, key=natural)))


def well_at(inner: tuple[str, ...], address: str) -> Well:
    """Return the well of an address inside a plate, ``ROW/COLUMN/FIELD``. Raises Unsupported."""
    if len(inner) == _PARTS and _NAME.fullmatch(inner[0]) and _NAME.fullmatch(inner[1]) and inner[2].isdecimal():
        return Well("", inner[0], inner[1], int(inner[2]))
    msg = f"{address}: inside a .zarr there are only images of a plate's wells, at ROW/COLUMN/NUMBER"
    raise Unsupported(msg)


def declared_in(document: bytes | None) -> Declared:
    """Return what a plate document declares; nothing if there is none or it is damaged, it is made anew then."""
    try:
        attributes = json.loads(document or b"{}")
        if "attributes" in attributes:
            attributes = attributes["attributes"].get("ome", {})
        plate = attributes.get("plate") or {}
        names = [tuple(str(entry["name"]) for entry in plate.get(key, ())) for key in ("rows", "columns")]
        return Declared(str(plate.get("name", "")), *names)
    except (ValueError, AttributeError, KeyError, TypeError):
        return Declared()


def documents(
    found: Mapping[tuple[str, str], Iterable[int]], declared: Declared, version: Version
) -> dict[str, bytes]:
    """Return every document of a plate by key, in the order of writing: what is named comes before who names it.

    Parameters
    ----------
    found
        Numbers of the images that are there, by row and column.
    declared
        What the plate declares besides.
    version
        Of NGFF.
    """
    wells = {well: sorted(fields) for well, fields in found.items()}
    everything = declared.joined(Well("", row, column) for row, column in wells)
    result: dict[str, bytes] = {}

    def add(prefix: str, attributes: dict[str, Any] | None) -> None:
        result.update({f"{prefix}{key}": text for key, text in group_documents(attributes, version).items()})

    for row in sorted({row for row, _ in wells}, key=natural):
        add(f"{row}/", None)
    for (row, column), fields in sorted(wells.items()):
        add(f"{row}/{column}/", well_attributes(fields, version))
    counts = {well: len(fields) for well, fields in wells.items()}
    add("", plate_attributes(everything.name, everything.rows, everything.columns, counts, version))
    return result


def field_of(key: str, version: Version) -> tuple[str, str, int] | None:
    """Return row, column and number when this key inside a plate is the root of an image, else None."""
    parts = key.split("/")
    if len(parts) == _PARTS + 1 and parts[3] == root_key(version) and parts[2].isdecimal():
        return parts[0], parts[1], int(parts[2])
    return None
