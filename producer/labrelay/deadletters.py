"""Dead letters: exports that need a person. Found through the state indexes, given back, or dropped for good."""

from __future__ import annotations

import getpass
import heapq
import itertools
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal, cast

from labrelay.archive import Archive, archive_line
from labrelay.errors import InvalidInput, NoSuchExport
from labrelay.ledger import Ledger
from labrelay.names import Keys
from labrelay.packed import pack_receipts, whole_export
from labrelay.results import DeliveryState, DeliveryStatus, ExportState, ExportStatus, Receipt, Replayed
from labrelay.rows import from_ms, status_of, to_ms
from labrelay.scripts import script_source
from labrelay.wakeups import Wake

if TYPE_CHECKING:
    import redis

Assumption = Literal["delivered", "missing"]

DEAD_LETTERS = (ExportState.DEAD, ExportState.UNKNOWN)
REPLAYABLE = (*DEAD_LETTERS, ExportState.CANCELLED)

#: Rows read before the first of them is handed on; the pages grow, because many want the latest few.
_FIRST_PAGE, _PAGE = 25, 200
_WHOLE_PAGE = 20
_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True)
class Filter:
    """Which dead letters are meant; everything given must hold.

    Parameters
    ----------
    destination
        A delivery to it failed or is in doubt.
    instrument
        Shell pattern, upper and lower case being different.
    kind
        Error kind of such a delivery, or ``poison``.
    since
        Died at this time or later.
    """

    destination: str | None = None
    instrument: str | None = None
    kind: str | None = None
    since: datetime | None = None

    def __bool__(self) -> bool:
        """Return whether it leaves anything out."""
        return any((self.destination, self.instrument, self.kind, self.since))

    def matches(self, letter: ExportStatus) -> bool:
        """Return whether a dead letter is meant."""
        if self.instrument is not None and not fnmatchcase(letter.instrument_pid, self.instrument):
            return False
        if self.since is not None and letter.updated < self.since:
            return False
        troubles = [t for t in troubles_of(letter) if self.destination in (None, t.destination)]
        if self.destination is not None and not troubles:
            return False
        kinds = {trouble.error_kind for trouble in troubles} | {letter.cause}
        return self.kind is None or self.kind in kinds


def parse_since(text: str, now: datetime, *, option: str = "--since") -> datetime:
    """Return the time meant by ``2h``, ``3d`` or an ISO date; one without a time zone is this machine's.

    Examples
    --------
    >>> parse_since("2h", datetime(2026, 11, 21, 10, tzinfo=UTC)).isoformat()
    '2026-11-21T08:00:00+00:00'

    Raises
    ------
    InvalidInput
        It is neither.
    """
    ago = _AGO.fullmatch(text.strip().lower())
    if ago:
        return now - timedelta(**{_UNITS[ago[2]]: float(ago[1])})
    try:
        return datetime.fromisoformat(text.strip()).astimezone(UTC)
    except ValueError:
        raise InvalidInput(
            option, f"{text!r} is no time", "Give 30m, 2h, 3d, or an ISO date such as 2026-11-21"
        ) from None


def troubles_of(letter: ExportStatus) -> list[DeliveryStatus]:
    """Return the deliveries that failed or whose outcome is in doubt."""
    bad = (DeliveryState.FAILED, DeliveryState.UNKNOWN)
    return [delivery for delivery in letter.deliveries if delivery.state in bad or delivery.in_doubt]


