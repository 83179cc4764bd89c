"""Host any destination object safely: time limits, threads, typed and redacted errors, receipts.

The engine sees one interface however simple the plugin is; a class with only the seed's five members is hosted as
it is.
"""

from __future__ import annotations

import asyncio
import inspect
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import lru_cache
from typing import Any

from labrelay.context import ExportContext
from labrelay.errors import (
    DeliveryError,
    OutcomeUnknown,
    Transient,
    Unavailable,
)
from labrelay.priorities import Priority
from labrelay.redaction import Redactor
from labrelay.results import DestinationInfo, Receipt
from labrelay_worker.answers import receipt_of
from labrelay_worker.blocking import BlockingCalls
from labrelay_worker.destinations.account import Account
from labrelay_worker.destinations.base import Destination, Limits
from labrelay_worker.guarding import RecordGuard
from labrelay_worker.guests import deliver
from labrelay_worker.planning import Hold
from labrelay_worker.timelimits import TimeLimit
from labrelay_worker.watching import watching

#: Seconds a delivery waits for a thread in the process.
_THREAD_PATIENCE = 2.0
_NEVER_SENT = (ConnectionRefusedError, socket.gaierror)


class HostedDestination:
    """One destination as the engine sees it.

    Parameters
    ----------
    destination
        Any object with the seed's five members.
    info
        Its name, priority and waits as planned.
    records
        Checks that a record is still the one that was submitted.
    redact
        Takes secrets out of its error texts.
    call_timeout
        Seconds for one call unless the destination says otherwise.
    threads
        Blocking calls at once; a hung call keeps its place until it returns.
    limits
        How fast all workers together may call it.
    """

    def __init__(
        self,
        destination: Any,
        info: DestinationInfo,
        *,
        records: RecordGuard,
        redact: Redactor,
        call_timeout: float,
        threads: int,
        limits: Limits | None = None,
    ) -> None:
        self.destination, self.info = destination, info
        self.redact = redact
        self.limits = limits or Limits()
        self._timeout: float = getattr(destination, "timeout", None) or call_timeout
        self._limit = TimeLimit(self._timeout)
        self._records = records
        self._threads = BlockingCalls(info.name, threads, patience=min(self._timeout, _THREAD_PATIENCE))
        self._blocking = not inspect.iscoroutinefunction(destination.export)
        #: Calls at once that it can make; None: as many as come.
        self.places = threads if self._blocking else None
        self._idempotent = bool(getattr(destination, "idempotent", False))
        self.can_find = callable(getattr(destination, "find", None))
        self.can_ask = self._idempotent or self.can_find
        self.can_link = callable(getattr(destination, "link", None))
        # Nobody can ask it what became of a send, so its requests are watched instead.
        self._is_guest = self._blocking and not self.can_ask

    def share(self, account: Account) -> None:
        """Give the destination the account that it shares with the other workers."""
        if isinstance(self.destination, Destination):
            self.destination.account = account

    def held(self) -> Hold | None:
        """Return None: what holds a destination is known to `labrelay_worker.admission`."""
        return None

    def slot(self, priority: Priority = Priority.NORMAL) -> AbstractAsyncContextManager[None]:
        """Hold one of the destination's threads; raises `RateLimited` when none comes free for a while."""
        return self._threads.place() if self._blocking else nullcontext()

    async def export(self, context: ExportContext, *, attempt: int) -> Receipt:
        """Send the record, or update the previous revision in place where the destination can.

        Raises
        ------
        DeliveryError
            Whatever went wrong, typed and without secrets.
        """
        await self._records.require_unchanged(context, timeout=self._timeout)
        previous = context.previous_receipts.get(self.info.name)
        if previous is not None and callable(getattr(self.destination, "update", None)):
            result = await self._call(self.destination.update, context, previous, sends=True)
        else:
            export = self._export_watched if self._is_guest else self.destination.export
            result = await self._call(export, context, sends=True)
        return self._receipt(result, context, attempt=attempt)

    async def resolve_doubt(self, context: ExportContext, *, attempt: int) -> Receipt | None:
        """Ask whether an earlier send arrived; None means that sending again is safe.

        Raises
        ------
        OutcomeUnknown
            The destination cannot be asked and would make a second object.
        """
        if self.can_find:
            found = await self._call(self.destination.find, context, sends=False)
            return None if found is None else self._receipt(found, context, attempt=attempt, adopted=True)
        if self._idempotent:
            return None
        raise OutcomeUnknown("a worker ended while sending; the record may have arrived")

    async def link(self, context: ExportContext, receipt: Receipt) -> Receipt:
        """Add links to what was delivered meanwhile to the entry of the receipt.

        Raises
        ------
        DeliveryError
            Whatever went wrong, typed and without secrets; the entry stays delivered.
        """
        result = await self._call(self.destination.link, context, receipt, sends=False)
        return self._receipt(result, context, attempt=receipt.attempt)

    async def validate_config(self) -> tuple[bool, str | None]:
        """Return whether it could deliver now, and what is wrong if not; never raises."""
        try:
            check = self._check_watched if self._is_guest else self.destination.validate_config
            answer = await self._call(check, sends=False)
        except DeliveryError as error:
            return False, str(error)
        try:
            valid, message = answer
        except (TypeError, ValueError):
            return False, f"validate_config answered {type(answer).__name__} instead of (bool, text)"
        return bool(valid), None if message is None else self.redact(str(message))

    async def close(self) -> None:
        """Close what the destination opened, if it has a ``close``."""
        close = getattr(self.destination, "close", None)
        if callable(close):
            await self._call(close, sends=False)

    def _export_watched(self, context: ExportContext) -> Any:
        return deliver(self.destination.export, context, seconds=self._timeout, redact=self.redact)

    def _check_watched(self) -> Any:
        with watching(self._timeout, self.redact):
            return self.destination.validate_config()

    async def _call(self, function: Callable[..., Any], *arguments: Any, sends: bool) -> Any:
        try:
            with self._limit.over_call():
                if _is_async(getattr(function, "__func__", function)):
                    return await function(*arguments)
                outcome = await self._threads.call(function, *arguments)
                return await outcome if inspect.isawaitable(outcome) else outcome
        except DeliveryError as error:
            error.args = (self.redact(str(error)),)
            raise
        except TimeoutError as error:
            text = self.redact(str(error)) or f"no answer within {self._timeout:g} s"
            raise (OutcomeUnknown(text) if sends else Transient(text)) from None
        except _NEVER_SENT as error:
            raise Unavailable(self.redact(f"{type(error).__name__}: {error}")) from None
        except BaseException as error:  # a plugin must not end the worker, not even by SystemExit
            task = asyncio.current_task()
            # A cancellation that nobody asked for is the plugin's own affair.
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            text = self.redact(f"{type(error).__name__}: {error}")
            raise (OutcomeUnknown(text) if sends else Transient(text)) from None

    def _receipt(self, answer: Any, context: ExportContext, *, attempt: int, adopted: bool = False) -> Receipt:
        return receipt_of(
            answer, context, destination=self.info.name, redact=self.redact, attempt=attempt, adopted=adopted
        )


#: Looking costs more than the call that is made; a plugin has a handful of methods.
_is_async = lru_cache(maxsize=256)(inspect.iscoroutinefunction)
