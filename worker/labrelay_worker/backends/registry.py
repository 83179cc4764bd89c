"""The backends of one process: which there are, made when first asked for, closed together."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labrelay.errors import DuplicatePlugin, InvalidInput
from labrelay.names import ENTRY_POINTS_BACKENDS
from labrelay.redaction import redact
from labrelay_worker.backends.adoption import adopt, foreign_classes
from labrelay_worker.backends.base import DataSink
from labrelay_worker.backends.errors import BackendFailed, UnknownBackend
from labrelay_worker.backends.options import check_options, required_options
from labrelay_worker.backends.registration import CLASSES, ClassTable, lacks
from labrelay_worker.discovery import UnavailablePlugin, check_profile, discover, left_out

logger = logging.getLogger(__name__)

BUILTIN_MODULES = (
    "labrelay_worker.backends.disk",
    "labrelay_worker.backends.memory",
    "labrelay_worker.backends.napari_stream",
    "labrelay_worker.backends.fiji_stream",
    "labrelay_worker.backends.zarr",
)


@dataclass
class _Slot:
    lock: Any = field(default_factory=threading.RLock)  # re-entrant: a backend may ask for another one
    instance: DataSink | None = None


@dataclass
class _PerProcess:
    """What must not be shared with a forked child: locks that nobody there would release, and instances."""

    discovering: Any = field(default_factory=threading.RLock)
    slots: dict[str, _Slot] = field(default_factory=dict)


class BackendRegistry:
    """Backends by name: one per type, and those the settings configure under names of their own.

    Safe for threads. In a forked child it keeps what was discovered and configured, and makes instances anew:
    a socket or a viewer connection inherited from the parent cannot be used.

    Parameters
    ----------
    table
        The classes to choose from; default: all that are defined in this process.
    """

    def __init__(self, table: ClassTable = CLASSES) -> None:
        self._table = table
        self._configured: dict[str, tuple[str, dict[str, Any]]] = {}
        self._sources: dict[str, Sequence[Any]] = {"directories": (), "explicit": ()}
        self._profile = ""
        self._broken: list[UnavailablePlugin] | None = None
        # The parent's entry stays referenced in a child, so that its finalisers do not run there.
        self._by_pid: dict[int, _PerProcess] = {}

    @property
    def _own(self) -> _PerProcess:
        pid = os.getpid()
        # setdefault is one step: two threads of a new child get the same object without a lock.
        return self._by_pid.get(pid) or self._by_pid.setdefault(pid, _PerProcess())

    def discover(
        self,
        *,
        directories: Sequence[Path] | None = None,
        explicit: Sequence[str] | None = None,
        profile: str | None = None,
    ) -> None:
        """Import all backend plugins; what cannot be used is in `unavailable` with its reason.

        Parameters
        ----------
        directories, explicit
            As for `labrelay_worker.discovery.discover`; None keeps what was given before.
        profile
            "headless" leaves out what needs a display or a JVM; None keeps what was given before.

        Raises
        ------
        InvalidInput
            There is no such profile.
        """
        with self._own.discovering:
            if profile is not None:
                check_profile(profile)
                self._profile = profile
            for name, given in (("directories", directories), ("explicit", explicit)):
                if given is not None:
                    self._sources[name] = tuple(given)
            result = discover(BUILTIN_MODULES, ENTRY_POINTS_BACKENDS, **self._sources, on_failure=self._table.forget)
            for plugin in result.unavailable:
                logger.warning("backend plugin unavailable, the others are not affected: %s", plugin)
            self._broken = result.unavailable + self._adopt(result.found)

    def _adopt(self, found: Sequence[tuple[str, object]]) -> list[UnavailablePlugin]:
        """Register the classes among the plugins that follow OpenHCS's interface; return those refused."""
        refused = []
        for source, plugin in found:
            for cls in foreign_classes(plugin):
                try:
                    adopt(cls)
                except DuplicatePlugin as error:
                    refused.append(UnavailablePlugin(cls.__name__, source, str(error), "Rename one of them"))
        return refused

    def configure(self, name: str, type: str, options: Mapping[str, Any]) -> None:  # noqa: A002  the settings' word
        """Give a backend a name of its own: ``[backends.NAME] type = "disk" root = …``.

        A type's own name configures the instance that the bare type name returns.

        Raises
        ------
        InvalidInput
            The type has no such option or needs one; the name is that of another type, or is in use with
            other options.
        """
        key, kind = name.strip().lower(), type.strip().lower()
        if key != kind and key in self._table.classes:
            raise InvalidInput(f"backends.{name}", "this is the name of another backend type", "Choose another name")
        slot = self._own.slots.get(key)
        recipe = (kind, dict(options))
        if slot is not None and slot.instance is not None and self._configured.get(key) != recipe:
            raise InvalidInput(f"backends.{name}", "it is in use with other options", "Restart the worker")
        if kind in self._table.classes:
            check_options(self._table.classes[kind], key, kind, options)
        self._configured[key] = recipe

    @property
    def names(self) -> list[str]:
        """Names that `get` takes: usable types and configured names, sorted."""
        types = (key for key, cls in self._table.classes.items() if left_out(cls, self._profile) is None)
        return sorted({*types, *self._configured})

    @property
    def unavailable(self) -> list[UnavailablePlugin]:
        """What cannot be used, with reason and cure."""
        result = list(self._broken or ())
        for key, cls in self._table.incomplete.items():
            result.append(UnavailablePlugin(key, cls.__module__, lacks(cls), "Define them"))
        for key, cls in self._table.classes.items():
            if out := left_out(cls, self._profile):
                result.append(UnavailablePlugin(key, cls.__module__, *out))
        return result

    def get(self, name: str) -> DataSink:
        """Return the backend of this name, made on first use and then kept.

        Raises
        ------
        UnknownBackend
            (a KeyError) There is none, or it is unavailable: says why, or which there are.
        BackendFailed
            (a RuntimeError) Its constructor or its options are at fault.
        """
        key = name.strip().lower()
        slot = self._own.slots.get(key)
        if slot is not None and (made := slot.instance) is not None:
            return made
        kind, options = self._configured.get(key, (key, {}))
        cls = self._class(key, kind)
        slot = self._own.slots.setdefault(key, _Slot())
        with slot.lock:
            if slot.instance is None:
                try:
                    check_options(cls, key, kind, options)
                    slot.instance = cls(**options)
                except Exception as error:
                    msg = f"backend {key!r} could not be made: {redact(f'{type(error).__name__}: {error}')}"
                    raise BackendFailed(msg) from error
            return slot.instance

    def class_of(self, name: str) -> type[DataSink] | None:
        """Return the class behind a type or configured name without making anything, None if there is none."""
        key = name.strip().lower()
        return self._table.classes.get(self._configured.get(key, (key, {}))[0])

    def create_all(self) -> dict[str, DataSink]:
        """Return every backend by name, all made; those that fail are logged and left out."""
        self.discover()
        result: dict[str, DataSink] = {}
        for name in self.names:
            if name not in self._configured and required_options(self._table.classes[name]):
                continue  # this type is only usable under names with options
            try:
                result[name] = self.get(name)
            except (UnknownBackend, BackendFailed) as error:
                logger.warning("left out of the storage registry: %s", error)
        return result

    def cleanup_connections(self) -> None:
        """Close every backend's connections; windows, data and instances stay. Never raises."""
        instances = {name: slot.instance for name, slot in list(self._own.slots.items())}
        _call_all(
            {name: instance.cleanup_connections for name, instance in instances.items() if instance is not None},
            "its connections may stay open until this process ends",
        )

    def cleanup(self, *, keep: tuple[type[DataSink], ...] = ()) -> None:
        """Close every backend and forget it; the next `get` makes a new one. Never raises.

        Instances of the kinds in `keep` are only forgotten: a viewer's window outlives the worker.
        """
        cleanups = {}
        for name, slot in list(self._own.slots.items()):
            with slot.lock:
                instance, slot.instance = slot.instance, None
            if isinstance(instance, keep):
                continue
            if instance is not None:
                cleanups[name] = instance.cleanup
        _call_all(cleanups, "what it held (memory, sockets, processes) may stay until this process ends")

    def _class(self, key: str, kind: str) -> type[DataSink]:
        if kind not in self._table.classes and self._broken is None:
            self.discover()
        out = self.unavailable
        cls = self._table.classes.get(kind)
        if cls is not None and left_out(cls, self._profile) is None:
            return cls
        subject = f"backend {key!r}" + ("" if key == kind else f" of type {kind!r}")
        for plugin in out:
            if plugin.name.lower() == kind:
                msg = f"{subject} is unavailable: {plugin.reason}. {plugin.cure}"
                raise UnknownBackend(msg)
        msg = f"{subject} is not registered. Available: {', '.join(self.names)}"
        if out:
            msg += f". Unavailable: {'; '.join(f'{plugin.name} ({plugin.reason})' for plugin in out)}"
        raise UnknownBackend(msg)


