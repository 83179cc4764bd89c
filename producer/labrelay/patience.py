"""How long a submit waits for a Redis that is silent, whatever hangs: name look-up, connection, answer."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

from labrelay.errors import LedgerUnavailable

Result = TypeVar("Result")


class Patience:
    """A budget of waiting that only failures use up: a Redis that answers may take many calls.

    Parameters
    ----------
    seconds
        The budget; None: the calls' own timeouts are enough, and they are made right here.
    helpers
        Threads to make the calls in.
    """

    def __init__(self, seconds: float | None, helpers: Helpers | None = None) -> None:
        self._seconds = seconds
        self._helpers = helpers or Helpers()
        self.spent = 0.0

    def call(self, function: Callable[[], Result], *, here: Callable[[float], Result | None] | None = None) -> Result:
        """Call it and return what it returns, or give up on it.

        A call given up goes on in its thread until its own timeout: it may yet succeed, so everything called
        here must be harmless when repeated.

        Parameters
        ----------
        function
            What to call.
        here
            The same without a thread, which costs less: gives up by itself after so many seconds, with a
            `TimeoutError`, or answers None where it cannot promise that.

        Raises
        ------
        LedgerUnavailable
            The budget is used up.
        """
        if self._seconds is None:
            return function()
        began = time.monotonic()
        try:
            if here is not None and (result := here(max(self._seconds - self.spent, 0))) is not None:
                return result
            return self._helpers.run(function, max(self._seconds - self.spent - (time.monotonic() - began), 0))
        except BaseException as error:
            self.spent += time.monotonic() - began
            if isinstance(error, TimeoutError):
                raise LedgerUnavailable(f"Redis did not answer within {self._seconds:g} s") from None
            raise


class Helpers:
    """Threads that make calls for others, who may give up on them. They are kept: Celery sets up each new thread."""

    def __init__(self) -> None:
        self._idle: list[_Helper] = []
        self._closed = False
        self._lock = threading.Lock()

    def run(self, function: Callable[[], Result], seconds: float) -> Result:
        """Return what the function returns; raises what it raises, or `TimeoutError` when it takes too long."""
        helper = self._take()
        answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        helper.inbox.put((function, answers))
        try:
            result, error = answers.get(timeout=seconds)
        except BaseException as error:
            helper.inbox.put(None)
            if isinstance(error, queue.Empty):
                raise TimeoutError from None
            raise
        self._give_back(helper)
        if error is not None:
            raise error
        return cast("Result", result)

    def close(self) -> None:
        """Let the threads end."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for helper in idle:
            helper.inbox.put(None)

    def _take(self) -> _Helper:
        with self._lock:
            while self._idle:
                helper = self._idle.pop()
                # After a fork the objects are there and the threads are not.
                if helper.thread.is_alive():
                    return helper
        return _Helper()

    def _give_back(self, helper: _Helper) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(helper)
                return
        helper.inbox.put(None)


class _Helper:
    """One thread that makes one call after the other until it is given None."""

    def __init__(self) -> None:
        self.inbox: queue.SimpleQueue[tuple[Callable[[], Any], queue.SimpleQueue[Any]] | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=_serve, args=(self.inbox,), name="labrelay-redis", daemon=True)
        self.thread.start()


def _serve(inbox: queue.SimpleQueue[tuple[Callable[[], Any], queue.SimpleQueue[Any]] | None]) -> None:
    while (job := inbox.get()) is not None:
        function, answers = job
        try:
            answers.put((function(), None))
        except BaseException as error:  # noqa: BLE001  it is raised again where it was called
            answers.put((None, error))
        # Nothing of a call, and so no export, is held while waiting for the next.
        del job, function, answers
