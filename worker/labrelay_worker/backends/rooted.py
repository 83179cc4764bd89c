"""From addresses to paths, and never out of the root: used by the disk backend."""

from __future__ import annotations

import os
from pathlib import Path

from labrelay_worker.backends.base import Address, OutsideRoot, Unavailable, clean


class Root:
    """A folder that no address leaves, or the whole file system.

    Parameters
    ----------
    folder
        The root; None: addresses are paths of this machine, relative ones to the working directory.
    create
        Whether a write makes a missing root.
    """

    def __init__(self, folder: str | Path | None, *, create: bool) -> None:
        self.folder = None if folder is None else Path(os.path.realpath(Path(folder).expanduser()))
        self._create = create

    def path(self, address: Address, *, follow: bool = False) -> Path:
        """Return the path of an address, symlinks on the way resolved.

        Parameters
        ----------
        address
            Relative to the root, or absolute and inside it.
        follow
            Whether a symlink at the very end is resolved as well.

        Raises
        ------
        OutsideRoot
            It leads out of the root by ``..``, as an absolute path, or through a symlink.
        """
        text = clean(address)
        joined = Path(os.path.normpath(os.path.join(self.folder or Path.cwd(), text)))  # noqa: PTH118  keeps ".."
        path = Path(os.path.realpath(joined if follow or joined == self.folder else joined.parent))
        if not follow and joined != self.folder:
            path /= joined.name
        if self.folder is not None and not path.is_relative_to(self.folder):
            msg = f"{text}: leads out of the root folder {self.folder}; refused"
            raise OutsideRoot(msg)
        return path

    def is_itself(self, path: Path) -> bool:
        """Return whether a path is the root."""
        return path in (self.folder, Path(path.anchor))

    def require(self) -> None:
        """Raise Unavailable when the root is missing and must not be made."""
        if self.folder is not None and not self._create and not self.folder.is_dir():
            msg = f"the root folder {self.folder} is not there: mount it, or create it"
            raise Unavailable(msg)

    def shown(self, path: Path) -> str:
        """Return the address of a path: relative to the root, or absolute without one or outside it."""
        if self.folder is not None and path.is_relative_to(self.folder):
            return path.relative_to(self.folder).as_posix()
        return path.as_posix()
