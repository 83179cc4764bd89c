"""Which destination classes there are, by type name: built in, from entry points, plugin folders and the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from labrelay.errors import InvalidInput
from labrelay.names import ENTRY_POINTS_DESTINATIONS
from labrelay_worker.destinations.making import destination_classes
from labrelay_worker.discovery import UnavailablePlugin, discover, left_out
from labrelay_worker.settings import WorkerSettings

_BUILTIN_MODULES = (
    "labrelay_worker.destinations.backend",
    "labrelay_worker.destinations.labarchives",
    "labrelay_worker.destinations.elabftw",
    "labrelay_worker.destinations.cdcs",
    "labrelay_worker.destinations.webhook",
)


@dataclass(frozen=True)
class Kind:
    """A destination class, and where it was found."""

    source: str
    cls: type[Any]

    @property
    def is_builtin(self) -> bool:
        """Whether labrelay brings it: it is a destination only where the settings say so."""
        return self.source in _BUILTIN_MODULES


def find_kinds(settings: WorkerSettings) -> tuple[Mapping[str, Kind], list[UnavailablePlugin]]:
    """Return the classes by type name, and what cannot be used; a broken plugin takes no other down."""
    kinds: dict[str, Kind] = {}
    found = discover(_BUILTIN_MODULES, ENTRY_POINTS_DESTINATIONS, settings.plugin_path, settings.plugins)
    unavailable = list(found.unavailable)
    for source, plugin in found.found:
        try:
            classes = list(destination_classes(plugin))
        except InvalidInput as error:
            problem = f"{error.field} {error.problem}"
            unavailable.append(UnavailablePlugin(error.field, source, problem, error.cure))
            continue
        unavailable += [refused for cls in classes if (refused := _add(kinds, Kind(source, cls), settings))]
    return kinds, unavailable


def _add(kinds: dict[str, Kind], new: Kind, settings: WorkerSettings) -> UnavailablePlugin | None:
    """Add a class under its name, or return why that is refused."""
    name, known = str(new.cls.name), kinds.get(str(new.cls.name))
    if out := left_out(new.cls, "" if settings.worker_profile == "full" else settings.worker_profile):
        return UnavailablePlugin(name, new.source, *out)
    # Who names a class of a built-in one's name wants it: NexusLIMS's are called like labrelay's own.
    is_chosen = known is not None and known.is_builtin and new.source in settings.plugins
    if known is not None and known.cls is not new.cls and not is_chosen:
        reason = f"the name {name!r} is already taken by {known.source}; this one is refused"
        return UnavailablePlugin(name, new.source, reason, "Rename one of them")
    kinds[name] = new
    return None
