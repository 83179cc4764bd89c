"""Storage backends: where payloads and files can be put, looked at and read back.

They are of use without the queue, too: nothing here starts a worker or asks for Redis. What is imported from this
package loads on first use, and a backend's own libraries when something is first stored.

Examples
--------
>>> from labrelay_worker.backends import get_backend_instance
>>> memory = get_backend_instance("memory")
>>> memory.save({"pixel_size_nm": 0.2}, "session/notes.json")
>>> memory.load("session/notes.json")
{'pixel_size_nm': 0.2}
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labrelay_worker.backends.base import DataSink, StorageBackend, StreamingBackend
    from labrelay_worker.backends.errors import (
        AlreadyExists,
        BackendError,
        BackendFailed,
        Corrupt,
        IsADirectory,
        NotADirectory,
        NotFound,
        OutsideRoot,
        Unavailable,
        UnknownBackend,
        Unsupported,
    )
    from labrelay_worker.backends.registry import (
        STORAGE_BACKENDS,
        backend_registry,
        cleanup_all_backends,
        cleanup_backend_connections,
        create_storage_registry,
        discover_all_backends,
        get_backend_instance,
    )

__all__ = [
    "STORAGE_BACKENDS",
    "AlreadyExists",
    "BackendError",
    "BackendFailed",
    "Corrupt",
    "DataSink",
    "IsADirectory",
    "NotADirectory",
    "NotFound",
    "OutsideRoot",
    "StorageBackend",
    "StreamingBackend",
    "Unavailable",
    "UnknownBackend",
    "Unsupported",
    "backend_registry",
    "cleanup_all_backends",
    "cleanup_backend_connections",
    "create_storage_registry",
    "discover_all_backends",
    "get_backend_instance",
]

#: In which room what is defined; the errors are in `errors`.
_ROOMS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("DataSink", "StorageBackend", "StreamingBackend"), "base"),
        "STORAGE_BACKENDS": "registry",
        "backend_registry": "registry",
        "cleanup_all_backends": "registry",
        "cleanup_backend_connections": "registry",
        "create_storage_registry": "registry",
        "discover_all_backends": "registry",
        "get_backend_instance": "registry",
    }
)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(f"{__name__}.{_ROOMS.get(name, 'errors')}"), name)