class DeadLetters:
    """Finds, replays and drops dead letters.

    Parameters
    ----------
    client
        A Redis client that decodes responses.
    keys
        Key names.
    ledger
        The producer's ledger on the same server.
    wake_up_grace
        Seconds after which a replayed export nobody claimed is woken.
    archive
        Where dropped exports go.
    """

    def __init__(
        self, client: redis.Redis, keys: Keys, ledger: Ledger, *, wake_up_grace: float, archive: Archive
    ) -> None:
        self._redis, self._keys, self._archive = client, keys, archive
        self._ledger, self._reachable = ledger, ledger.reachable
        self._grace_ms = int(wake_up_grace * 1000)
        self._replay = client.register_script(script_source("labrelay", "replay"))
        self._whole = client.register_script(script_source("labrelay", "whole"))
        self._remove = client.register_script(script_source("labrelay", "remove"))

    def now(self) -> datetime:
        """Return the server's time."""
        with self._reachable():
            seconds, microseconds = self._redis.time()
        return from_ms(seconds * 1000 + microseconds / 1000)

    def find(
        self, wanted: Filter | None = None, *, progress: Callable[[int, int], None] | None = None
    ) -> Iterator[ExportStatus]:
        """Yield dead letters, the latest first. Reads two state indexes, page by page.

        Parameters
        ----------
        wanted
            Which ones; default: all.
        progress
            Told how many were looked at, and of how many at most.
        """
        wanted = wanted or Filter()
        oldest = to_ms(wanted.since) if wanted.since else "-inf"
        counts = self._ledger.counts() if progress else {}
        looked, total = 0, sum(counts.get(state, 0) for state in DEAD_LETTERS)
        ranked = heapq.merge(
            *(self._ledger.ranked(state, oldest) for state in DEAD_LETTERS), key=lambda pair: -pair[1]
        )
        size = _FIRST_PAGE
        while ids := [export_id for export_id, _ in itertools.islice(ranked, size)]:
            for letter in self._statuses(ids):
                if letter is not None and letter.state in DEAD_LETTERS and wanted.matches(letter):
                    yield letter
            looked += len(ids)
            size = min(2 * size, _PAGE)
            if progress:
                progress(looked, total)

    def get(self, export_id: str, among: Sequence[ExportState] = DEAD_LETTERS) -> ExportStatus:
        """Return one export that needs a person.

        Raises
        ------
        NoSuchExport
            There is none with this id.
        InvalidInput
            It does not need one.
        """
        letter = self._statuses([export_id])[0]
        if letter is None:
            raise NoSuchExport(f"there is no export {export_id}; `labrelay dead list` shows what needs a person")
        if letter.state not in among:
            raise InvalidInput(
                export_id, f"it is {letter.state}, not a dead letter", "`labrelay status` shows how it stands"
            )
        return letter

    def replay(
        self, letter: ExportStatus, *, assume: Assumption | None = None, destination: str | None = None
    ) -> tuple[Replayed, Wake | None, int]:
        """Give an export back to the workers: receipts and trail stay, failed deliveries begin anew.

        Parameters
        ----------
        letter
            The export as it was seen; nothing is done if it changed since.
        assume
            Settles its doubtful deliveries: ``delivered`` writes a receipt, ``missing`` lets them be sent again.
        destination
            Settle the doubt at this one alone.

        Returns
        -------
        tuple
            What was done, what to tell people who read the wake-up, and how many wake-ups to publish.
        """
        arguments: list[str | int] = []
        for name in doubts_of(letter, destination) if assume else []:
            arguments += [name, self._assumed(name) if assume == "delivered" else ""]
        seen = [self._keys.prefix, letter.export_id, to_ms(letter.updated)]
        with self._reachable():
            answer = cast("list[str]", self._replay(args=[*seen, person(), self._grace_ms, *arguments]))
        done = Replayed(export_id=letter.export_id, outcome=answer[0])
        if not done.is_done:
            return done, None, 0
        return done, Wake(letter.export_id, *answer[2:5]), int(answer[1])

    def drop(self, letters: Sequence[ExportStatus]) -> Iterator[Replayed]:
        """Write exports to the archive, then remove them from Redis.

        Raises
        ------
        OSError
            The archive cannot be written; what was not yet yielded is still in Redis.
        """
        for start in range(0, len(letters), _WHOLE_PAGE):
            page = letters[start : start + _WHOLE_PAGE]
            at = self.now()
            with self._reachable():
                answers = self._whole(args=[self._keys.prefix, *(letter.export_id for letter in page)])
            whole = [(letter, *whole_export(answer)) for letter, answer in zip(page, answers, strict=True)]
            lines = [
                archive_line(letter.export_id, row, trail, at=at, why="dropped")
                for letter, row, trail in whole
                if row
            ]
            path = self._archive.append(lines, at) if lines else None
            for letter, row, _ in whole:
                where = [str(path), self._archive.host, "dropped"]
                seen = [letter.export_id, letter.state, to_ms(letter.updated)]
                arguments = [self._keys.prefix, *seen, *where, pack_receipts(row)]
                with self._reachable():
                    outcome = str(self._remove(args=arguments))
                yield Replayed(export_id=letter.export_id, outcome=outcome)

    def _assumed(self, destination: str) -> str:
        receipt = Receipt(
            destination=destination, verified="assumed by a person", adopted=True, at=self.now(), worker=person()
        )
        return receipt.model_dump_json(exclude_none=True)

    def _statuses(self, ids: Sequence[str]) -> list[ExportStatus | None]:
        return [status_of(i, row) if row else None for i, row in zip(ids, self._ledger.rows(ids), strict=True)]


def doubts_of(letter: ExportStatus, destination: str | None = None) -> list[str]:
    """Return the destinations that may have an export without a receipt for it."""
    return [d.destination for d in letter.deliveries if d.in_doubt and destination in (None, d.destination)]


def person() -> str:
    """Return who acts, for trails and receipts."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):  # an account without a name, as in containers
        return socket.gethostname()
