"""The zarr backend: signals as OME-Zarr images and plates, everything else as files beside them.

Arrays and `Signal` payloads at addresses that end in ``.zarr`` are images; ``NAME.zarr/ROW/COLUMN/FIELD`` is one of a
plate's well. An image is one file to everybody who lists, moves or deletes; a plate is a directory of images.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar, get_args

from labrelay_worker.backends.base import (
    Address,
    IfExists,
    NotADirectory,
    NotFound,
    StorageBackend,
    Unsupported,
    clean,
    is_listed,
    pairs,
)
from labrelay_worker.backends.disk import DiskBackend
from labrelay_worker.backends.ngff.bucket import Bucket
from labrelay_worker.backends.ngff.codecs import codec_named
from labrelay_worker.backends.ngff.folders import FolderImages
from labrelay_worker.backends.ngff.image_store import ImageStore
from labrelay_worker.backends.ngff.images import HIDDEN, SUFFIX, Images, Spot, spot_of
from labrelay_worker.backends.ngff.metadata import Version
from labrelay_worker.backends.ngff.object_files import ObjectFiles
from labrelay_worker.backends.ngff.object_images import ObjectImages
from labrelay_worker.backends.ngff.stored import StoredImage
from labrelay_worker.backends.ngff.writing import Recipe
from labrelay_worker.backends.rooted import Root
from labrelay_worker.reading.signal import Signal, of_array

# Looked for, not loaded: a worker that stores no images does without its second of start-up time.
for _package in ("numcodecs", "zarr"):
    if importlib.util.find_spec(_package) is None:
        raise ModuleNotFoundError(f"No module named {_package!r}", name=_package)

_SMALLEST_CHUNK = 16


class ZarrBackend(StorageBackend):
    """Images in folders or in an object store.

    Parameters
    ----------
    root
        Folder, or URL of an object store (``s3://bucket/prefix``). None: addresses are paths of this machine.
    ngff
        Version of OME-NGFF: "0.5" on Zarr 3, sharded, or "0.4" on Zarr 2 for older viewers, a file per chunk.
    codec
        "lz4", "lz4-bitshuffle", "zstd" or "none"; docs/backends.md has the measurements.
    chunk
        Longest side of a chunk in pixels, a power of two; in a shard, a chunk is at most 2 MiB.
    levels
        Most resolutions of an image; None: until a plane is at most 512 pixels long. 1: no smaller ones.
    verify
        Read every file back from the device and compare its checksum before an image becomes visible; with an
        object store, have it compare checksums.
    originals
        As a destination: store instrument files as they are, too, beside the images made of them.
    create_root
        Whether to make a missing root folder.
    endpoint, region
        Of an S3-like service. Credentials come from the environment, as AWS's own tools take them.
    """

    _backend_type: ClassVar[str | None] = "zarr"
    takes_signals: ClassVar[bool] = True

    def __init__(
        self,
        root: str | Path | None = None,
        *,
        ngff: Version = "0.5",
        codec: str = "lz4",
        chunk: int = 2048,
        levels: int | None = None,
        verify: bool = True,
        originals: bool = False,
        create_root: bool = True,
        endpoint: str | None = None,
        region: str | None = None,
    ) -> None:
        if ngff not in get_args(Version):
            raise Unsupported(f"ngff {ngff!r}: use one of {', '.join(get_args(Version))}")
        if chunk < _SMALLEST_CHUNK or chunk & (chunk - 1):
            raise Unsupported(f"chunk {chunk}: use a power of two of at least {_SMALLEST_CHUNK}, such as 2048")
        if levels is not None and levels < 1:
            raise Unsupported(f"levels {levels}: use 1 or more, or leave it out")
        self.keeps_originals = originals
        self._files, images = _places(root, endpoint, region, verify=verify, create_root=create_root)
        self._images = ImageStore(images, self._files, Recipe(ngff, codec_named(codec), chunk, levels))
        self.cannot = self._files.cannot

    def save(self, data: Any, identifier: Address, *, if_exists: IfExists = "error") -> None:
        """Store an image, or any other payload as a file in the format of its suffix."""
        self.save_batch([data], [identifier], if_exists=if_exists)

    def save_batch(
        self, data_list: Sequence[Any], identifiers: Sequence[Address], *, if_exists: IfExists = "error"
    ) -> None:
        """Store all or none. Plates name new images after all of them are in place."""
        images: list[tuple[Spot, Signal]] = []
        others: list[tuple[Any, Address]] = []
        for data, address in pairs(data_list, identifiers):
            image = _image_of(data, clean(address))
            if image is None:
                others.append((data, address))
            else:
                images.append(image)
        with self._images.put(images, if_exists):
            if others:
                self._files.save_batch([data for data, _ in others], [at for _, at in others], if_exists=if_exists)

    def save_file(
        self, source: Path, identifier: Address, *, sha256: str | None = None, if_exists: IfExists = "error"
    ) -> tuple[int, str]:
        """Store a local file byte for byte; see the base class."""
        return self._files.save_file(source, identifier, sha256=sha256, if_exists=if_exists)

    def load(self, file_path: Address) -> Any:
        """Return an image's full resolution as a numpy array, or what a file's suffix says."""
        image = self._images.open(clean(file_path))
        return self._files.load(file_path) if image is None else image.whole()

    def open_image(self, address: Address) -> StoredImage:
        """Return an image to read planes, levels and axes from, without loading it. Raises NotFound."""
        image = self._images.open(clean(address))
        if image is None:
            msg = f"{clean(address)}: there is no image at this address"
            raise NotFound(msg)
        return image

    def sha256(self, path: Address) -> str:
        """Return the sha256 (hex) of a file; of an image, over sha256 and name of each of its files as stored."""
        return self._images.sha256(clean(path)) if self._is_image(path) else self._files.sha256(path)

    def size(self, path: Address) -> int:
        """Return the bytes of a file, or of all files of an image."""
        return self._images.size(clean(path)) if self._is_image(path) else self._files.size(path)

    def list_files(
        self,
        directory: Address,
        pattern: str | None = None,
        extensions: Collection[str] | None = None,
        recursive: bool = False,
    ) -> list[Path]:
        """Return sorted addresses of files and images."""
        self._files.list_dir(directory)
        self._refuse_image(directory)
        given = Path(clean(directory))
        found = self._images.images.entries(clean(directory), recursive=recursive)
        return sorted(given / name for name in found if is_listed(Path(name).name, pattern, extensions))

    def is_file(self, path: Address) -> bool:
        """Return whether it is a file or an image."""
        return self._is_image(path) or self._files.is_file(path)

    def is_dir(self, path: Address) -> bool:
        """Return whether it is a directory or a plate."""
        return self._files.is_dir(path) and not self._is_image(path)

    def list_dir(self, path: Address) -> list[str]:
        """Return the sorted names in a directory."""
        self._refuse_image(path)
        names = self._files.list_dir(path)
        return [name for name in names if name not in HIDDEN] if SUFFIX in clean(path).lower() else names

    def delete(self, path: Address) -> None:
        """Delete a file, an image, a symlink or an empty directory."""
        if self._is_image(path) and not self._files.is_symlink(path):
            self._images.remove(clean(path))
        else:
            self._files.delete(path)

    def delete_all(self, path: Address) -> None:
        """Delete a file, an image, a symlink or a directory with all it holds."""
        if self._is_image(path) and not self._files.is_symlink(path):
            self._images.remove(clean(path))
        else:
            self._files.delete_all(path)
            self._images.forget_below(clean(path))

    def ensure_directory(self, directory: Address) -> Path:
        """Make a directory and its parents."""
        self._refuse_image(directory)
        return self._files.ensure_directory(directory)

    def create_symlink(self, source: Address, link: Address, overwrite: bool = False) -> None:
        """Make a link to an existing source; object stores have none."""
        self._files.create_symlink(source, link, overwrite)

    def is_symlink(self, path: Address) -> bool:
        """Return whether it is a symlink."""
        return self._files.is_symlink(path)

    def move(self, source: Address, target: Address, *, if_exists: IfExists = "error") -> None:
        """Move a file, an image, a symlink itself or a directory."""
        if not self._is_image(source) or self._files.is_symlink(source):
            self._files.move(source, target, if_exists=if_exists)
        elif self._images.copy(clean(source), clean(target), if_exists):
            self.delete(source)

    def copy(self, source: Address, target: Address, *, if_exists: IfExists = "error") -> None:
        """Copy a file, an image or a directory."""
        if self._is_image(source):
            self._images.copy(clean(source), clean(target), if_exists)
        else:
            self._files.copy(source, target, if_exists=if_exists)

    def stat(self, path: Address) -> dict[str, Any]:
        """Return what is there; see the base class."""
        if not self._is_image(path) or self._files.is_symlink(path):
            return self._files.stat(path)
        return {"path": clean(path), "type": "file", "exists": True, "size": self.size(path)}

    def url(self, path: Address) -> str:
        """Return where people find it."""
        return self._files.url(path)

    def cleanup_connections(self) -> None:
        """Close connections to an object store; the next use connects again."""
        self._files.cleanup_connections()

    def cleanup(self) -> None:
        """Close everything."""
        self._files.cleanup_connections()
        self._files.cleanup()

    def _is_image(self, address: Address) -> bool:
        return self._images.holds(clean(address))

    def _refuse_image(self, address: Address) -> None:
        if self._is_image(address):
            raise NotADirectory(f"{clean(address)}: a directory is needed, and an image is in its place")


def _places(
    root: str | Path | None, endpoint: str | None, region: str | None, *, verify: bool, create_root: bool
) -> tuple[StorageBackend, Images]:
    """Return where files and where images are kept: in folders, or in an object store."""
    if "://" not in str(root or ""):
        files = DiskBackend(root, verify=verify, create_root=create_root)
        return files, FolderImages(Root(root, create=create_root), verify=verify)
    if importlib.util.find_spec("obstore") is None:
        raise Unsupported('an object store needs the package obstore: pip install "labrelay[zarr]"')
    bucket = Bucket(str(root), endpoint=endpoint, region=region, verify=verify)
    return ObjectFiles(bucket), ObjectImages(bucket)


def _image_of(data: Any, address: str) -> tuple[Spot, Signal] | None:
    """Return where a payload goes as an image; None: it is stored as a file."""
    if isinstance(data, Signal):
        spot = spot_of(address, data.well)
        if spot is None:
            raise Unsupported(f"{address}: a signal is stored as an image, at an address that ends in {SUFFIX}")
        return spot, data
    if (spot := spot_of(address)) is None:
        return None
    if not (hasattr(data, "dtype") and hasattr(data, "shape")):
        raise Unsupported(
            f"{address}: a {type(data).__name__} is no image; take an address that does not end in .zarr"
        )
    return spot, of_array(data, Path(spot.address).name.partition(".")[0])
