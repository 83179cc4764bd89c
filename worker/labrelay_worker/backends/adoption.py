"""Classes that follow OpenHCS's backend interface become backends here: found by discovery, known as PACKAGE_KEY."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any, cast

from labrelay_worker.backends.base import DataSink
from labrelay_worker.backends.foreign import ForeignStorage
from labrelay_worker.backends.foreign_stream import ForeignStream
from labrelay_worker.backends.registration import CLASSES, StorageBackendMeta

_SINK = ("save", "save_batch")
_STORAGE = (
    "load", "exists", "is_file", "is_dir", "is_symlink", "list_dir", "ensure_directory", "delete", "delete_all",
    "create_symlink", "move", "copy", "stat",
)  # fmt: skip


def foreign_classes(plugin: object) -> Iterator[type[Any]]:
    """Yield the classes to adopt in what discovery found: the class itself, or those that a module defines."""
    if isinstance(plugin, ModuleType):
        for value in list(vars(plugin).values()):
            if getattr(value, "__module__", None) == plugin.__name__ and _follows(value):
                yield value
    elif isinstance(plugin, type) and _follows(plugin):
        yield plugin


def adopt(cls: type, name: str | None = None) -> type[DataSink]:
    """Register a class of OpenHCS's interface as a backend; return the backend class that hosts it.

    Parameters
    ----------
    cls
        Has ``_backend_type``, ``save`` and ``save_batch``; storage has the reading half and the file operations too,
        a class without them is taken for a viewer's.
    name
        What it is called here. Default: its package and its key, ``polystore_disk``, which takes no other's name.

    Raises
    ------
    DuplicatePlugin
        Another class has the name.
    """
    key = name or f"{cls.__module__.partition('.')[0]}_{_key(cls)}".lower()
    known = CLASSES.classes.get(key)
    if known is not None and getattr(known, "hosted", None) is cls:
        return known
    is_storage = all(callable(getattr(cls, member, None)) for member in _STORAGE)
    host: type[DataSink] = ForeignStorage if is_storage else ForeignStream
    body: dict[str, Any] = {
        "__doc__": cls.__doc__,
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__signature__": _signature(cls, host),
        "_backend_type": key,
        "hosted": cls,
        "needs": frozenset(getattr(cls, "needs", host.needs)),
    }
    if is_storage and not getattr(cls, "supports_arbitrary_files", True):
        body["cannot"] = ForeignStorage.ARRAYS_ONLY
    adopted: Any = StorageBackendMeta(cls.__name__, (host,), body)
    return cast("type[DataSink]", adopted)


def _follows(value: object) -> bool:
    return (
        isinstance(value, type)
        and not issubclass(value, DataSink)
        and not inspect.isabstract(value)
        and _key(value) is not None
        and all(callable(getattr(value, member, None)) for member in _SINK)
    )


def _key(cls: type) -> str | None:
    key = getattr(cls, "_backend_type", None)
    key = getattr(key, "value", key)  # an enumeration's member in some versions
    return key if isinstance(key, str) and key.strip() else None


def _signature(cls: type, host: type) -> inspect.Signature:
    """Return the options of both: the host's own come last, by keyword."""
    own = [p for p in inspect.signature(host).parameters.values() if p.kind is p.KEYWORD_ONLY]
    taken = {parameter.name for parameter in own}
    hosted = [
        parameter.replace(kind=parameter.KEYWORD_ONLY)
        for parameter in inspect.signature(cls).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) and parameter.name not in taken
    ]
    return inspect.Signature([*hosted, *own])
