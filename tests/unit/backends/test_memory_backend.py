"""What the memory backend adds to the contract: isolation and a bound."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from labrelay_worker.backends.base import AlreadyExists, Unavailable, Unsupported
from labrelay_worker.backends.memory import MemoryBackend


@pytest.mark.parametrize("payload", [{"a": [1]}, [[1]], {"array": np.zeros(2)}], ids=["dict", "list", "nested"])
def test_nothing_that_happens_outside_changes_what_is_stored(payload: Any) -> None:
    memory = MemoryBackend()
    memory.save(payload, "x")
    before = repr(payload)
    # When the caller's own object, and then a loaded one, are emptied
    payload.clear()
    memory.load("x").clear()
    # Then what is stored is as it was saved
    assert repr(memory.load("x")) == before


def test_buffers_become_bytes_and_none_is_a_payload_like_others() -> None:
    memory = MemoryBackend()
    memory.save_batch([bytearray(b"x"), memoryview(b"y"), None], ["a", "b", "c"])
    assert memory.load_batch(["a", "b", "c"]) == [b"x", b"y", None]
    assert memory.is_file("c")


def test_a_full_memory_says_so_and_stores_nothing() -> None:
    # Given room for 100 bytes, 60 of them taken
    memory = MemoryBackend(max_bytes=100)
    memory.save(b"x" * 60, "a")
    # When more is saved than fits, alone or as the last of a batch
    with pytest.raises(Unavailable, match=r"60 of 100 bytes .* max_bytes"):
        memory.save(np.zeros(41, "uint8"), "new/b")
    with pytest.raises(Unavailable):
        memory.save_batch([b"1" * 30, b"2" * 30], ["new/1", "a.b"])
    # Then nothing of it is there
    assert memory.list_dir(".") == ["a"]
    # And what is replaced or deleted makes room
    memory.save(b"y" * 100, "a", if_exists="replace")
    memory.delete("a")
    memory.save(b"z" * 100, "b")


def test_a_move_needs_no_room_and_a_copy_does() -> None:
    memory = MemoryBackend(max_bytes=100)
    memory.save(b"x" * 60, "dir/a")
    memory.move("dir", "moved")
    with pytest.raises(Unavailable):
        memory.copy("moved", "twin")
    assert memory.list_dir(".") == ["moved"]
    memory.delete_all("moved")
    memory.save(b"x" * 100, "b")


def test_a_move_that_fails_leaves_its_source() -> None:
    memory = MemoryBackend()
    memory.save(b"x", "source")
    memory.save(b"y", "file")
    with pytest.raises(NotADirectoryError):
        memory.move("source", "file/below")
    assert memory.load("source") == b"x"


def test_a_batch_that_fails_leaves_replaced_content_as_it_was() -> None:
    memory = MemoryBackend(max_bytes=10)
    memory.save_batch([b"old", b"x"], ["a", "file"])
    with pytest.raises(NotADirectoryError):
        memory.save_batch([b"new", b"y"], ["a", "file/below"], if_exists="replace")
    assert memory.load("a") == b"old"
    with pytest.raises(AlreadyExists):
        memory.save(b"z", "a")


def test_objects_are_measured_with_all_they_hold() -> None:
    memory = MemoryBackend(max_bytes=10_000)
    circular: list[Any] = [np.zeros(5000, "uint8")]
    circular.append(circular)
    memory.save(circular, "a")
    assert 5000 < memory.size("a") < 6000
    with pytest.raises(Unavailable):
        memory.save({"deep": [{"array": np.zeros(6000, "uint8")}]}, "b")


def test_arrays_of_objects_are_measured_with_their_objects() -> None:
    memory = MemoryBackend(max_bytes=10_000)
    with pytest.raises(Unavailable):
        memory.save(np.array([b"x" * 20_000, None], dtype=object), "a")


def test_a_full_memory_drops_nothing_to_make_room() -> None:
    # Given a full memory
    memory = MemoryBackend(max_bytes=100)
    for number in range(10):
        memory.save(bytes([number]) * 10, f"dir/{number}")
    # When more is asked of it, again and again
    for number in range(10):
        with pytest.raises(Unavailable, match="100 of 100 bytes"):
            memory.save(b"more", f"dir/more {number}")
    # Then all that was there still is
    assert [memory.load(f"dir/{number}") for number in range(10)] == [bytes([number]) * 10 for number in range(10)]


def test_files_can_be_cleared_and_the_directories_kept() -> None:
    memory = MemoryBackend(max_bytes=10)
    memory.save(b"x" * 10, "plate/step/file")
    memory.create_symlink("plate/step/file", "plate/link")
    memory.clear_files_only()
    assert memory.list_files(".", recursive=True) == []
    assert memory.list_dir("plate") == ["step"]
    memory.save(b"y" * 10, "plate/step/file")


def test_an_object_that_was_never_bytes_has_no_sha256() -> None:
    memory = MemoryBackend()
    memory.save({"a": 1}, "x.json")
    with pytest.raises(Unsupported, match="dict is not stored as bytes"):
        memory.sha256("x.json")


def test_cleanup_lets_go_of_everything() -> None:
    memory = MemoryBackend(max_bytes=10)
    memory.save(b"x" * 10, "a")
    memory.cleanup()
    memory.save(b"x" * 10, "b")
    assert memory.list_dir(".") == ["b"]
