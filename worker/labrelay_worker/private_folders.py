"""Folders and sockets that no other user of this machine can enter, or could have prepared."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path

#: The kernel's limit for a socket path is 104 bytes on macOS and 108 on Linux.
_LONGEST_SOCKET_PATH = 100


class NotPrivate(Exception):
    """Others can enter the folder, or it cannot be made; the text says which."""


def make_private(folder: Path) -> None:
    """Make a folder that only this user can enter.

    Raises
    ------
    NotPrivate
        There is one that others own or can enter, or it cannot be made.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise NotPrivate(f"{folder} cannot be made ({error.strerror})") from None
    # Where everybody may write, somebody else may have put a folder or a link of this name.
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise NotPrivate(f"{folder} is not private to this user")


def socket_path(folder: Path, name: str) -> Path:
    """Return where a socket of this name lies: in the folder, or in a private temporary one where that is too long.

    Raises
    ------
    NotPrivate
        Others can enter that temporary folder, so whoever answers at the socket might be one of them.
    """
    usual = folder / name
    if len(os.fsencode(usual)) < _LONGEST_SOCKET_PATH:
        return usual
    digest = hashlib.sha256(os.fsencode(usual)).hexdigest()[:16]
    private = Path(tempfile.gettempdir(), f"labrelay-{os.geteuid()}-{digest}")
    make_private(private)
    return private / name