def _call_all(calls: Mapping[str, Callable[[], None]], consequence: str) -> None:
    errors: list[BaseException] = []
    for name, call in calls.items():
        try:
            call()
        # Shutdown goes on whatever a plugin does, sys.exit() included.
        except (Exception, SystemExit) as error:  # noqa: BLE001
            error.add_note(f"backend {name!r}")
            errors.append(error)
            logger.error("backend %r could not be cleaned up, %s: %s", name, consequence, redact(str(error)))
    if errors:
        logger.debug("cleanup errors in full", exc_info=BaseExceptionGroup("backend cleanup", errors))


#: The one registry of this process. The names below are those of the OpenHCS registry, with its meanings.
_REGISTRY = BackendRegistry()

#: Registered classes by key, read-only; a class joins when it is defined.
STORAGE_BACKENDS: Mapping[str, type[DataSink]] = CLASSES.classes


def backend_registry() -> BackendRegistry:
    """Return the registry of this process, to configure and inspect it."""
    return _REGISTRY


def get_backend_instance(backend_type: str) -> DataSink:
    """Return the backend of this type or configured name. Raises KeyError and RuntimeError as `get` does."""
    return _REGISTRY.get(backend_type)


def create_storage_registry() -> dict[str, DataSink]:
    """Discover all backends and return every one that can be made, by name."""
    return _REGISTRY.create_all()


def discover_all_backends(
    *,
    directories: Sequence[Path] | None = None,
    explicit: Sequence[str] | None = None,
    profile: str | None = None,
) -> None:
    """Import all backend plugins, each on its own; see `BackendRegistry.discover`."""
    _REGISTRY.discover(directories=directories, explicit=explicit, profile=profile)


def cleanup_backend_connections() -> None:
    """Close connections without touching windows, data or instances."""
    _REGISTRY.cleanup_connections()


def cleanup_all_backends() -> None:
    """Close every backend and clear the cache, for a full shutdown."""
    _REGISTRY.cleanup()
