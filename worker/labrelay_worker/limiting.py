"""How fast accounts are used, by all workers together: calls per second and calls at once.

Ours is a page of Lua (``lua/reserve.lua``) because the library `limits` (5.8) answers another question: its ``hit``
says only yes or no, on the worker's clock; whoever gets a no must ask a second time for how long, which reserves
nothing, so that all who wait try again at the same moment; and it has no limit of calls at once.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from labrelay.errors import RateLimited
from labrelay.names import Keys
from labrelay.outages import is_outage
from labrelay_worker.batching import ScriptGroups
from labrelay_worker.destinations.base import Limits

_logger = logging.getLogger(__name__)

SCRIPTS = ("reserve", "places")

#: Waits up to this many seconds are spent in the process; longer ones in the ledger, where they hold no slot.
PATIENCE = 2.0
#: The same for a request within a call that has begun.
REQUEST_PATIENCE = 30.0
_FIRST_LOOK, _LONGEST_LOOK = 0.02, 0.25
#: Weight of the newest call in the mean duration.
_NEWEST = 0.2
#: Seconds that a call is thought to last until one has ended, and for how many accounts it is remembered.
_FIRST_DURATION, _REMEMBERED = 1.0, 1000


class AccountLimiter:
    """Reserves calls at the accounts of this process's destinations.

    Parameters
    ----------
    scripts
        Runs the Lua scripts named in `SCRIPTS`.
    keys
        Key names.
    lease_seconds
        How long the call of a dead worker counts as running.
    """

    def __init__(self, scripts: ScriptGroups, keys: Keys, *, lease_seconds: float) -> None:
        self._scripts, self._keys = scripts, keys
        self._lease_ms = max(1, int(lease_seconds * 1000))
        self._holders: dict[str, str] = {}
        #: Mean seconds of a call by account, of those used last.
        self._duration: dict[str, float] = {}

    @asynccontextmanager
    async def call(self, name: str, limits: Limits, *, overtakes: bool = False) -> AsyncIterator[None]:
        """Hold a call of a destination's account, from the moment it may begin.

        One that overtakes waits longer than the others, and so gets the next time that is free instead of being sent
        to the end of those who come again later.

        Raises
        ------
        RateLimited
            The wait is longer than `PATIENCE`; ``retry_after`` says when it is this caller's turn to ask again.
        """
        if not limits:
            yield
            return
        account, holder = account_key(limits.account or name), uuid.uuid4().hex
        pace = 1 / limits.per_second if limits.per_second else 0.0
        patience = 2 * PATIENCE + pace if overtakes else PATIENCE
        try:
            await self._reserve(account, limits, holder, patience=patience)
        except asyncio.CancelledError:
            if limits.concurrent:
                await self._free(account, holder)
            raise
        began = time.monotonic()
        if limits.concurrent:
            self._holders[holder] = account
        try:
            yield
        finally:
            self._note_duration(account, time.monotonic() - began)
            if self._holders.pop(holder, None):
                await self._free(account, holder)

    async def another(self, name: str, limits: Limits) -> None:
        """Wait for the pace once more: one more call within a `call` that is held already."""
        if limits.per_second:
            pace_only = Limits(limits.account, limits.per_second)
            await self._reserve(account_key(limits.account or name), pace_only, "")

    async def request(self, name: str, limits: Limits) -> None:
        """Wait for the pace of an account's single requests; a call in their midst is not given up lightly.

        Raises
        ------
        RateLimited
            The wait is longer than `REQUEST_PATIENCE`.
        """
        if limits.per_second:
            await self._reserve(account_key(limits.account or name), limits, "", patience=REQUEST_PATIENCE)

    async def renew(self) -> None:
        """Prolong the places of the running calls, for ever: a worker that dies stops doing so."""
        while True:
            await asyncio.sleep(self._lease_ms / 3000)
            flat = [part for holder, account in self._holders.items() for part in (account, holder)]
            if not flat:
                continue
            try:
                await self._scripts.run("places", self._keys.prefix, self._lease_ms, *flat)
            except Exception as error:  # noqa: BLE001  a place that runs out lets one call too many begin, no more
                _logger.warning("places at limited accounts could not be prolonged (%s)", type(error).__name__)

    async def _reserve(self, account: str, limits: Limits, holder: str, *, patience: float = PATIENCE) -> None:
        give_up_at, look = time.monotonic() + patience, _FIRST_LOOK
        interval = 1000 / limits.per_second if limits.per_second else 0.0
        usual = 1000 * self._duration.get(account, _FIRST_DURATION)
        per_place = usual / limits.concurrent if limits.concurrent else 0.0
        while True:
            left = max(0.0, give_up_at - time.monotonic())
            try:
                answer, milliseconds = await self._scripts.run(
                    "reserve", self._keys.prefix, account, f"{interval:.3f}", f"{left * 1000:.3f}",
                    limits.concurrent or 0, holder, self._lease_ms, f"{max(interval, per_place, 1.0):.3f}",
                )  # fmt: skip
            except Exception as error:
                if not is_outage(error):
                    raise
                # Nothing was tried, and without Redis nobody knows what the others use of the account.
                text = f"the limit of its account is not known: Redis does not answer ({type(error).__name__})"
                raise RateLimited(text, retry_after=PATIENCE) from None
            wait = float(milliseconds) / 1000
            if answer == "go":
                await asyncio.sleep(wait)
                return
            if answer == "later":
                raise RateLimited("the limit of its account is reached", retry_after=wait)
            await asyncio.sleep(min(look, left))
            look = min(look * 2, _LONGEST_LOOK)

    def _note_duration(self, account: str, seconds: float) -> None:
        before = self._duration.pop(account, _FIRST_DURATION)
        self._duration[account] = before + _NEWEST * (seconds - before)
        if len(self._duration) > _REMEMBERED:  # a lock of a single record is an account, too
            del self._duration[next(iter(self._duration))]

    async def _free(self, account: str, holder: str) -> None:
        try:
            await self._scripts.run("places", self._keys.prefix, 0, account, holder)
        except Exception as error:  # noqa: BLE001  the delivery is done; its place runs out by itself
            _logger.warning("a place at a limited account was not freed (%s)", type(error).__name__)


def account_key(account: str) -> str:
    """Return the account as it stands in keys: account names may be half of a credential."""
    return hashlib.sha256(account.encode()).hexdigest()[:16]
