"""The overwrite policy and batches: the same everywhere, all or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from labrelay_worker.backends.base import AlreadyExists, IsADirectory, StorageBackend, Unsupported
from labrelay_worker.conformance.backend_cases import StorageCases, needs

_POLICIES = ("error", "replace", "skip")
_NEW, _OLD = 1, 2


class Writes(StorageCases):
    """Whether and how something takes a place."""

    @needs("replacing")
    @pytest.mark.parametrize("how", ["save", "save_batch"])
    def test_replace_puts_the_new_in_the_place_of_the_old(self, backend: StorageBackend, how: str) -> None:
        backend.save(self.payload(_OLD), "target")
        self._write(backend, how, "replace")
        assert self.holds(backend, target=_NEW)

    @pytest.mark.parametrize("how", ["save", "save_batch"])
    def test_error_and_skip_leave_the_old(self, backend: StorageBackend, how: str) -> None:
        backend.save(self.payload(_OLD), "target")
        with pytest.raises(AlreadyExists, match="target"):
            self._write(backend, how, "error")
        self._write(backend, how, "skip")
        assert self.holds(backend, target=_OLD)

    @pytest.mark.parametrize("how", ["save", "save_batch"])
    @pytest.mark.parametrize("policy", _POLICIES)
    def test_every_policy_writes_what_is_not_there(self, backend: StorageBackend, how: str, policy: str) -> None:
        self._write(backend, how, policy)
        assert self.holds(backend, target=_NEW)

    @needs("bytes", "replacing")
    @pytest.mark.parametrize("policy", _POLICIES)
    def test_local_files_follow_the_policy(self, backend: StorageBackend, tmp_path: Path, policy: Any) -> None:
        (tmp_path / "local").write_bytes(b"new")
        backend.save(b"old", "target")
        if policy == "error":
            backend.save(b"old", "target", if_exists="replace")
            with pytest.raises(AlreadyExists, match="target"):
                backend.save_file(tmp_path / "local", "target", if_exists=policy)
        else:
            backend.save_file(tmp_path / "local", "target", if_exists=policy)
        assert backend.load("target") == (b"new" if policy == "replace" else b"old")

    @needs("moves")
    def test_a_move_follows_the_policy(self, backend: StorageBackend) -> None:
        backend.save(self.payload(_NEW), "source")
        backend.save(self.payload(_OLD), "target")
        backend.move("source", "target", if_exists="skip")
        assert self.holds(backend, source=_NEW, target=_OLD)
        with pytest.raises(AlreadyExists, match="target"):
            backend.move("source", "target")
        assert self.holds(backend, source=_NEW, target=_OLD)

    @needs("moves", "replacing")
    def test_a_move_replaces_when_told(self, backend: StorageBackend) -> None:
        backend.save(self.payload(_NEW), "source")
        backend.save(self.payload(_OLD), "target")
        backend.move("source", "target", if_exists="replace")
        assert self.holds(backend, target=_NEW)
        assert not backend.exists("source")

    @needs("copies")
    def test_a_copy_follows_the_policy(self, backend: StorageBackend) -> None:
        backend.save(self.payload(_NEW), "source")
        backend.save(self.payload(_OLD), "target")
        backend.copy("source", "target", if_exists="skip")
        assert self.holds(backend, source=_NEW, target=_OLD)
        with pytest.raises(AlreadyExists, match="target"):
            backend.copy("source", "target")
        assert self.holds(backend, source=_NEW, target=_OLD)

    @needs("copies", "replacing")
    def test_a_copy_replaces_when_told(self, backend: StorageBackend) -> None:
        backend.save(self.payload(_NEW), "source")
        backend.save(self.payload(_OLD), "target")
        backend.copy("source", "target", if_exists="replace")
        assert self.holds(backend, source=_NEW, target=_NEW)

    @pytest.mark.parametrize("how", ["save", "save_batch"])
    def test_no_policy_puts_a_file_in_the_place_of_a_directory(self, backend: StorageBackend, how: str) -> None:
        backend.save(self.payload(_OLD), "target/inside")
        with pytest.raises(IsADirectory):
            self._write(backend, how, "skip")
        with pytest.raises((IsADirectory, Unsupported) if "replacing" in backend.cannot else IsADirectory):
            self._write(backend, how, "replace")
        assert self.holds(backend, **{"target/inside": _OLD})

    def _write(self, backend: StorageBackend, how: str, policy: Any) -> None:
        if how == "save":
            backend.save(self.payload(_NEW), "target", if_exists=policy)
        else:
            backend.save_batch([self.payload(_NEW)], ["target"], if_exists=policy)

    # --- batches: all or nothing ---------------------------------------------------------------------------

    @needs("batches")
    def test_a_batch_is_loaded_in_the_order_asked_for(self, backend: StorageBackend) -> None:
        backend.save_batch([self.payload(1), self.payload(2), self.payload(3)], ["1", "2", "3"])
        assert self.holds(backend, **{"1": 1, "2": 2, "3": 3})
        loaded = backend.load_batch(["3", "1", "2"])
        assert [repr(item) for item in loaded] == [repr(self.payload(number)) for number in (3, 1, 2)]

    @needs("batches")
    def test_a_batch_that_fails_half_way_leaves_nothing_visible(self, backend: StorageBackend) -> None:
        # Given a file in the way of the last one of a batch
        backend.save(self.payload(_OLD), "in the way")
        # When the batch is saved
        with pytest.raises(AlreadyExists):
            backend.save_batch([self.payload(_NEW)] * 3, ["new/1", "new/2", "in the way"])
        # Then neither its files nor their folder are there
        assert not backend.exists("new")
        assert self.holds(backend, **{"in the way": _OLD})

    @needs("batches", "replacing")
    def test_a_batch_that_fails_leaves_the_old_content_of_what_it_would_replace(
        self, backend: StorageBackend
    ) -> None:
        backend.save(self.payload(_OLD), "a")
        backend.save(self.payload(_OLD), "b/file")
        backend.save(self.payload(_OLD), "z", if_exists="replace")
        with pytest.raises(IsADirectory):
            backend.save_batch([self.payload(_NEW)] * 3, ["a", "b", "new"], if_exists="replace")
        assert self.holds(backend, **{"a": _OLD, "b/file": _OLD})
        assert not backend.exists("new")

    @needs("batches")
    def test_a_batch_skips_what_is_there_and_saves_the_rest(self, backend: StorageBackend) -> None:
        backend.save(self.payload(_OLD), "a")
        backend.save_batch([self.payload(_NEW)] * 2, ["a", "b"], if_exists="skip")
        assert self.holds(backend, a=_OLD, b=_NEW)

    def test_one_address_twice_in_a_batch_is_refused(self, backend: StorageBackend) -> None:
        with pytest.raises(Unsupported, match=r"twice|cannot"):
            backend.save_batch([self.payload(1), self.payload(2)], ["a", "b/../a"])
        assert not backend.exists("a")

    def test_an_empty_batch_is_nothing_to_do(self, backend: StorageBackend) -> None:
        backend.save_batch([], [])
