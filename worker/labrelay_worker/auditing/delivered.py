"""What there is to audit: every delivery that has a receipt, from the ledger and from this machine's archive.

Reads only. Ids are listed first, so that progress has an end; rows follow in pages, so that memory has one too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from labrelay.archive import Archive
from labrelay.context import ExportContext
from labrelay.errors import LabrelayError
from labrelay.ledger import Ledger, connect
from labrelay.names import FIELD_PREVIOUS_RECEIPT, FIELD_RECEIPT
from labrelay.packed import whole_row, with_packed
from labrelay.results import ExportState, Receipt
from labrelay.rows import Row, by_destination, from_ms, status_of, to_ms
from labrelay.settings import ProducerSettings

if TYPE_CHECKING:
    import redis

_PAGE = 50
#: Every page reads its archive file from the beginning.
_ARCHIVED_PAGE = 1000


@dataclass(frozen=True)
class Wanted:
    """Which deliveries are meant; everything given must hold.

    Parameters
    ----------
    since
        Delivered at this time or later.
    destinations
        Names; empty: every one.
    state
        The export is in this state.
    archived
        Those that left Redis for an archive, too.
    """

    since: datetime | None = None
    destinations: frozenset[str] = frozenset()
    state: ExportState | None = None
    archived: bool = False

    def takes(self, receipt: Receipt) -> bool:
        """Return whether a delivery is meant."""
        if self.destinations and receipt.destination not in self.destinations:
            return False
        return self.since is None or receipt.at >= self.since


@dataclass(frozen=True)
class Delivered:
    """One delivery that a destination confirmed.

    Parameters
    ----------
    context
        As it was delivered, with revision and earlier results; None: it cannot be read, and `problem` says why.
    """

    export_id: str
    session: str
    instrument: str
    revision: int
    receipt: Receipt
    context: ExportContext | None
    problem: str = ""


class DeliveredList:
    """Reads the ledger.

    Parameters
    ----------
    settings
        Where Redis and the archive are.

    Raises
    ------
    LedgerUnavailable
        From every method: Redis does not serve.
    """

    def __init__(self, settings: ProducerSettings) -> None:
        self._keys, self._redis = settings.keys, connect(settings)
        self._ledger = Ledger(self._redis, self._keys, settings.wake_up_grace)

    def __enter__(self) -> DeliveredList:
        return self

    def __exit__(self, *_: object) -> None:
        self._redis.close()

    def now(self) -> datetime:
        """Return the server's time."""
        with self._ledger.reachable():
            seconds, microseconds = self._redis.time()
        return from_ms(seconds * 1000 + microseconds / 1000)

    def ids(self, wanted: Wanted) -> list[str]:
        """Return the exports that may hold such a delivery, those that were left alone longest first."""
        after = to_ms(wanted.since) if wanted.since else "-inf"  # an export changes no later than it is delivered
        states = [wanted.state] if wanted.state else list(ExportState)
        with self._ledger.reachable(), self._redis.pipeline(transaction=False) as pipeline:
            for state in states:
                pipeline.zrangebyscore(self._keys.state(state), after, "+inf", withscores=True)
            found = [pair for pairs in pipeline.execute() for pair in pairs]
        return [str(export_id) for export_id, _ in sorted(found, key=lambda pair: float(pair[1]))]

    def archived_ids(self) -> list[str]:
        """Return the exports that left Redis for an archive."""
        with self._ledger.reachable():
            return sorted(cast("list[str]", self._redis.hkeys(self._keys.archived)))

    def pages(self, ids: Sequence[str], wanted: Wanted) -> Iterator[tuple[int, list[Delivered]]]:
        """Yield how many exports were read, and their deliveries; what was archived meanwhile is left out."""
        for start in range(0, len(ids), _PAGE):
            page = ids[start : start + _PAGE]
            yield (
                len(page),
                [one for export_id, row in self._rows(page) for one in deliveries_of(export_id, row, wanted)],
            )

    def archived_pages(
        self, ids: Sequence[str], wanted: Wanted
    ) -> Iterator[tuple[int, list[Delivered], list[tuple[str, str]]]]:
        """Yield the same of archived exports, and with what cannot be read here where it is."""
        with self._ledger.reachable():
            tombs = cast("list[str | None]", self._redis.hmget(self._keys.archived, ids)) if ids else []
        files: dict[str, list[str]] = {}
        for export_id, tomb in zip(ids, tombs, strict=True):
            where = status_of(export_id, json.loads(tomb)).archived if tomb else None
            if where is None or (wanted.since is not None and where.at < wanted.since):
                continue  # replaced by a new revision meanwhile, or archived before the time that is asked about
            files.setdefault(f"{where.file} on {where.host}", []).append(export_id)
        for place, those in files.items():
            for start in range(0, len(those), _ARCHIVED_PAGE):
                page = those[start : start + _ARCHIVED_PAGE]
                yield len(page), *_read_archive(Path(place.rpartition(" on ")[0]), place, page, wanted)

    def _rows(self, ids: Sequence[str]) -> list[tuple[str, Row]]:
        client: redis.Redis = self._redis
        with self._ledger.reachable(), client.pipeline(transaction=False) as pipeline:
            for export_id in ids:
                pipeline.hgetall(self._keys.export(export_id))
                pipeline.get(self._keys.packed(export_id))
            found = pipeline.execute()
        rows = zip(ids, found[::2], found[1::2], strict=True)
        return [(export_id, whole_row(with_packed(row, packed))) for export_id, row, packed in rows if row]


