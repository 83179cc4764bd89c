"""Put a finished folder in the place of another one in a single step. Local file systems."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from labrelay_worker.backends.files import partial_name

_AT_FDCWD = -100
_EXCHANGE = 2  # Linux, renameat2(2): RENAME_EXCHANGE; macOS, renamex_np(2): RENAME_SWAP
_CANNOT = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})


def swap(new: Path, old: Path) -> None:
    """Exchange two folders; afterwards `new` is the path of what was old.

    Where the file system cannot exchange (NFS, SMB), two renames do it, and a kill between them leaves nothing at
    the path of the old one: the delivery is then repeated, as after every kill.
    """
    if not _exchange(new, old):
        aside = new.with_name(partial_name())
        old.rename(aside)
        try:
            new.rename(old)
        except OSError:
            aside.rename(old)
            raise
        aside.rename(new)


def _exchange(first: Path, second: Path) -> bool:
    call = _system_call()
    if call is None:
        return False
    names = os.fsencode(first), os.fsencode(second)
    if sys.platform == "darwin":
        failed = call(*names, _EXCHANGE)
    else:
        failed = call(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _EXCHANGE)
    if not failed:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), str(second))


@lru_cache
def _system_call() -> Any:
    library = ctypes.CDLL(None, use_errno=True)
    return getattr(library, "renamex_np" if sys.platform == "darwin" else "renameat2", None)
