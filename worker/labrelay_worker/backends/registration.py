"""How a backend class registers itself when it is defined (the OpenHCS registry's idea, kept)."""

from __future__ import annotations

import sys
from abc import ABCMeta
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from labrelay.errors import DuplicatePlugin, PluginError

if TYPE_CHECKING:
    from labrelay_worker.backends.base import DataSink


class ClassTable:
    """Backend classes by key. A fact of the process like its imported modules, so it survives a fork.

    Attributes
    ----------
    classes
        Read-only view of the registered classes by lower-case key.
    incomplete
        Read-only view: classes that claim a key without the whole interface; see `lacks`.
    """

    def __init__(self) -> None:
        self._classes: dict[str, type[DataSink]] = {}
        self._incomplete: dict[str, type[DataSink]] = {}
        self.classes: Mapping[str, type[DataSink]] = MappingProxyType(self._classes)
        self.incomplete: Mapping[str, type[DataSink]] = MappingProxyType(self._incomplete)

    def register(self, cls: type[DataSink]) -> None:
        """Register a class under its own key, in lower case.

        Raises
        ------
        DuplicatePlugin
            Another class has the key; it keeps it. A new definition of the same class (a reload) replaces it.
        PluginError
            The key is not a text.
        """
        key: Any = cls._backend_type
        if not isinstance(key, str) or not key.strip():
            msg = f"{_origin(cls)}: _backend_type must be a non-empty text, not {key!r}"
            raise PluginError(msg)
        cls._backend_type = key = str(key.strip().lower())
        if getattr(cls, "__abstractmethods__", ()):
            self._incomplete[key] = cls
            return
        # setdefault is one step, so two threads that import plugins cannot both win.
        known = self._classes.setdefault(key, cls)
        if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            msg = (
                f"the backend name {key!r} is claimed by {_origin(known)}, which keeps it, and by "
                f"{_origin(cls)}, which is refused. Rename or remove one of them"
            )
            raise DuplicatePlugin(msg)
        self._classes[key] = cls
        self._incomplete.pop(key, None)

    def forget(self, module: str) -> None:
        """Take back what a module and its sub-modules registered, because its import failed half-way."""
        for table in (self._classes, self._incomplete):
            for key, cls in list(table.items()):
                if f"{cls.__module__}.".startswith(f"{module}."):
                    del table[key]


#: The one table of this process: class statements have nowhere else to report to.
CLASSES = ClassTable()


class StorageBackendMeta(ABCMeta):
    """Registers a class whose body has a ``_backend_type``; sub-classes without one of their own stay free."""

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(name, bases, namespace, **kwargs)
        if namespace.get("_backend_type") is not None:
            CLASSES.register(cls)  # type: ignore[arg-type]


def lacks(cls: type[DataSink]) -> str:
    """Return what an incomplete class lacks, in words."""
    return f"{_origin(cls)} does not define {', '.join(sorted(getattr(cls, '__abstractmethods__', ())))}"


def _origin(cls: type) -> str:
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return f"{cls.__module__}.{cls.__qualname__}" + (f" ({file})" if file else "")
