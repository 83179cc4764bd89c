"""What the zarr backend needs of a place that holds images, be it a folder or an object store."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal, Protocol

from labrelay_worker.backends.base import IfExists
from labrelay_worker.backends.ngff.codecs import Buffer
from labrelay_worker.backends.ngff.metadata import Version
from labrelay_worker.backends.ngff.plates import well_at
from labrelay_worker.backends.ngff.writing import INVENTORY, Recipe
from labrelay_worker.reading.signal import Signal, Well

SUFFIX = ".zarr"
ROOTS = ("zarr.json", ".zattrs")
#: Files of plates, rows and wells that are no content of theirs.
LOCK = ".lock"
HIDDEN = frozenset({*ROOTS, ".zgroup", LOCK})
_CONTAINERS = ("plate", "well")

Node = Literal["image", "container"]
#: Where in a file to read, offset and length in bytes; a negative offset counts from the end.
Span = tuple[int, int]


@dataclass(frozen=True)
class Spot:
    """Where an image goes: its address and, for an image of a plate, the plate's address and the well."""

    address: str
    plate: str | None = None
    well: Well | None = None


class Writing(Protocol):
    """Images on their way: nothing is visible before `publish`, and nothing stays after an error."""

    def stage(self, spot: Spot, signal: Signal, recipe: Recipe) -> None:
        """Write an image where nobody looks yet."""

    def stage_copy(self, spot: Spot, source: str) -> None:
        """Take a stored image for another address."""

    def publish(self, if_exists: IfExists) -> None:
        """Make all staged images visible."""


class Images(Protocol):
    """A place that holds images."""

    def root(self, address: str) -> bytes | None:
        """Return the root document of an image or plate; None: there is none at this address."""

    def sizes(self, address: str) -> dict[str, int]:
        """Return the bytes of every file of an image, by key."""

    def read(self, address: str, key: str, spans: Sequence[Span] | None = None) -> list[Buffer]:
        """Return the content of one file, whole or the spans asked for. Raises NotFound."""

    def place(self, address: str) -> Any:
        """Return what zarr opens."""

    def entries(self, directory: str, *, recursive: bool) -> Iterator[str]:
        """Yield files and images below a directory, relative to it; what belongs to an image is not told."""

    def writing(self) -> AbstractContextManager[Writing]:
        """Return a transaction."""

    def commit_plate(self, plate: str, wells: Sequence[Well], version: Version) -> None:
        """Make the plate's documents say what it holds."""

    def remove(self, address: str) -> None:
        """Delete an image."""


def spot_of(address: str, given: Well | None = None) -> Spot | None:
    """Return where an image of this address goes; None: the address is not one of an image.

    Raises
    ------
    Unsupported
        It lies inside a .zarr, but is not an image of a plate's well.
    """
    parts = PurePosixPath(address).parts
    names = [number for number, part in enumerate(parts) if part.lower().endswith(SUFFIX)]
    if not names:
        return None
    inner = parts[names[0] + 1 :]
    if not inner:
        return Spot(str(PurePosixPath(address)))
    well = well_at(inner, address)
    if given is not None:
        well = Well(given.plate, well.row, well.column, well.field, given.rows, given.columns)
    return Spot(str(PurePosixPath(address)), str(PurePosixPath(*parts[: names[0] + 1])), well)


def node_of(root: bytes) -> Node:
    """Return what a root document is that of; one that cannot be read belongs to a (damaged) image."""
    try:
        document = json.loads(root)
        if document.get("node_type") == "array":
            return "image"
        attributes = document["attributes"].get("ome", {}) if "node_type" in document else document
        own = "labrelay" in document.get("attributes", document)
    except (ValueError, AttributeError, KeyError, TypeError):
        return "image"
    if own or "multiscales" in attributes:
        return "image"
    is_row = not attributes
    return "container" if is_row or any(name in attributes for name in _CONTAINERS) else "image"


def own_attributes(root: bytes) -> Mapping[str, Any]:
    """Return what labrelay wrote about an image; empty for an image made by others."""
    try:
        document = json.loads(root)
        found = document.get("attributes", document).get("labrelay", {})
    except (ValueError, AttributeError):
        return {}
    return found if isinstance(found, Mapping) else {}


def inventory_of(images: Images, address: str, root: bytes) -> Mapping[str, Any]:
    """Return the inventory of an image; empty if there is none."""
    arrays = own_attributes(root).get("arrays")
    if not arrays:
        return {}
    try:
        found = json.loads(images.read(address, f"{arrays[0]}/{INVENTORY}")[0])
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, Mapping) else {}


def is_same(images: Images, address: str, identity: str) -> bool:
    """Return whether this very content is stored there already, with every file in its size."""
    root = images.root(address) if identity else None
    if root is None:
        return False
    inventory = inventory_of(images, address, root)
    sizes = images.sizes(address)
    files: Mapping[str, Mapping[str, Any]] = inventory.get("files", {})
    return inventory.get("identity") == identity and all(
        sizes.get(key) == entry["size"] for key, entry in files.items()
    )
