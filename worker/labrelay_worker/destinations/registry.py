"""The destinations of one process: found, made from the settings, hosted, closed.

Public names are the seed's (NexusLIMS ``exporters/registry.py``): `ExporterRegistry`, `get_registry`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from labrelay.context import ExportContext
from labrelay.errors import InvalidInput, LabrelayError
from labrelay.plans import by_priority
from labrelay.redaction import Redactor, redact
from labrelay.results import DestinationInfo, ExportResult, RouteInfo, WorkerInfo, utc_now
from labrelay_worker.backends.base import StreamingBackend
from labrelay_worker.backends.registry import backend_registry
from labrelay_worker.destinations.backend import BackendDestination, BackendOptions
from labrelay_worker.destinations.base import Destination, ExportDestination, Limits
from labrelay_worker.destinations.kinds import Kind, find_kinds
from labrelay_worker.destinations.making import (
    CommonOptions,
    construct,
    fault_text,
    limits_of,
    secrets_of,
    texts_of,
)
from labrelay_worker.discovery import UnavailablePlugin
from labrelay_worker.guarding import RecordGuard
from labrelay_worker.guests import secrets_it_may_read
from labrelay_worker.hosting import HostedDestination
from labrelay_worker.inline import export_inline
from labrelay_worker.settings import WorkerSettings, load_worker_settings
from labrelay_worker.unserved import UnservedDestination

_logger = logging.getLogger(__name__)


class ExporterRegistry:
    """Destinations by name. One per process; never shared with a fork.

    Parameters
    ----------
    settings
        The worker's settings; default: from the environment and ``labrelay.toml``.
    """

    def __init__(self, settings: WorkerSettings | None = None) -> None:
        self._settings = settings or load_worker_settings()
        self._kinds: Mapping[str, Kind] = {}
        self._hosts: dict[str, HostedDestination] = {}
        self._implicit: set[str] = set()
        self._switched_off: set[str] = set()
        self._unusable: set[str] = set()
        self._unmade: dict[str, DestinationInfo] = {}
        self._broken: list[UnavailablePlugin] = []
        self._records = RecordGuard(self._settings.data_roots)
        self._lock = threading.RLock()
        self._discovered = False
        self.backends = backend_registry()

    def discover_plugins(self) -> None:
        """Find and make every destination, once; whatever fails is in `unavailable` and takes no other down."""
        with self._lock:
            if self._discovered:
                return
            self._discovered = True
            self._discover_backends()
            self._kinds, unavailable = find_kinds(self._settings)
            self._broken += unavailable
            for name in self._settings.destinations:
                self._make_configured(name)
            used = {str(table.get("type", name)) for name, table in self._settings.destinations.items()}
            for type_name, kind in self._kinds.items():
                configured = type_name in used or type_name in self._settings.destinations
                if not configured and not kind.is_builtin:
                    self._make_unconfigured(type_name, kind)
            self._offer_backends()

    @property
    def unavailable(self) -> list[UnavailablePlugin]:
        """Plugins of either kind that cannot be used, each once."""
        return list(dict.fromkeys([*self._broken, *self.backends.unavailable]))

    def infos(self) -> list[DestinationInfo]:
        """Return every destination as planned, highest priority first."""
        self.discover_plugins()
        return by_priority([*self._unmade.values(), *(self._info(host) for host in self._hosts.values())])

    @property
    def routes(self) -> list[RouteInfo]:
        """The routes of the settings."""
        return [RouteInfo(**route.model_dump()) for route in self._settings.routes]

    def describe(self, name: str) -> WorkerInfo:
        """Return what a worker of this name announces of itself."""
        return WorkerInfo(
            name=name,
            version=version("labrelay"),
            started=utc_now(),
            destinations=tuple(self.infos()),
            routes=tuple(self.routes),
            strategy=self._settings.strategy,
        )

    def hosts(self, names: Sequence[str]) -> dict[str, HostedDestination | UnservedDestination]:
        """Return the named destinations in the order they run; stand-ins for those not served here."""
        self.discover_plugins()
        known = {info.name: info for info in self.infos()}
        result: dict[str, HostedDestination | UnservedDestination] = {}
        for info in by_priority(known.get(name) or DestinationInfo(name=name, type="") for name in names):
            host = self._hosts.get(info.name)
            usable = (info.enabled and info.name not in self._unusable) or info.name in self._implicit
            if host is not None and usable:
                host.info = info
                result[info.name] = host
            else:
                reason = info.reason or self._why_missing(info.name)
                result[info.name] = UnservedDestination(info.model_copy(update={"reason": reason}))
        return result

    def get_enabled_destinations(self) -> list[ExportDestination]:
        """Return the enabled destination objects, highest priority first."""
        enabled = [info.name for info in self.infos() if info.enabled]
        return [self._hosts[name].destination for name in enabled if name in self._hosts]

    def export_to_all(self, context: ExportContext, *, strategy: str = "all") -> list[ExportResult]:
        """Export here and now, without ledger, retries or worker; one result per destination that ran.

        For scripts and tests. A pipeline submits instead: what is sent here is forgotten when the process ends.
        """
        names = [info.name for info in self.infos() if info.enabled]
        return asyncio.run(export_inline(context, self.hosts(names), strategy))

    async def check(self) -> dict[str, str]:
        """Ask every destination whether it could deliver now; answers "ok" or what is wrong, by name."""
        self.discover_plugins()
        answers = await asyncio.gather(*(host.validate_config() for host in self._hosts.values()))
        await asyncio.gather(*(host.close() for host in self._hosts.values()), return_exceptions=True)
        return {
            name: "ok" if valid else message or "not usable"
            for name, (valid, message) in zip(self._hosts, answers, strict=True)
        }

    async def close(self) -> None:
        """Close every destination once; errors are logged with their consequence, never raised."""
        hosts, self._hosts = self._hosts, {}
        closings = await asyncio.gather(*(host.close() for host in hosts.values()), return_exceptions=True)
        for name, error in zip(hosts, closings, strict=True):
            if isinstance(error, BaseException):
                _logger.error("destination %s could not be closed, its connections may stay open: %s", name, error)

    def cleanup_backends(self) -> None:
        """Close the backends' connections and what they opened; viewers' windows stay."""
        self.backends.cleanup_connections()
        self.backends.cleanup(keep=(StreamingBackend,))

    def _discover_backends(self) -> None:
        settings = self._settings
        self.backends.discover(
            directories=settings.plugin_path,
            explicit=settings.plugins,
            profile="" if settings.worker_profile == "full" else settings.worker_profile,
        )
        for name, table in settings.backends.items():
            options = {key: value for key, value in table.items() if key != "type"}
            try:
                self.backends.configure(name, str(table.get("type", name)), options)
            except LabrelayError as error:
                self._refuse(name, f"[backends.{name}]", error, "Correct labrelay.toml")

    def _make_configured(self, name: str) -> None:
        table = self._settings.destinations[name]
        kind = str(table.get("type", name))
        options = {key: value for key, value in table.items() if key not in CommonOptions.model_fields}
        common = CommonOptions()
        try:
            common = CommonOptions.model_validate(
                {key: table[key] for key in CommonOptions.model_fields.keys() & table.keys()}
            )
            if not common.enabled:
                self._switched_off.add(name)
            if kind in self._kinds:
                destination = construct(self._kinds[kind].cls, name, options)
            elif kind in self.backends.names:
                self.backends.configure(f"destination:{name}", kind, options)
                destination = BackendDestination(name, BackendOptions(backend=f"destination:{name}"))
            else:
                known = ", ".join(sorted({*self._kinds, *self.backends.names}))
                raise InvalidInput(f"destinations.{name}.type", f"there is no type {kind!r}", f"Use one of {known}")
            for option in {"priority", "waits_for"} & common.model_fields_set:
                setattr(destination, option, getattr(common, option))
            limits = limits_of(destination, common)
        except Exception as error:  # noqa: BLE001  a plugin's constructor may raise anything
            self._refuse(name, f"[destinations.{name}]", error, "Correct labrelay.toml or the environment")
            # It stays part of every export, which waits for it: without it, `delivered` would be said of less.
            self._unmade[name] = DestinationInfo(
                name=name, type=kind, priority=common.priority, enabled=common.enabled, reason=self._why_missing(name)
            )
            return
        self._host(name, kind, destination, limits)

    def _make_unconfigured(self, name: str, kind: Kind) -> None:
        try:
            destination = construct(kind.cls, name, {})
        except Exception as error:  # noqa: BLE001
            self._refuse(name, kind.source, error, f"Configure it under [destinations.{name}], or correct the plugin")
            return
        self._host(name, name, destination)

    def _offer_backends(self) -> None:
        """Make every backend a destination that can be named; without any other, disk is the default."""
        for kind in self.backends.names:
            if kind.startswith("destination:") or kind in self._hosts or kind in self._settings.destinations:
                continue
            backend = kind
            if kind in {"disk", "zarr"}:
                backend = f"destination:{kind}"
                self.backends.configure(backend, kind, {"root": self._settings.home / "exports"})
            self._implicit.add(kind)
            self._host(kind, kind, BackendDestination(kind, BackendOptions(backend=backend)))

    def _host(self, name: str, kind: str, destination: Any, limits: Limits | None = None) -> None:
        own = isinstance(destination, Destination)
        secrets = secrets_of(getattr(destination, "options", None)) if own else secrets_it_may_read()
        info = DestinationInfo(
            name=name,
            type=kind,
            waits_for=getattr(destination, "waits_for", None),
            lossy=bool(getattr(destination, "lossy", False)),
        )
        self._hosts[name] = HostedDestination(
            destination,
            info,
            records=self._records,
            redact=Redactor(secrets),
            call_timeout=self._settings.call_timeout,
            threads=self._settings.threads_per_destination,
            limits=limits or limits_of(destination, CommonOptions()),
        )

    def _info(self, host: HostedDestination) -> DestinationInfo:
        name, enabled, reason = host.info.name, False, ""
        self._unusable.discard(name)
        priority = 0
        try:
            priority = int(host.destination.priority)
            enabled = name not in self._switched_off and bool(host.destination.enabled)
            reason = "" if enabled else "disabled"
        except Exception as error:  # noqa: BLE001  one plugin's property must not end the listing
            reason = f"its settings are not usable: {host.redact(fault_text(error))}"
            # One that somebody asked for stays part of every export: without it, `delivered` would be said of less.
            enabled = self._is_asked_for(host) and name not in self._switched_off
            self._unusable.add(name)
        if name in self._implicit:
            # A viewer keeps nothing, so beside it alone disk stays the default.
            keeping = (other for other, h in self._hosts.items() if other not in self._implicit and not h.info.lossy)
            others = any(keeping) or self._unmade
            enabled = name == "disk" and not others
            reason = "no destination is configured, so this is the default" if enabled else "used when it is named"
        return host.info.model_copy(update={"priority": priority, "enabled": enabled, "reason": reason})

    def _is_asked_for(self, host: HostedDestination) -> bool:
        kind = self._kinds.get(host.info.type)
        named = kind is not None and kind.source in self._settings.plugins
        return named or host.info.name in self._settings.destinations

    def _why_missing(self, name: str) -> str:
        for plugin in self.unavailable:
            if plugin.name == name:
                return f"{name} is unavailable on this worker: {plugin.reason}. {plugin.cure}"
        return f"this worker serves no destination {name!r}; it has {', '.join(sorted(self._hosts))}"

    def _refuse(self, name: str, source: str, error: Exception, cure: str) -> None:
        if isinstance(error, LabrelayError):
            reason = redact(str(error))
        else:
            text = fault_text(error)
            table = self._settings.destinations.get(name, {})
            given = {key: value for key, value in table.items() if key not in CommonOptions.model_fields}
            reason = Redactor(texts_of(given))(text)
        self._broken.append(UnavailablePlugin(name, source, reason, cure))


_registries: dict[int, ExporterRegistry] = {}


def get_registry() -> ExporterRegistry:
    """Return this process's registry; a forked child gets its own."""
    pid = os.getpid()
    if pid not in _registries:
        _registries[pid] = ExporterRegistry()
    return _registries[pid]


def this_machine() -> WorkerInfo:
    """Return what a worker with the settings of this machine would serve; `labrelay plan` needs no worker."""
    return get_registry().describe("this machine")
