"""Images and plates in a folder of this machine or of a mounted share."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from labrelay_worker.backends.base import IfExists, is_partial, translated
from labrelay_worker.backends.files import read_span, remove, sync_folder
from labrelay_worker.backends.ngff.codecs import Buffer
from labrelay_worker.backends.ngff.images import HIDDEN, ROOTS, SUFFIX, Span, Spot, Writing, node_of
from labrelay_worker.backends.ngff.metadata import Version
from labrelay_worker.backends.ngff.plate_folder import commit_plate
from labrelay_worker.backends.ngff.staging import Staging
from labrelay_worker.backends.ngff.writing import ImageContent, Recipe
from labrelay_worker.backends.rooted import Root
from labrelay_worker.reading.signal import Signal, Well


class FolderImages:
    """Images below a root folder; see `Images`.

    Parameters
    ----------
    root
        Keeps addresses inside.
    verify
        Read every file back from the device before an image becomes visible.
    """

    def __init__(self, root: Root, *, verify: bool) -> None:
        self._root, self._verify = root, verify

    def root(self, address: str) -> bytes | None:
        """Return the root document; None: there is none."""
        folder = self._path(address)
        return next((text for name in ROOTS if (text := _content(folder / name)) is not None), None)

    def sizes(self, address: str) -> dict[str, int]:
        """Return the bytes of every file, by key."""
        folder = self._path(address)
        with translated(address):
            files = [Path(above, name) for above, _, names in os.walk(folder) for name in names]
            return {file.relative_to(folder).as_posix(): file.stat().st_size for file in files}

    def read(self, address: str, key: str, spans: Sequence[Span] | None = None) -> list[Buffer]:
        """Return the content of one file, whole or the spans asked for."""
        with translated(f"{address}/{key}"), (self._path(address) / key).open("rb", buffering=0) as file:
            if spans is None:
                return [file.readall()]
            return [read_span(file.fileno(), start, length) for start, length in spans]

    def place(self, address: str) -> Path:
        """Return the folder."""
        return self._path(address)

    def entries(self, directory: str, *, recursive: bool) -> Iterator[str]:
        """Yield files and images, relative to the directory."""
        with translated(directory):
            yield from _entries(self._path(directory), "", recursive=recursive)

    @contextmanager
    def writing(self) -> Iterator[Writing]:
        """Return a transaction."""
        self._root.require()
        with Staging(verify=self._verify) as staging:
            yield _FolderWriting(self._root, staging)

    def commit_plate(self, plate: str, wells: Sequence[Well], version: Version) -> None:
        """Make the plate's documents say what it holds."""
        commit_plate(self._path(plate), wells, version)

    def remove(self, address: str) -> None:
        """Delete an image."""
        folder = self._root.path(address)
        with translated(address):
            # Its root first: a half-deleted image is none.
            for name in ROOTS:
                (folder / name).unlink(missing_ok=True)
            remove(folder)
            sync_folder(folder.parent)

    def _path(self, address: str) -> Path:
        return self._root.path(address, follow=True)


class _FolderWriting:
    def __init__(self, root: Root, staging: Staging) -> None:
        self._root, self._staging = root, staging

    def stage(self, spot: Spot, signal: Signal, recipe: Recipe) -> None:
        with translated(spot.address):
            self._staging.stage(*self._paths(spot), ImageContent(signal, recipe))

    def stage_copy(self, spot: Spot, source: str) -> None:
        with translated(spot.address):
            self._staging.stage_links(*self._paths(spot), self._root.path(source, follow=True))

    def publish(self, if_exists: IfExists) -> None:
        self._staging.publish(if_exists)

    def _paths(self, spot: Spot) -> tuple[Path, Path]:
        """Return where the image goes and the folder to stage it in: a plate's own, so that wells stay clean."""
        target = self._root.path(spot.address)
        return target, target.parent if spot.plate is None else self._root.path(spot.plate)


def _entries(folder: Path, prefix: str, *, recursive: bool) -> Iterator[str]:
    inside = _is_container(folder)
    with os.scandir(folder) as found:
        for entry in found:
            if is_partial(entry.name) or (inside and entry.name in HIDDEN):
                continue
            name = f"{prefix}{entry.name}"
            if not os.path.isdir(entry.path):  # noqa: PTH112  as below: False for symlinks in a circle
                if os.path.isfile(entry.path):  # noqa: PTH113
                    yield name
            elif (inside or entry.name.lower().endswith(SUFFIX)) and _is_image(Path(entry.path)):
                yield name
            elif recursive and not entry.is_symlink():
                yield from _entries(Path(entry.path), f"{name}/", recursive=True)


def _is_image(folder: Path) -> bool:
    return any((text := _content(folder / name)) is not None and node_of(text) == "image" for name in ROOTS)


def _is_container(folder: Path) -> bool:
    return any((text := _content(folder / name)) is not None and node_of(text) == "container" for name in ROOTS)


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
