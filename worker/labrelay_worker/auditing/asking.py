"""Ask one destination about one delivery; whatever it does, a finding comes back."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from labrelay.errors import DeliveryError, LabrelayError, Misconfigured, RateLimited, Unavailable
from labrelay_worker.auditing.delivered import Delivered
from labrelay_worker.destinations.findings import (
    NOT_ASKED,
    Finding,
    Mark,
    cannot_be_asked,
    equal,
    missing,
)
from labrelay_worker.hosting import HostedDestination
from labrelay_worker.limiting import AccountLimiter

#: Whole-destination failures in a row after which the rest of an audit leaves it alone.
_GIVE_UP_AFTER = 3
#: Seconds that one question waits for its turn at a busy account; workers take their turns meanwhile.
_LONGEST_WAIT = 900.0


class AuditedHost(HostedDestination):
    """A hosted destination that is asked, and never sent to."""

    async def audit(self, delivered: Delivered) -> Finding:
        """Return how a delivery stands.

        Raises
        ------
        DeliveryError
            It could not be asked, typed and without secrets.
        """
        receipt, context = delivered.receipt, delivered.context
        if context is None:
            return Finding(Mark.UNKNOWN, delivered.problem, "unreadable")
        if self.info.lossy:
            return cannot_be_asked("a viewer keeps nothing")
        check = getattr(self.destination, "check", None)
        # A receipt by a person's word names no record to compare with.
        if callable(check) and receipt.record_id is not None:
            return self._finding(await self._call(check, context, receipt, sends=False))
        if not self.can_find:
            return cannot_be_asked("this type of destination has no way to be asked what it holds")
        found = await self.resolve_doubt(context, attempt=receipt.attempt)
        if found is None:
            return missing("it says that it does not hold this revision whole; a part, or another one, may be there")
        return equal(found.verified or "it says that it holds this revision")

    def _finding(self, answer: Any) -> Finding:
        if not isinstance(answer, Finding):
            return Finding(Mark.UNKNOWN, f"check answered {type(answer).__name__} instead of a Finding", "transient")
        return Finding(answer.mark, self.redact(answer.said), answer.kind)


class Lane:
    """The questions to one destination: in the pace of its account, and no more of them once it is down.

    Parameters
    ----------
    host
        The destination; None: nobody serves it here, and `why_not` says more.
    limiter
        Shared with the workers through Redis.
    why_not
        Why it is not asked at all; empty: it is.
    at_once
        Questions at once.
    """

    def __init__(self, host: AuditedHost | None, limiter: AccountLimiter, *, why_not: str, at_once: int) -> None:
        self._host, self._limiter = host, limiter
        self._why_not = why_not
        self._places = asyncio.Semaphore(at_once)
        self._down_in_a_row = 0

    async def ask(self, delivered: Delivered) -> Finding:
        """Return how a delivery stands; never raises but for a cancellation."""
        async with self._places:
            if self._host is None or self._why_not:
                return Finding(Mark.UNKNOWN, self._why_not, NOT_ASKED)
            try:
                finding = await self._in_turn(self._host, delivered)
            except DeliveryError as error:
                if isinstance(error, Unavailable | Misconfigured):
                    self._note_down(str(error))
                return Finding(Mark.UNKNOWN, str(error), error.kind)
            except LabrelayError as error:
                return Finding(Mark.UNKNOWN, str(error), "error")
            self._down_in_a_row = 0
            return finding

    async def _in_turn(self, host: AuditedHost, delivered: Delivered) -> Finding:
        give_up_at = time.monotonic() + _LONGEST_WAIT
        while True:
            try:
                async with host.slot(), self._limiter.call(host.info.name, host.limits):
                    return await host.audit(delivered)
            except RateLimited as error:
                wait = error.retry_after or 1.0
                if time.monotonic() + wait > give_up_at:
                    raise
                await asyncio.sleep(wait)

    def _note_down(self, why: str) -> None:
        self._down_in_a_row += 1
        if self._down_in_a_row >= _GIVE_UP_AFTER:
            self._why_not = f"not asked: it was down {_GIVE_UP_AFTER} times in a row ({why})"
