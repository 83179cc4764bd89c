"""Watch the requests of a hosted class, so that what it did is known whatever it says of it.

A class with only the seed's five members turns every failure into a text: whether anything was made, whether the
answer was lost, and what the server said of waiting is gone by then. NexusLIMS's own classes reach their servers
through *requests*, so the one place that every request passes there is watched, in the threads of hosted calls alone.
Other clients are not seen; a class that uses one is hosted as before.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from labrelay_worker.http_answers import Answer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from labrelay.redaction import Redactor

#: Answers that ask to come back later: the ledger does the waiting, not a thread.
_LATER = frozenset({429, 502, 503, 504})
_SERVER_FAILED = 500
_CONNECT_SECONDS = 10.0
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_KEPT_BODY = 300


class Effect(StrEnum):
    """What a request does at the server."""

    READS = "reads"
    PREPARES = "prepares"  # makes what the class itself looks up first next time: a folder, a user
    MAKES = "makes"


#: Of NexusLIMS 2.8.0, the requests whose method alone does not tell (``utils/labarchives.py``, ``utils/cdcs.py``).
_TOLD_BY_PATH: Mapping[tuple[str, str], Effect] = MappingProxyType(
    {
        ("GET", "/tree_tools/insert_node"): Effect.MAKES,
        ("POST", "/rest/user/"): Effect.PREPARES,
        ("POST", "/rest/data/query/"): Effect.READS,
    }
)


@dataclass(frozen=True)
class Exchange:
    """One request and what became of it."""

    method: str
    #: Host and path; never the query, which may be signed.
    place: str
    effect: Effect
    #: None: no answer.
    answer: Answer | None = None
    #: False: there was no connection, so the server has not seen it.
    sent: bool = True

    def __str__(self) -> str:
        how = (
            f"answered {self.answer.status}" if self.answer else ("lost its answer" if self.sent else "was not sent")
        )
        return f"{self.method} {self.place} {how}"


@dataclass
class Watch:
    """The requests of one call, and the right to send more of them.

    Parameters
    ----------
    deadline
        Monotonic time at which the call is given up; later nothing is sent.
    redact
        Takes secrets out of what the class logs.
    """

    deadline: float
    redact: Redactor
    exchanges: list[Exchange] = field(default_factory=list)
    ended: str = ""

    def send(self, original: Callable[..., Any], request: Any, timeout: Any) -> Any:
        """Send one request in the time that is left, and note what became of it.

        Raises
        ------
        requests.RequestException
            It failed, the call is over, or the server asks to come back: the class must not send it again.
        """
        from requests import exceptions  # noqa: PLC0415  only a class that uses it brings it along

        left = self.deadline - time.monotonic()
        if self.ended or left <= 0:
            raise exceptions.RequestException(f"not sent: {self.ended or 'the call took too long'}")
        parts = urlsplit(request.url)
        seen = functools.partial(
            Exchange, request.method, f"{parts.hostname}{parts.path}", effect_of(request.method, request.url)
        )
        try:
            response = original(request, timeout=_bounded(timeout, left))
        except exceptions.RequestException as error:
            self.exchanges.append(seen(sent=not _never_connected(error)))
            if self.exchanges[-1].effect is not Effect.READS:
                self.ended = str(self.exchanges[-1])
            raise
        exchange = seen(answer=Answer(response.status_code, response.headers, b""))
        self.exchanges.append(exchange)
        failed = response.status_code >= _SERVER_FAILED and exchange.effect is not Effect.READS
        if failed or response.status_code in _LATER:
            self.ended = str(exchange)
            said = response.content[:_KEPT_BODY].decode(errors="replace").strip() or "no explanation"
            raise exceptions.HTTPError(f"{exchange}: {said}", request=request, response=response)
        return response


def effect_of(method: str, url: str) -> Effect:
    """Return what a request does, by its method or, where that does not tell, by its path.

    Examples
    --------
    >>> effect_of("GET", "https://h/api/tree_tools/insert_node?display_text=page&is_folder=false")
    <Effect.MAKES: 'makes'>
    >>> effect_of("GET", "https://h/api/tree_tools/insert_node?is_folder=true")
    <Effect.PREPARES: 'prepares'>
    """
    parts = urlsplit(url)
    for (known, ending), effect in _TOLD_BY_PATH.items():
        if method == known and parts.path.endswith(ending):
            return Effect.PREPARES if "is_folder=true" in parts.query.split("&") else effect
    return Effect.READS if method in _READING else Effect.MAKES


_current: ContextVar[Watch | None] = ContextVar("labrelay_watch", default=None)
_lock = threading.Lock()


@contextlib.contextmanager
def watching(seconds: float, redact: Redactor) -> Iterator[Watch]:
    """Watch what this thread sends and logs, for so many seconds at the longest."""
    _install()
    watch = Watch(time.monotonic() + seconds, redact)
    token = _current.set(watch)
    try:
        yield watch
    finally:
        _current.reset(token)


def _install() -> None:
    """Put the watch where requests pass, once per process; without a watch in the thread it does nothing."""
    with _lock:
        factory = logging.getLogRecordFactory()
        if not hasattr(factory, "labrelay"):
            logging.setLogRecordFactory(_redacting(factory))
        with contextlib.suppress(ImportError):  # without it nobody can send with it
            from requests.adapters import HTTPAdapter  # noqa: PLC0415

            adapter: Any = HTTPAdapter
            if not hasattr(adapter.send, "labrelay"):
                adapter.send = _watched(adapter.send)


def _watched(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def send(
        adapter: Any, request: Any, stream: bool = False, timeout: Any = None, *more: Any, **options: Any
    ) -> Any:
        def really(request: Any, timeout: Any) -> Any:
            return original(adapter, request, stream, timeout, *more, **options)

        watch = _current.get()
        return really(request, timeout) if watch is None else watch.send(really, request, timeout)

    vars(send)["labrelay"] = True
    return send


def _redacting(factory: Callable[..., logging.LogRecord]) -> Callable[..., logging.LogRecord]:
    """Return a factory whose records hold no secret when they are made during a watched call."""

    def make(*arguments: Any, **options: Any) -> logging.LogRecord:
        record = factory(*arguments, **options)
        watch = _current.get()
        if watch is not None:
            record.msg, record.args = watch.redact(record.getMessage()), ()
            if record.exc_info:
                record.exc_text = watch.redact("".join(traceback.format_exception(*record.exc_info)))
                record.exc_info = None
        return record

    vars(make)["labrelay"] = True
    return make


def _bounded(timeout: Any, left: float) -> tuple[float, float]:
    """Return connect and read timeouts: what the class wants, but never longer than the call may take."""
    given = timeout if isinstance(timeout, tuple) else (timeout, timeout)
    # The library takes an object of its own, too, which cannot be compared; the time of the call bounds that one.
    connect, read = (seconds if isinstance(seconds, int | float) else None for seconds in given)
    return min(connect or _CONNECT_SECONDS, left), min(read or left, left)


def _never_connected(error: Exception) -> bool:
    from requests import exceptions  # noqa: PLC0415

    if isinstance(error, exceptions.ConnectTimeout | exceptions.ProxyError):
        return True
    if isinstance(error, exceptions.SSLError):
        return _is_of_connecting(error)
    if not isinstance(error, exceptions.ConnectionError):
        # refused by the client itself: an invalid address or header
        return not isinstance(error, exceptions.Timeout | exceptions.ChunkedEncodingError | exceptions.RetryError)
    cause = getattr(error.args[0] if error.args else None, "reason", None)
    return type(cause).__name__ in ("NewConnectionError", "NameResolutionError")


def _is_of_connecting(error: BaseException) -> bool:
    """Return whether TLS failed before the request: a damaged answer is the same error, raised at another place."""
    while isinstance(inner := getattr(error, "reason", None) or next(iter(error.args), None), BaseException):
        error = inner
    return any(frame.f_code.co_name == "connect" for frame, _ in traceback.walk_tb(error.__traceback__))
