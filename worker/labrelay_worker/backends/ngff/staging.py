"""Images in folders, written whole: staged under hidden names, flushed, checked, and put in place in one step."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

from labrelay_worker.backends.base import Corrupt, IfExists, settle, translated
from labrelay_worker.backends.files import (
    make_folders,
    partial_name,
    read_chunks,
    remove,
    remove_stale,
    sync,
    sync_folder,
)
from labrelay_worker.backends.ngff.checking import check_image
from labrelay_worker.backends.ngff.codecs import Buffer
from labrelay_worker.backends.ngff.swapping import swap
from labrelay_worker.backends.ngff.writing import FileNote, ImageContent, note_of

_NOT_EMPTY = frozenset({errno.ENOTEMPTY, errno.EEXIST})

Undo = Callable[[], object]


class Staging:
    """Images written under hidden names; `publish` puts all of them in place, leaving it otherwise undoes all.

    Parameters
    ----------
    verify
        Read every file back from the device and compare before anything becomes visible.
    """

    def __init__(self, *, verify: bool) -> None:
        self._verify = verify
        self._staged: list[tuple[Path, Path]] = []
        self._temporary: list[Path] = []
        self._folders: list[Path] = []
        self._undo: list[Undo] = []

    def __enter__(self) -> Staging:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        failed = error is not None
        steps: list[Undo] = [
            *(reversed(self._undo) if failed else ()),
            *(partial(remove, path) for path in self._temporary),
            *(folder.rmdir for folder in reversed(self._folders) if failed),
        ]
        for step in steps:
            with suppress(OSError):  # gone already, or a folder of ours that a neighbour uses by now
                step()

    def stage(self, target: Path, beside: Path, content: ImageContent) -> None:
        """Write an image under a hidden name in the folder `beside`, flush it and read it back."""
        temporary = self._new(target, beside)
        temporary.mkdir()
        files: dict[str, FileNote] = {}
        for key, pieces in content.arrays():
            files[key] = self._put(temporary / key, pieces)
        endings = content.ending(files)
        for key, document in endings.items():
            self._put(temporary / key, [document])
        self._flush(temporary)
        check_image(temporary, list(endings.values())[-1])

    def stage_links(self, target: Path, beside: Path, source: Path) -> None:
        """Take an image that is stored already under a hidden name, as further names of its files."""
        temporary = self._new(target, beside)
        for folder, _, names in os.walk(source):
            twin = temporary / Path(folder).relative_to(source)
            twin.mkdir()
            for name in names:
                try:
                    # Files of an image are never written again, only replaced, so two images can share them.
                    os.link(Path(folder, name), twin / name)
                except OSError:  # a file system without hard links, or another one
                    self._put(twin / name, read_chunks(Path(folder, name)))
        self._flush(temporary)

    def publish(self, if_exists: IfExists) -> None:
        """Make the staged images visible, in order, and durable."""
        for temporary, target in self._staged:
            with translated(target):
                self._folders += make_folders(target.parent)
                self._put_in_place(temporary, target, if_exists)
                sync_folder(target.parent)

    def _put_in_place(self, temporary: Path, target: Path, if_exists: IfExists) -> None:
        try:
            # Takes the place of nothing or of an empty folder, and of nothing else.
            temporary.rename(target)
        except OSError as error:
            if error.errno not in _NOT_EMPTY:
                raise
        else:
            self._undo.append(lambda: target.rename(temporary))
            return
        if settle("file", "file", if_exists, target):
            swap(temporary, target)
            self._undo.append(lambda: swap(temporary, target))

    @staticmethod
    def _flush(temporary: Path) -> None:
        for folder, _, _ in os.walk(temporary, topdown=False):
            sync_folder(Path(folder))

    def _new(self, target: Path, beside: Path) -> Path:
        self._folders += make_folders(beside)
        remove_stale(beside)
        temporary = beside / partial_name()
        self._temporary.append(temporary)
        self._staged.append((temporary, target))
        return temporary

    def _put(self, path: Path, pieces: Iterable[Buffer]) -> FileNote:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            note = note_of(_written(file, pieces))
            file.flush()
            sync(file.fileno())
        if self._verify and note_of(read_chunks(path, from_device=True)) != note:
            msg = f"{path.parent}: the device did not give back what was written; nothing was stored. Check it"
            raise Corrupt(msg)
        return note


def _written(file: BinaryIO, pieces: Iterable[Buffer]) -> Iterator[Buffer]:
    """Write each piece and pass it on, so that no more than one is held."""
    for piece in pieces:
        file.write(piece)
        yield piece
