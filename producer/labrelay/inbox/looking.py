"""Look at a watched folder: which records are there, and how each file stands.

By listing, not by notifications: those do not come from network shares, and whether a file is complete can only be
told by looking at it twice anyway.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

DEFAULT_PATTERNS = ("*.xml", "*.json")

#: Endings of names that browsers, synchronisers and transfer programs give to what they have not finished.
PARTIAL_ENDINGS = (
    ".part", ".partial", ".tmp", ".temp", ".crdownload", ".download", ".filepart", ".opdownload", ".swp", "~",
)  # fmt: skip

#: Size in bytes and modification time in nanoseconds; None: it is not there, or cannot be looked at.
Stand = tuple[int, int] | None


def is_partial(name: str) -> bool:
    """Return whether a name says that its file is not finished, hidden, or a program's lock.

    Examples
    --------
    >>> [is_partial(name) for name in ("a.xml", "a.xml.part", ".a.xml.Xy3f", "~$a.xml")]
    [False, True, True, True]
    """
    return name.startswith((".", "~$")) or name.lower().endswith(PARTIAL_ENDINGS)


def records_in(folder: Path, patterns: Sequence[str]) -> Iterator[tuple[str, Stand]]:
    """Yield each record below a folder, relative with slashes, and how it stands. Hidden folders are left out.

    Raises
    ------
    OSError
        The folder itself cannot be listed, a share that is not mounted for instance.
    """
    waiting = [""]
    while waiting:
        below = waiting.pop()
        try:
            entries = sorted(os.scandir(folder / below), key=lambda entry: entry.name)
        except OSError:
            if not below:
                raise
            continue  # removed since it was listed, or not ours to read
        for entry in entries:
            name = f"{below}{entry.name}"
            if is_partial(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                waiting.append(f"{name}/")
            elif any(fnmatch(entry.name, pattern) for pattern in patterns) and _is_file(entry):
                yield name, stand_of(Path(entry.path))


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link in a circle, or to where we may not look: one such hides no other record
        return False


def stand_of(path: Path) -> Stand:
    """Return how a file stands."""
    try:
        # Not the listing's own answer: on Windows it is of when the file was last closed.
        stat = path.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns


def arriving(paths: Iterable[Path]) -> list[Path]:
    """Return the files beside which an unfinished copy of theirs lies, such as ``image.dm4.part``."""
    by_folder: dict[Path, list[Path]] = {}
    for path in paths:
        by_folder.setdefault(path.parent, []).append(path)
    found: list[Path] = []
    for folder, those in by_folder.items():
        try:
            names = [entry.name for entry in os.scandir(folder) if is_partial(entry.name)]
        except OSError:
            continue
        found += [path for path in those if any(_is_copy_of(name, path.name) for name in names)]
    return found


def _is_copy_of(partial: str, name: str) -> bool:
    """Return whether a partial name is another's: with an ending more, or as rsync has it (``.NAME.abcdef``)."""
    return partial.startswith((f"{name}.", f".{name}.")) or partial == f"{name}~"
