"""The worker's end of a live view: offers are taken at once, sent within a window, and counted to their end.

A viewer that is away, killed or frozen costs its callers nothing but the time they choose to wait: what cannot be
shown is dropped, oldest first, and every drop is counted, kept in the ticket and logged.
"""

from __future__ import annotations

import itertools
import logging
import os
import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from labrelay_worker.viewers.asking import ask
from labrelay_worker.viewers.frames import BadMessage, Message, checksum, show_message
from labrelay_worker.viewers.link import Link, import_zmq
from labrelay_worker.viewers.pictures import Showable
from labrelay_worker.viewers.places import Place, ViewerAway
from labrelay_worker.viewers.sendwindow import Limits, SendWindow
from labrelay_worker.viewers.ticket import Fate, Tally, Ticket

_logger = logging.getLogger(__name__)

_TICK = 0.25
_DYING_SECONDS = 0.5


@dataclass(frozen=True)
class Pace:
    """Times of a stream, in seconds.

    Parameters
    ----------
    join
        In which a viewer must prove itself.
    silence
        Without a sign of life of the viewer's process, after which it counts as gone.
    stall
        Without any acknowledgement while something is under way, after which the window counts as hung.
    first_pause, longest_pause
        Until an absent viewer is looked for again; doubles each time.
    """

    join: float = 2.0
    silence: float = 3.0
    stall: float = 15.0
    first_pause: float = 1.0
    longest_pause: float = 30.0