def deliveries_of(export_id: str, row: Row, wanted: Wanted) -> list[Delivered]:
    """Return the deliveries of one export that are meant."""
    receipts = _receipts(by_destination(row, FIELD_RECEIPT))
    previous = _receipts(by_destination(row, FIELD_PREVIOUS_RECEIPT))
    meant = [receipt for receipt in receipts.values() if wanted.takes(receipt)]
    if not meant or (wanted.state is not None and row["state"] != wanted.state):
        return []
    revision, problem = int(row["revision"]), ""
    context: ExportContext | None = None
    try:
        context = ExportContext.parse(row["context"], source=f"export {export_id}").of_revision(revision, previous)
    except LabrelayError as error:
        problem = str(error)
    return [
        Delivered(
            export_id=export_id,
            session=row["session"],
            instrument=row["instrument"],
            revision=revision,
            receipt=receipt,
            context=context and _as_delivered(context, receipt, receipts),
            problem=problem,
        )
        for receipt in meant
    ]


def _as_delivered(context: ExportContext, receipt: Receipt, receipts: dict[str, Receipt]) -> ExportContext:
    """Return the context with the results that the entry links to; what it never got a link to stays out."""
    results = {
        name: other.as_result()
        for name, other in receipts.items()
        if name != receipt.destination and name not in receipt.unlinked
    }
    return context.model_copy(update={"previous_results": {**context.previous_results, **results}})


def _receipts(values: dict[str, str]) -> dict[str, Receipt]:
    return {name: Receipt.read(value) for name, value in values.items()}


def _read_archive(
    path: Path, place: str, ids: Sequence[str], wanted: Wanted
) -> tuple[list[Delivered], list[tuple[str, str]]]:
    """Return what one archive file has of some exports, and which of them it has not, with where they are."""
    if not path.is_file():
        return [], [(export_id, place) for export_id in ids]
    found = Archive.find_many(path, ids)
    rows = {export_id: _row_of(record) for export_id, record in found.items()}
    deliveries = [one for export_id, row in rows.items() for one in deliveries_of(export_id, row, wanted)]
    return deliveries, [(export_id, place) for export_id in ids if export_id not in found]


def _row_of(record: dict[str, Any]) -> Row:
    """Return an archived export as the row that it was."""

    def text(value: Any) -> str:
        return value if isinstance(value, str) else json.dumps(value)

    fields = {f"{FIELD_RECEIPT}{name}": text(value) for name, value in record["receipts"].items()}
    fields |= {f"{FIELD_PREVIOUS_RECEIPT}{n}": text(v) for n, v in record["previous_receipts"].items()}
    return {**record["row"], **fields, "context": text(record["context"])}
