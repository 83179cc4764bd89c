"""Host a viewer class of OpenHCS's interface: it never holds a caller up, and drops nothing in silence."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from labrelay_worker.backends.base import (
    Address,
    BackendError,
    IfExists,
    StreamingBackend,
    Unavailable,
    Unsupported,
    clean,
    pairs,
    require_distinct,
    settle,
)
from labrelay_worker.backends.foreign_errors import understood


class ForeignStream(StreamingBackend):
    """Base of the hosts that `adopt` makes for viewers.

    Each call runs in a thread of its own. One that does not come back within `deadline` is left to itself, and until
    it comes back the viewer counts as away: an absent viewer costs one deadline, not one for every image.

    Parameters
    ----------
    deadline
        Seconds a call may take.
    options
        The hosted class's own.
    """

    needs = frozenset({"display"})
    #: The class that does the work.
    hosted: ClassVar[type]

    def __init__(self, *, deadline: float = 2.0, **options: Any) -> None:
        self._deadline = deadline
        self._theirs: Any = self.hosted(**options)
        self._busy = threading.Lock()
        self._closed = False

    def save(self, data: Any, identifier: Address, *, if_exists: IfExists = "error") -> None:
        """Show one image."""
        self.save_batch([data], [identifier], if_exists=if_exists)

    def save_batch(
        self, data_list: Sequence[Any], identifiers: Sequence[Address], *, if_exists: IfExists = "error"
    ) -> None:
        """Show all images, or raise."""
        batch = pairs(data_list, identifiers)
        names = [clean(address) for _, address in batch]
        require_distinct(names)
        for (payload, _), name in zip(batch, names, strict=True):
            settle(None, "file", if_exists, name)
            self._check(payload, name)
        if batch:
            self._in_time(lambda: self._theirs.save_batch([payload for payload, _ in batch], names), names[0])

    def cleanup_connections(self) -> None:
        """Close connections if the class knows how; its `cleanup`, which may close windows, is not called for it."""
        self._end("cleanup_connections")

    def cleanup(self) -> None:
        """Close what the hosted class opened, once."""
        if not self._closed:
            self._closed = True
            self._end("cleanup")

    def _check(self, payload: Any, name: str) -> None:
        """Refuse what such classes drop without a word."""
        if not getattr(payload, "ndim", 0) or not getattr(payload, "size", 0):
            msg = f"{name}: a {type(payload).__name__} is no image; pass an array that is not empty"
            raise Unsupported(msg)
        takes = getattr(self._theirs, "supports_file_path", None)
        if takes is not None and not takes(name):
            msg = f"{name}: {self._backend_type} shows no files of this suffix"
            raise Unsupported(msg)

    def _in_time(self, call: Callable[[], object], name: str) -> None:
        if not self._busy.acquire(timeout=self._deadline):
            msg = f"{name}: the viewer behind {self._backend_type} does not answer; start it, or look at it"
            raise Unavailable(msg)
        outcome: list[Exception] = []
        done = threading.Event()

        def run() -> None:
            try:
                call()
            except Exception as error:  # noqa: BLE001  raised in the caller's thread
                outcome.append(error)
            finally:
                self._busy.release()
                done.set()

        threading.Thread(target=run, name=f"{self._backend_type} viewer", daemon=True).start()
        if not done.wait(self._deadline):
            msg = f"{name}: the viewer behind {self._backend_type} did not answer in {self._deadline:g} s"
            raise Unavailable(msg)
        for error in outcome:
            if isinstance(error, RuntimeError):
                msg = f"{name}: the viewer did not take it: {error}"
                raise Unavailable(msg) from error
            with understood(name, Unsupported):
                raise error

    def _end(self, name: str) -> None:
        method = getattr(self._theirs, name, None)
        if callable(method):
            try:
                self._in_time(method, name)
            except BackendError as error:
                msg = f"{self._backend_type} could not close in time; its sockets close with this process ({error})"
                raise Unavailable(msg) from error
