"""What the exceptions of foreign backends mean: the cause says it, the type that it is wrapped in rarely does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from labrelay_worker.backends.base import (
    AlreadyExists,
    BackendError,
    Corrupt,
    IsADirectory,
    NotADirectory,
    NotFound,
    Unavailable,
    Unsupported,
    from_os_error,
)

_MEANINGS: tuple[tuple[type[Exception], type[BackendError]], ...] = (
    (FileNotFoundError, NotFound),
    (FileExistsError, AlreadyExists),
    (IsADirectoryError, IsADirectory),
    (NotADirectoryError, NotADirectory),
)


@contextmanager
def understood(address: str | os.PathLike[str], otherwise: type[Unsupported] | type[Corrupt]) -> Iterator[None]:
    """Turn whatever a foreign backend raises into a backend error that names the address.

    Parameters
    ----------
    address
        What the caller asked for.
    otherwise
        What it means when the foreign backend says nothing better than ValueError or the like.
    """
    try:
        yield
    except BackendError:
        raise
    except Exception as error:
        raise _meaning(error, os.fspath(address), otherwise) from error


def _meaning(error: Exception, address: str, otherwise: type[Unsupported] | type[Corrupt]) -> BackendError:
    for link in _causes(error):
        for raised, meant in _MEANINGS:
            if isinstance(link, raised):
                return meant(f"{address}: {link}")
        if isinstance(link, OSError) and link.errno is not None:
            return from_os_error(link, address)
    if isinstance(error, TimeoutError | ConnectionError):
        return Unavailable(f"{address}: {error}")
    return otherwise(f"{address}: {type(error).__name__}: {error}")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen = set[int]()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__
