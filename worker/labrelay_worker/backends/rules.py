"""Rules that every backend keeps alike: addresses, the overwrite policy, what a listing shows."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any, Literal, get_args

from labrelay_worker.backends.errors import AlreadyExists, IsADirectory, NotADirectory, Unsupported

Address = str | os.PathLike[str]
IfExists = Literal["error", "replace", "skip"]
Kind = Literal["file", "directory"]
Capability = Literal[
    "arrays", "batches", "bytes", "copies", "directories", "moves", "objects", "replacing", "symlinks"
]

#: What every backend can do, unless it says in `cannot` that it cannot: the end of "it cannot …".
CAPABILITIES: Mapping[Capability, str] = MappingProxyType(
    {
        "arrays": "keep numpy arrays",
        "batches": "save several payloads as one, all or none",
        "bytes": "keep bytes, text and local files as they are",
        "copies": "copy",
        "directories": "keep directories with nothing in them",
        "moves": "move",
        "objects": "keep lists, dicts and numbers",
        "replacing": "put new content in the place of old at once",
        "symlinks": "make symlinks",
    }
)


def clean(address: Address) -> str:
    """Return an address as text.

    Raises
    ------
    Unsupported
        It is no text or path, holds a NUL, or has the form of an unfinished file, which no listing shows.
    """
    given: object = address  # callers without a type checker pass anything
    text = os.fspath(given) if isinstance(given, str | os.PathLike) else None
    if not isinstance(text, str):
        msg = f"an address is a str or a path, not {type(address).__name__}"
        raise Unsupported(msg)
    if "\0" in text:
        msg = f"{text!r}: a name cannot hold the NUL character"
        raise Unsupported(msg)
    if any(map(is_partial, PurePosixPath(text).parts)):
        msg = f"{text}: names like .x.partial are kept for files being written; choose another"
        raise Unsupported(msg)
    return text or "."


def refusal(backend: object, capability: Capability) -> Unsupported:
    """Return the error of a backend that is asked for what it says that it cannot do."""
    key = getattr(backend, "_backend_type", None) or type(backend).__name__
    return Unsupported(f"the backend {key!r} cannot {CAPABILITIES[capability]}. Use another backend for this")


def is_partial(name: str) -> bool:
    """Return whether a name is that of a file still being written."""
    return name.startswith(".") and name.endswith(".partial")


def pairs(payloads: Sequence[Any], addresses: Sequence[Address]) -> list[tuple[Any, Address]]:
    """Return payloads with their addresses.

    Raises
    ------
    ValueError
        There are not as many of the one as of the other.
    """
    if len(payloads) != len(addresses):
        msg = f"{len(payloads)} payloads and {len(addresses)} addresses: there must be as many"
        raise ValueError(msg)
    return list(zip(payloads, addresses, strict=True))


def require_distinct(places: Collection[object]) -> None:
    """Raise Unsupported when a batch names one place twice."""
    if len(set(places)) < len(places):
        msg = "one address is named twice in this batch"
        raise Unsupported(msg)


def settle(present: Kind | None, wanted: Kind, if_exists: IfExists, address: Address) -> bool:
    """Return whether to write, given what is present there; the one reading of the overwrite policy.

    Raises
    ------
    AlreadyExists
        Something is there and the policy is "error".
    IsADirectory, NotADirectory
        What is there is of the other kind, which no policy replaces or takes for the same.
    Unsupported
        The policy is unknown, or a whole directory would be replaced.
    """
    if if_exists not in get_args(IfExists):
        msg = f"if_exists={if_exists!r}: use one of {', '.join(get_args(IfExists))}"
        raise Unsupported(msg)
    where = os.fspath(address)
    if present is None:
        return True
    if if_exists == "error":
        msg = f'{where}: there is something here already; pass if_exists="replace" or "skip" to allow it'
        raise AlreadyExists(msg)
    if present != wanted:
        kind = IsADirectory if present == "directory" else NotADirectory
        msg = f"{where}: this is a {present}, and a {wanted} cannot take its place"
        raise kind(msg)
    if if_exists == "replace" and wanted == "directory":
        msg = f"{where}: a directory is not replaced as a whole; delete_all it first"
        raise Unsupported(msg)
    return if_exists == "replace"


def is_listed(name: str, pattern: str | None, extensions: Collection[str] | None) -> bool:
    """Return whether a listing shows this file name.

    Parameters
    ----------
    name
        The last part of the address.
    pattern
        Shell pattern for the whole name, case-sensitive; None takes all.
    extensions
        Endings such as ``.tif`` or ``.roi.zip``, compared without regard to case; None takes all.
    """
    if is_partial(name) or (pattern is not None and not fnmatchcase(name, pattern)):
        return False
    if extensions is None:
        return True
    endings = [extensions] if isinstance(extensions, str) else extensions
    return name.lower().endswith(tuple(f".{ending.lower().removeprefix('.')}" for ending in endings))
