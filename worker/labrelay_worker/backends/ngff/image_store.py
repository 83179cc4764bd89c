"""The images of a place under the contract of every backend: overwrite policy, batches, and plates that name them.

`Images` moves bytes; here is decided which images are written, copied and deleted, and what a plate then says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import PurePosixPath

from labrelay_worker.backends.base import IfExists, Kind, StorageBackend, Unsupported, require_distinct, settle
from labrelay_worker.backends.ngff.images import SUFFIX, Images, Spot, inventory_of, is_same, node_of, spot_of
from labrelay_worker.backends.ngff.stored import StoredImage
from labrelay_worker.backends.ngff.writing import Recipe, digest_of, image_digest
from labrelay_worker.reading.signal import Signal, Well


class ImageStore:
    """Images by clean address (see `labrelay_worker.backends.base.clean`).

    Parameters
    ----------
    images
        Where they are.
    files
        What is stored beside them, in the same place.
    recipe
        How they are stored.
    """

    def __init__(self, images: Images, files: StorageBackend, recipe: Recipe) -> None:
        self.images, self._files, self._recipe = images, files, recipe

    def holds(self, address: str) -> bool:
        """Return whether there is an image at this address."""
        return self._root(address) is not None

    def open(self, address: str) -> StoredImage | None:
        """Return the image at this address, if there is one."""
        root = self._root(address)
        return None if root is None else StoredImage(self.images, address, root)

    @contextmanager
    def put(self, images: Sequence[tuple[Spot, Signal]], if_exists: IfExists) -> Iterator[None]:
        """Put all or none in place; an error in the block takes them back. Plates name them after it."""
        require_distinct([spot.address for spot, _ in images])
        with self.images.writing() as writing:
            for spot, signal in images:
                if self._must_write(spot, signal, if_exists):
                    writing.stage(spot, signal, self._recipe)
            writing.publish(if_exists)
            yield
        self._commit_plates(spot for spot, _ in images)

    def copy(self, source: str, target: str, if_exists: IfExists) -> bool:
        """Copy an image; return whether it was, False when the policy or the addresses leave nothing to do."""
        spot = spot_of(target)
        if spot is None:
            raise Unsupported(f"{target}: the address of an image ends in {SUFFIX}")
        if not settle(self._kind(target), "file", if_exists, target) or str(spot_of(source)) == str(spot):
            return False
        with self.images.writing() as writing:
            writing.stage_copy(spot, source)
            writing.publish(if_exists)
        self._commit_plates([spot])
        return True

    def remove(self, address: str) -> None:
        """Delete an image."""
        self.images.remove(address)
        self._commit_plates([spot_of(address)])

    def forget_below(self, address: str) -> None:
        """Let a plate forget a row or well of it that was deleted as a directory."""
        for parent in map(str, PurePosixPath(address).parents):
            if parent.lower().endswith(SUFFIX) and self.images.root(parent) is not None:
                self.images.commit_plate(parent, [], self._recipe.version)

    def sha256(self, address: str) -> str:
        """Return the sha256 (hex) over sha256 and name of each file of an image as stored."""
        return image_digest({key: digest_of(self.images.read(address, key)) for key in self._files_of(address)})

    def size(self, address: str) -> int:
        """Return the bytes of all files of an image."""
        return sum(self._files_of(address).values())

    def _root(self, address: str) -> bytes | None:
        if SUFFIX not in address.lower():
            return None
        root = self.images.root(address)
        return root if root is not None and node_of(root) == "image" else None

    def _files_of(self, address: str) -> dict[str, int]:
        """Return the bytes of the files that the inventory names, or of all where there is none."""
        sizes = self.images.sizes(address)
        named = inventory_of(self.images, address, self._root(address) or b"").get("files")
        return {key: sizes.get(key, 0) for key in named} if named else sizes

    def _must_write(self, spot: Spot, signal: Signal, if_exists: IfExists) -> bool:
        kind = self._kind(spot.address)
        if not settle(kind, "file", if_exists, spot.address):
            return False
        if kind == "file" and not self.holds(spot.address):
            raise Unsupported(f"{spot.address}: a file is in the place of the image; delete it first")
        return not is_same(self.images, spot.address, signal.identity)

    def _kind(self, address: str) -> Kind | None:
        """Return what is there; a directory with nothing in it is nothing, as it may become an image."""
        if self.holds(address) or self._files.is_file(address):
            return "file"
        holds_something = self._files.is_dir(address) and (
            self.images.root(address) is not None or any(self.images.entries(address, recursive=True))
        )
        return "directory" if holds_something else None

    def _commit_plates(self, spots: Iterable[Spot | None]) -> None:
        wells: dict[str, list[Well]] = {}
        for spot in spots:
            if spot is not None and spot.plate is not None and spot.well is not None:
                wells.setdefault(spot.plate, []).append(spot.well)
        for plate, named in wells.items():
            self.images.commit_plate(plate, named, self._recipe.version)
