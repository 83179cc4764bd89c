"""How exports stand now, asked of the ledger by a Flower that must never wait for it long."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from labrelay.errors import NoSuchExport
from labrelay.ledger import Ledger, connect
from labrelay.settings import ProducerSettings
from labrelay_worker.telling import tell_status

#: Flower serves its pages from one thread: a silent Redis may hold it up once in a while, and only for a moment.
_TIMEOUT = 0.5
_AWAY_SECONDS = 15.0
_FRESH_SECONDS = 2.0
_REMEMBERED = 4096


class Standing:
    """Answers how an export stands, from memory where it was asked a moment ago.

    Parameters
    ----------
    ask
        Asks the ledger; may raise anything.
    clock
        Seconds that only grow.
    """

    def __init__(self, ask: Callable[[str], str], clock: Callable[[], float] = time.monotonic) -> None:
        self._ask, self._clock = ask, clock
        self._known: OrderedDict[str, tuple[float, str | None]] = OrderedDict()
        self._away_until = float("-inf")

    def __call__(self, export_id: str) -> str | None:
        """Return how it stands; None: there is none, or the ledger does not answer."""
        now = self._clock()
        if (known := self._known.get(export_id)) is not None and now < known[0] + _FRESH_SECONDS:
            return known[1]
        if now < self._away_until:
            return None
        try:
            text: str | None = self._ask(export_id)
        except NoSuchExport:
            text = None
        except Exception:  # noqa: BLE001  Redis may be away, or Flower's user not allowed to read
            self._away_until = self._clock() + _AWAY_SECONDS
            return None
        self._known[export_id] = now, text
        self._known.move_to_end(export_id)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return text


def ledger_standing(settings: ProducerSettings) -> Standing:
    """Return how exports stand in the ledger of these settings."""
    patient = settings.model_copy(update={"redis_timeout": min(settings.redis_timeout, _TIMEOUT)})
    ledgers: list[Ledger] = []

    def ask(export_id: str) -> str:
        if not ledgers:
            ledgers.append(Ledger(connect(patient), patient.keys, patient.wake_up_grace))
        return tell_status(ledgers[0].status(export_id))

    return Standing(ask)
