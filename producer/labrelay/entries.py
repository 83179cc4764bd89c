"""From contexts to entries of the ledger: files looked at, sizes kept within bounds, priority chosen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from labrelay.context import ExportContext
from labrelay.errors import InvalidInput
from labrelay.hashing import Hashes
from labrelay.ledger import Entry
from labrelay.manifest import Manifest, make_manifest
from labrelay.priorities import Priority, priority_of, usual_priority
from labrelay.settings import ProducerSettings


@dataclass(frozen=True)
class Wanted:
    """What a submitter asks for, beside the contexts."""

    strategy: str = ""
    destinations: tuple[str, ...] = ()
    priority: Priority | None = None


def names_of(destinations: Sequence[str] | None) -> tuple[str, ...]:
    """Return the destinations that a submitter names.

    Raises
    ------
    InvalidInput
        It is one text, whose letters would be taken for names.
    """
    if isinstance(destinations, str):
        raise InvalidInput("destinations", f"{destinations!r} is no list of names", f"Give [{destinations!r}]")
    return tuple(destinations or ())


def make_entries(
    contexts: Iterable[ExportContext], wanted: Wanted, settings: ProducerSettings
) -> tuple[list[Entry], list[tuple[str, ...]]]:
    """Return an entry for each context, and the warnings of each.

    Raises
    ------
    InvalidInput
        A field or file of any of them is not usable, or one is too large.
    """
    hashes = Hashes()
    manifests = [_within_bounds(make_manifest(context, settings, hashes), settings) for context in contexts]
    return list(_entries(manifests, wanted, settings)), [manifest.warnings for manifest in manifests]


def priority_for(context: ExportContext, together: int, settings: ProducerSettings) -> Priority:
    """Return the priority of one of so many contexts that come in together, where the submitter says nothing."""
    return priority_of(context.instrument_pid, settings.priorities, usual_priority(together))


def _entries(manifests: list[Manifest], wanted: Wanted, settings: ProducerSettings) -> Iterator[Entry]:
    for manifest in manifests:
        context = manifest.context
        yield Entry(
            export_id=context.export_id,
            content=manifest.content,
            context=manifest.text,
            session=context.session_identifier,
            instrument=context.instrument_pid,
            strategy=wanted.strategy,
            destinations=wanted.destinations,
            priority=wanted.priority or priority_for(context, len(manifests), settings),
        )


def _within_bounds(manifest: Manifest, settings: ProducerSettings) -> Manifest:
    size, limit = len(manifest.text.encode()), settings.max_context_bytes
    if size > limit:
        raise InvalidInput(
            "context",
            f"{size / 2**20:.1f} MiB exceed the limit of {limit / 2**20:g} MiB",
            "Keep data in files and name them, or raise LABRELAY_MAX_CONTEXT_BYTES",
        )
    return manifest