class ViewerStream:
    """A stream to one viewer, with a thread of its own from the first offer on.

    Parameters
    ----------
    place, port
        Where the viewer is; see `Link`.
    limits, pace
        Bounds in bytes and in seconds.
    launch
        Called when no viewer runs; True: one is starting, so that offers wait for it. False: there will be none.
    """

    def __init__(
        self,
        place: Place,
        *,
        port: int | None = None,
        limits: Limits | None = None,
        pace: Pace | None = None,
        launch: Callable[[], bool] = lambda: False,
    ) -> None:
        self._place, self._port, self._pace = place, port, pace or Pace()
        self._launch = launch
        self._window: SendWindow[Ticket] = SendWindow(limits or Limits())
        self._changed = threading.Condition()
        self._numbers = itertools.count(1)
        self._totals = Tally()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._wake_in = self._wake_out = -1
        self._state: Literal["new", "joined", "away"] = "new"
        self._reason = ""
        self._pause = 0.0
        self._look_again = 0.0

    @property
    def totals(self) -> Tally:
        """Counts of everything that has ended."""
        with self._changed:
            return Tally(self._totals.counts.copy(), self._totals.received, self._totals.reason)

    @property
    def has_shown(self) -> bool:
        """Whether anything of this stream was displayed."""
        return self._totals.counts[Fate.DISPLAYED] > 0

    def offer(self, item: Showable, deadline: float = 0.0) -> Ticket:
        """Take an item to be shown; its arrays must not change any more.

        Returns at once when there is room or the viewer is away; else waits for room until the deadline (monotonic
        seconds), after which the oldest waiting items give way.

        Raises
        ------
        Unsupported
            It is nothing that can be shown.
        """
        number = next(self._numbers)
        message = show_message(item, number)
        ticket = Ticket(number, item.name, message, size=message.size, digest=checksum(message.payload))
        with self._changed:
            self._start()
            while self._state != "away" and not self._window.has_room(ticket.size):
                if (left := deadline - time.monotonic()) <= 0 or not self._changed.wait(left):
                    break
            if self._state == "away" and time.monotonic() < self._look_again:
                self._end(ticket, Fate.DROPPED, self._reason)
                return ticket
            for oldest in self._window.add(ticket):
                self._end(oldest, Fate.DROPPED, "the viewer is slower than what arrives; the oldest gave way")
            self._wake()
        return ticket

    def close(self, linger: float = 0.0) -> None:
        """Close the connection after at most `linger` seconds for what is under way; the next offer opens it anew."""
        deadline = time.monotonic() + linger
        with self._changed:
            thread = self._thread
            while thread is not None and self._state == "joined" and len(self._window):
                if (left := deadline - time.monotonic()) <= 0 or not self._changed.wait(left):
                    break
            self._closing = True
            self._wake()
        if thread is not None:
            thread.join(timeout=self._pace.join + 5)
        with self._changed:
            self._drop_all("the worker closed its connection")
            self._thread, self._closing, self._state, self._look_again = None, False, "new", 0.0

    def ask_to_close(self) -> bool:
        """Ask the viewer to close its window; return whether it will."""
        try:
            ask(self._place, "close", "closing", port=self._port, join=self._pace.join, seconds=self._pace.stall)
        except ViewerAway as error:
            _logger.info("viewer %s is not asked to close: %s", self._place.name, error)
            return False
        return True

    def _start(self) -> None:
        if self._thread is None:
            self._wake_out, self._wake_in = os.pipe()
            os.set_blocking(self._wake_in, False)
            self._thread = threading.Thread(target=self._run, name=f"labrelay-view-{self._place.name}", daemon=True)
            self._thread.start()

    def _wake(self) -> None:
        if self._thread is not None:
            try:
                os.write(self._wake_in, b"x")
            except OSError:  # full, so it wakes anyway; or closed, so nobody sleeps
                return

    def _run(self) -> None:
        context = None
        try:
            zmq = import_zmq()
            context = zmq.Context()
            while not self._closing:
                link = self._join(context)
                if link is None:
                    self._sleep()
                    continue
                try:
                    reason = self._carry(zmq, link)
                finally:
                    link.close()
                if reason:
                    self._go_away(reason)
        except ViewerAway as error:
            self._go_away(str(error))
        except Exception as error:
            _logger.exception("the stream to viewer %s met an error in labrelay itself", self._place.name)
            self._go_away(f"internal error {type(error).__name__}: {error}")
        finally:
            if context is not None:
                context.term()
            with self._changed:
                os.close(self._wake_out)
                os.close(self._wake_in)
                self._wake_in = -1
                if not self._closing:
                    self._thread = None

    def _join(self, context: Any) -> Link | None:
        with self._changed:
            if not len(self._window) or time.monotonic() < self._look_again:
                return None
        try:
            link = Link(context, self._place, self._port, self._pace.join, self._pace.silence)
        except ViewerAway as error:
            if self._launch():
                with self._changed:
                    self._look_again = 0.0
                return None
            self._go_away(str(error))
            return None
        _logger.info("viewer %s joined at %s", self._place.name, link.endpoint)
        with self._changed:
            self._state, self._reason, self._pause = "joined", "", 0.0
        return link

    def _sleep(self) -> None:
        readable, _, _ = select.select([self._wake_out], [], [], _TICK)
        if readable:
            os.read(self._wake_out, 4096)

    def _carry(self, zmq: Any, link: Link) -> str:
        """Send and take answers until the link breaks; return why it did, empty when closing was asked for."""
        poller = zmq.Poller()
        for readable in (*link.pollable, self._wake_out):
            poller.register(readable, zmq.POLLIN)
        heard = time.monotonic()
        while not self._closing:
            with self._changed:
                idle = not self._window.under_way
                while (ticket := self._window.next()) is not None:
                    link.send(ticket.message)
                if idle:
                    heard = time.monotonic()
            events = dict(poller.poll(_TICK * 1000))
            if self._wake_out in events:
                os.read(self._wake_out, 4096)
            try:
                while (answer := link.receive()) is not None:
                    heard = time.monotonic()
                    self._take(answer)
            except BadMessage as error:
                return f"the viewer answered what is not ours: {error}"
            if link.is_cut():
                return self._why_cut()
            if time.monotonic() - heard > self._pace.stall and self._window.under_way:
                return f"the viewer acknowledged nothing for {self._pace.stall:g} s; its window hangs"
        return ""

    def _why_cut(self) -> str:
        # The lock of a process that dies goes a moment after its sockets.
        deadline = time.monotonic() + _DYING_SECONDS
        while self._place.is_held():
            if time.monotonic() > deadline:
                return f"the viewer gave no sign of life for {self._pace.silence:g} s; it is stopped"
            time.sleep(_DYING_SECONDS / 10)
        return "the viewer's process ended"

    def _take(self, answer: Message) -> None:
        number = answer.fields.get("id")
        with self._changed:
            if answer.kind == "received":
                if (ticket := self._window.find(number)) is not None:
                    ticket.received = True
                return
            if answer.kind not in ("displayed", "refused") or (ticket := self._window.settle(number)) is None:
                return
            if answer.kind == "refused":
                self._end(ticket, Fate.REFUSED, str(answer.fields.get("reason")))
            elif answer.fields.get("digest") != ticket.digest:
                self._end(ticket, Fate.REFUSED, "the viewer holds other pixels than were sent")
            else:
                self._end(ticket, Fate.DISPLAYED, "")

    def _go_away(self, reason: str) -> None:
        with self._changed:
            was_known = self._state == "away"
            self._state, self._reason = "away", reason
            self._pause = min(max(self._pause * 2, self._pace.first_pause), self._pace.longest_pause)
            self._look_again = time.monotonic() + self._pause
            dropped = self._drop_all(reason)
        level = logging.DEBUG if was_known else logging.WARNING
        _logger.log(
            level, "viewer %s: %s. %d dropped now, %d since the start; exports are not affected",
            self._place.name, reason, dropped, self._totals.counts[Fate.DROPPED],
        )  # fmt: skip

    def _drop_all(self, reason: str) -> int:
        under_way, waiting = self._window.clear()
        for ticket in under_way:
            self._end(ticket, Fate.DROPPED, f"sent and not confirmed: {reason}")
        for ticket in waiting:
            self._end(ticket, Fate.DROPPED, reason)
        return len(under_way) + len(waiting)

    def _end(self, ticket: Ticket, fate: Fate, reason: str) -> None:
        ticket.end(fate, reason)
        self._totals.counts[fate] += 1
        self._totals.reason = reason or self._totals.reason
        self._changed.notify_all()
