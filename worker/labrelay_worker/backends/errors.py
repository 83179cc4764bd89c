"""Errors of the backends, the same in every one, typed by what the caller must do."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import MappingProxyType
from typing import ClassVar

from labrelay import errors


class BackendError(errors.LabrelayError):
    """A backend could not do what was asked."""

    #: Whether the same call may succeed later without anybody changing the input.
    retryable: ClassVar[bool] = False


class NotFound(BackendError, FileNotFoundError):
    """There is nothing at this address."""


class AlreadyExists(BackendError, FileExistsError):
    """There is something at this address; pass if_exists="replace" or "skip" to allow it."""


class IsADirectory(BackendError, IsADirectoryError):
    """There is a directory where a file is needed."""


class NotADirectory(BackendError, NotADirectoryError):
    """There is a file where a directory is needed."""


class OutsideRoot(BackendError, PermissionError):
    """The address leads out of the backend's root folder."""


class Unsupported(BackendError, TypeError):
    """The backend cannot take this payload, address or option, now or later."""


class Corrupt(BackendError):
    """The content is not what it should be."""


class Unavailable(BackendError, errors.Unavailable):
    """The backend cannot do it now: try again later."""

    retryable = True


class UnknownBackend(errors.PluginError, KeyError):
    """There is no usable backend with this name."""

    # KeyError shows its argument in quotes, which makes a sentence unreadable.
    __str__ = Exception.__str__


class BackendFailed(errors.PluginError, RuntimeError):
    """A backend could not be made from its class and options."""


_BY_ERRNO: MappingProxyType[int, tuple[type[BackendError], str]] = MappingProxyType(
    {
        errno.ENOENT: (NotFound, "there is nothing at this address"),
        errno.EEXIST: (AlreadyExists, "there is something at this address already"),
        errno.EISDIR: (IsADirectory, "this is a directory"),
        errno.ENOTDIR: (NotADirectory, "a directory is needed, and a file is in its place"),
        errno.ENOTEMPTY: (IsADirectory, "the directory is not empty; delete_all deletes it with its content"),
        errno.ENAMETOOLONG: (Unsupported, "the file system cannot hold so long a name; shorten it"),
        errno.EINVAL: (Unsupported, "the file system refuses this name or operation"),
        errno.EILSEQ: (Unsupported, "the file system cannot hold this name; rename it"),
        errno.ELOOP: (Unsupported, "the symlinks lead in a circle; correct them"),
        errno.ENOSPC: (Unavailable, "the disk is full; free space, then it is tried again"),
        errno.EDQUOT: (Unavailable, "the disk quota is used up; free space or raise the quota"),
        errno.EROFS: (Unavailable, "the file system is read-only; mount it writable"),
        errno.EACCES: (Unavailable, "permission denied; give the worker's user access to this folder"),
        errno.EPERM: (Unavailable, "not permitted; give the worker's user access to this folder"),
    }
)


def from_os_error(error: OSError, address: str | os.PathLike[str]) -> BackendError:
    """Return the backend error that an error of the operating system means for this address.

    What is not known is `Unavailable`: a network drive that went away has many error numbers, and trying
    again harms nothing.
    """
    kind, text = _BY_ERRNO.get(error.errno or 0, (Unavailable, error.strerror or type(error).__name__))
    return kind(f"{os.fspath(address)}: {text}")


@contextmanager
def translated(address: str | os.PathLike[str]) -> Iterator[None]:
    """Turn errors of the operating system into backend errors that name this address."""
    try:
        yield
    except BackendError:  # some of them are OSErrors, too
        raise
    except OSError as error:
        raise from_os_error(error, address) from error
