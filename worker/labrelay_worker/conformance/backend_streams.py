"""What a `StreamingBackend` promises: it answers in time, tells what it cannot show, and closes at any moment."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labrelay_worker.backends.base import BackendError, StreamingBackend, Unavailable, Unsupported
from labrelay_worker.conformance.backend_cases import SinkCases, needs
from labrelay_worker.conformance.backend_lives import together


class StreamConformance(SinkCases):
    """Everything a viewer's backend promises. Sub-class it, name the class ``Test…``, and define `make`.

    It runs with a viewer that is there and with one that is not: define `make` for the one and sub-class again for
    the other. `bound` is how many seconds a call may take whatever the viewer does.
    """

    bound: float = 10.0

    def make(self, folder: Path) -> StreamingBackend:
        """Return a new backend; it may keep sockets and the like in this folder."""
        raise NotImplementedError(f"{type(self).__name__} must say how to make its backend")

    def payload(self, number: int) -> Any:
        """Return an image."""
        return np.full((8, 8), number, "uint16")

    @needs("arrays")
    def test_an_image_is_shown_or_the_error_says_to_try_again(self, backend: StreamingBackend) -> None:
        self._in_time(lambda: backend.save(self.payload(1), "plane.tif"))

    @needs("arrays", "batches")
    def test_a_batch_is_shown_or_the_error_says_to_try_again(self, backend: StreamingBackend) -> None:
        self._in_time(lambda: backend.save_batch([self.payload(1), self.payload(2)], ["a.tif", "b.tif"]))

    def test_what_cannot_be_shown_is_refused_never_dropped_in_silence(self, backend: StreamingBackend) -> None:
        with pytest.raises(Unsupported):
            backend.save(object(), "plane.tif")

    def test_one_address_twice_in_a_batch_is_refused(self, backend: StreamingBackend) -> None:
        with pytest.raises(Unsupported):
            backend.save_batch([self.payload(1), self.payload(2)], ["a.tif", "a.tif"])

    def test_closing_connections_does_not_end_it(self, backend: StreamingBackend) -> None:
        self._in_time(lambda: backend.save(self.payload(1), "plane.tif"))
        backend.cleanup_connections()
        self._in_time(lambda: backend.save(self.payload(2), "plane.tif"))

    def test_cleaning_up_while_others_work_ends_in_answers_or_backend_errors(self, backend: StreamingBackend) -> None:
        errors = together(lambda number: backend.save(self.payload(number), f"{number}.tif"), backend.cleanup)
        assert [error for error in errors if not isinstance(error, BackendError)] == []

    def _in_time(self, call: Any) -> None:
        outcome = list[BaseException]()

        def run() -> None:
            try:
                call()
            except BaseException as error:  # noqa: BLE001  looked at below
                outcome.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(self.bound)
        assert not thread.is_alive(), f"a viewer held the caller up for more than {self.bound} s"
        for error in outcome:
            if not isinstance(error, Unavailable):
                raise error
