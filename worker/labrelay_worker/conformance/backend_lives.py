"""Several threads at once, and the end: cleaning up, also while somebody is at work."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from labrelay_worker.backends.base import AlreadyExists, BackendError, StorageBackend
from labrelay_worker.conformance.backend_cases import StorageCases, needs, same

_THREADS = 8
_ROUNDS = 5
_PATIENCE = 60  # seconds until a thread that does not end fails the test


def together(work: Callable[[int], None], meanwhile: Callable[[], None] | None = None) -> list[BaseException]:
    """Run `work` in threads that start at once; return what they raised."""
    barrier, errors = threading.Barrier(_THREADS + 1), list[BaseException]()

    def run(number: int) -> None:
        barrier.wait()
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001  the test looks at it
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(_THREADS)]
    for thread in threads:
        thread.start()
    barrier.wait()
    if meanwhile is not None:
        meanwhile()
    for thread in threads:
        thread.join(_PATIENCE)
        assert not thread.is_alive(), "a call never came back"
    return errors


class Lives(StorageCases):
    """Threads and ends."""

    def test_threads_do_not_disturb_each_other(self, backend: StorageBackend) -> None:
        def work(number: int) -> None:
            for turn in range(_ROUNDS):
                name = f"shared/{number}/{turn}"
                backend.save(self.payload(number), name)
                assert same(backend.load(name), self.payload(number))
                assert Path(name) in backend.list_files(f"shared/{number}")

        assert together(work) == []
        assert len(backend.list_files("shared", recursive=True)) == _THREADS * _ROUNDS

    def test_of_writers_at_once_exactly_one_wins(self, backend: StorageBackend) -> None:
        outcomes = list[int]()

        def write(number: int) -> None:
            try:
                backend.save(self.payload(number), "deep/er/contested")
            except AlreadyExists:
                return
            outcomes.append(number)

        assert together(write) == []
        # Then one won, and what is stored is its content, whole
        assert len(outcomes) == 1
        assert self.holds(backend, **{"deep/er/contested": outcomes[0]})
        assert backend.list_dir("deep/er") == ["contested"]

    @needs("replacing")
    def test_readers_see_the_old_or_the_new_while_it_is_replaced(self, backend: StorageBackend) -> None:
        backend.save(self.payload(0), "changing")
        backend.save(self.payload(0), "changing", if_exists="replace")

        def work(number: int) -> None:
            for turn in range(_ROUNDS):
                if number == 0:
                    backend.save(self.payload(turn), "changing", if_exists="replace")
                else:
                    found = backend.load("changing")
                    assert any(same(found, self.payload(turn)) for turn in range(_ROUNDS))

        assert together(work) == []

    def test_closing_connections_keeps_the_data_and_the_next_use_connects_again(
        self, backend: StorageBackend
    ) -> None:
        backend.save(self.payload(1), "file")
        backend.cleanup_connections()
        backend.cleanup_connections()
        assert self.holds(backend, file=1)
        backend.save(self.payload(2), "more")
        assert self.holds(backend, file=1, more=2)

    def test_closing_connections_while_others_work_loses_nothing(self, backend: StorageBackend) -> None:
        def work(number: int) -> None:
            for turn in range(_ROUNDS):
                backend.save(self.payload(turn), f"{number}/{turn}")
                assert same(backend.load(f"{number}/{turn}"), self.payload(turn))

        assert together(work, backend.cleanup_connections) == []

    def test_cleaning_up_while_others_work_ends_in_answers_or_backend_errors(self, backend: StorageBackend) -> None:
        def work(number: int) -> None:
            for turn in range(_ROUNDS):
                backend.save(self.payload(turn), f"{number}/{turn}", if_exists="skip")
                backend.exists(f"{number}/{turn}")
                backend.load(f"{number}/{turn}")

        errors = together(work, backend.cleanup)
        assert [error for error in errors if not isinstance(error, BackendError)] == []
