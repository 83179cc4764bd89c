"""What every storage backend promises; a new backend joins by one line in conftest."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labrelay.errors import LabrelayError
from labrelay_worker.backends.base import (
    AlreadyExists,
    BackendError,
    Corrupt,
    IsADirectory,
    NotADirectory,
    NotFound,
    OutsideRoot,
    StorageBackend,
    Unsupported,
)

ODD_NAMES = [
    "Probe Ω 試料 é.bin",
    "x" * 196 + ".bin",
    'it\'s "quoted" & [bracketed]*.bin',
    "  blanks around .bin ",
    "new\nline.bin",
    "-rf.bin",
    ".hidden",
    "no suffix",
]


class _Uncopyable:
    def __deepcopy__(self, memo: object) -> object:
        raise RuntimeError("cannot be copied")


# --- reading and writing ---------------------------------------------------------------------------------


def test_bytes_come_back_as_they_were_saved(backend: StorageBackend) -> None:
    # When a payload is saved below a folder that does not exist yet
    backend.save(b"\x00\xff\r\n", "a/b/c.bin")
    # Then it is there, byte for byte
    assert backend.load("a/b/c.bin") == b"\x00\xff\r\n"
    assert backend.size("a/b/c.bin") == 4
    assert backend.sha256("a/b/c.bin") == hashlib.sha256(b"\x00\xff\r\n").hexdigest()


@pytest.mark.parametrize("payload", [{"ü": [1, None, 2.5]}, [1, 2], "text\r\nas it is"], ids=repr)
def test_objects_come_back_equal(backend: StorageBackend, payload: Any) -> None:
    name = "x.txt" if isinstance(payload, str) else "x.json"
    backend.save(payload, name)
    assert backend.load(name) == payload


def test_arrays_come_back_equal_and_isolated(backend: StorageBackend) -> None:
    # Given a saved array
    plane = np.arange(12, dtype="uint16").reshape(3, 4)
    backend.save(plane, "plane.npy")
    # When the caller changes its own, and then what it loaded
    plane[:] = 0
    backend.load("plane.npy")[:] = 7
    # Then what is stored is still what was saved
    assert backend.load("plane.npy").tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_a_batch_is_loaded_in_the_order_asked_for(backend: StorageBackend) -> None:
    backend.save_batch([b"1", b"2", b"3"], ["1", "2", "3"])
    assert backend.load_batch(["3", "1", "2"]) == [b"3", b"1", b"2"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_names_like_others(backend: StorageBackend, name: str) -> None:
    backend.save(b"x", f"folder/{name}")
    assert backend.load(f"folder/{name}") == b"x"
    assert backend.list_files("folder") == [Path("folder") / name]
    backend.move(f"folder/{name}", f"moved/{name}")
    assert backend.list_dir("moved") == [name]
    backend.delete(f"moved/{name}")
    assert not backend.exists(f"moved/{name}")


@pytest.mark.parametrize("address", [None, 7, b"bytes", "with\0nul", ".being-written.partial"], ids=repr)
def test_what_cannot_be_an_address_is_refused(backend: StorageBackend, address: Any) -> None:
    with pytest.raises(Unsupported):
        backend.save(b"x", address)
    with pytest.raises(TypeError):
        backend.load(address)


@pytest.mark.parametrize("address", ["../x", "a/../../x", "/../x/../../y"])
def test_no_address_leads_out_of_the_root(backend: StorageBackend, address: str) -> None:
    for call in (lambda: backend.save(b"x", address), lambda: backend.load(address), lambda: backend.exists(address)):
        with pytest.raises(OutsideRoot, match="leads out of the root"):
            call()


# --- the same exceptions ------------------------------------------------------------------------------------


def test_what_is_missing_is_not_found(backend: StorageBackend) -> None:
    for call in (
        backend.load, backend.delete, backend.delete_all, backend.list_files, backend.list_dir,
        backend.size, backend.sha256,
    ):  # fmt: skip
        with pytest.raises(NotFound, match="missing"):
            call("missing")
    for two in (backend.move, backend.copy, backend.create_symlink):
        with pytest.raises(NotFound):
            two("missing", "target")
    # Then none of these left anything behind
    assert not backend.exists("target")


def test_a_directory_is_no_file_and_a_file_no_directory(backend: StorageBackend) -> None:
    backend.save(b"x", "dir/file")
    for call in (backend.load, backend.size, backend.sha256):
        with pytest.raises(IsADirectory):
            call("dir")
    for call in (backend.list_files, backend.list_dir, backend.ensure_directory):
        with pytest.raises(NotADirectory):
            call("dir/file")
    with pytest.raises(NotADirectory):
        backend.load("dir/file/below")
    with pytest.raises(NotADirectory):
        backend.save(b"y", "dir/file/below")


def test_questions_are_answered_not_raised(backend: StorageBackend) -> None:
    backend.save(b"x", "dir/file")
    answers = {
        path: (backend.exists(path), backend.is_file(path), backend.is_dir(path), backend.is_symlink(path))
        for path in ("dir", "dir/file", "missing", "dir/file/below", "y" * 300)
    }
    assert answers == {
        "dir": (True, False, True, False),
        "dir/file": (True, True, False, False),
        "missing": (False,) * 4,
        "dir/file/below": (False,) * 4,
        "y" * 300: (False,) * 4,
    }


def test_backend_errors_are_the_builtin_ones_too(backend: StorageBackend) -> None:
    with pytest.raises(FileNotFoundError):
        backend.load("missing")
    backend.save(b"x", "there")
    with pytest.raises(FileExistsError) as caught:
        backend.save(b"y", "there")
    assert isinstance(caught.value, LabrelayError)
    assert not caught.value.retryable


# --- the overwrite policy -------------------------------------------------------------------------------------


def _write(backend: StorageBackend, how: str, source: Path, policy: Any) -> None:
    if how == "save":
        backend.save(b"new", "target", if_exists=policy)
    elif how == "save_batch":
        backend.save_batch([b"new"], ["target"], if_exists=policy)
    elif how == "save_file":
        backend.save_file(source, "target", if_exists=policy)
    else:
        backend.save(b"new", "source")
        getattr(backend, how)("source", "target", if_exists=policy)


@pytest.mark.parametrize("how", ["save", "save_batch", "save_file", "move", "copy"])
@pytest.mark.parametrize("policy", ["error", "replace", "skip"])
def test_the_overwrite_policy_means_the_same_everywhere(
    backend: StorageBackend, tmp_path: Path, how: str, policy: str
) -> None:
    source = tmp_path / "local"
    source.write_bytes(b"new")
    # Given something at the target
    backend.save(b"old", "target")
    # When it is written to
    if policy == "error":
        with pytest.raises(AlreadyExists, match="target"):
            _write(backend, how, source, policy)
    else:
        _write(backend, how, source, policy)
    # Then only "replace" changes it, and a move that did not happen leaves its source
    assert backend.load("target") == (b"new" if policy == "replace" else b"old")
    if how in ("move", "copy"):
        assert backend.exists("source") == (how == "copy" or policy != "replace")


@pytest.mark.parametrize("how", ["save", "save_batch", "save_file", "move", "copy"])
@pytest.mark.parametrize("policy", ["replace", "skip"])
def test_no_policy_puts_a_file_in_the_place_of_a_directory(
    backend: StorageBackend, tmp_path: Path, how: str, policy: str
) -> None:
    (tmp_path / "local").write_bytes(b"new")
    backend.save(b"old", "target/inside")
    with pytest.raises(IsADirectory):
        _write(backend, how, tmp_path / "local", policy)
    assert backend.load("target/inside") == b"old"


def test_an_unknown_policy_is_refused_even_when_nothing_is_there(backend: StorageBackend) -> None:
    with pytest.raises(Unsupported, match="error, replace, skip"):
        backend.save(b"x", "new", if_exists="overwrite")  # type: ignore[arg-type]
    assert not backend.exists("new")


def test_of_concurrent_writers_exactly_one_wins(backend: StorageBackend) -> None:
    # Given eight writers that start together, each with a content of its own
    barrier, outcomes = threading.Barrier(8), []

    def write(number: int) -> None:
        barrier.wait()
        try:
            backend.save(b"%d" % number * 1000, "deep/er/contested.bin")
            outcomes.append(number)
        except AlreadyExists:
            pass

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Then one won, and what is stored is its content, whole
    assert len(outcomes) == 1
    assert backend.load("deep/er/contested.bin") == b"%d" % outcomes[0] * 1000
    assert backend.list_dir("deep/er") == ["contested.bin"]


# --- batches: all or nothing --------------------------------------------------------------------------------


def test_a_batch_that_fails_half_way_leaves_nothing_visible(backend: StorageBackend) -> None:
    # Given a file in the way of the last one of a batch
    backend.save(b"old", "in the way")
    # When the batch is saved
    with pytest.raises(AlreadyExists):
        backend.save_batch([b"1", b"2", b"3"], ["new/1", "new/2", "in the way"])
    # Then neither its files nor their folder are there
    assert not backend.exists("new")
    assert backend.load("in the way") == b"old"


def test_a_payload_that_cannot_be_stored_stops_its_batch_before_anything_is_visible(backend: StorageBackend) -> None:
    with pytest.raises(Unsupported, match="_Uncopyable"):
        backend.save_batch([b"1", _Uncopyable()], ["new/1", "new/2.json"])
    assert not backend.exists("new")


def test_a_batch_skips_what_is_there_and_saves_the_rest(backend: StorageBackend) -> None:
    backend.save(b"old", "a")
    backend.save_batch([b"new", b"new"], ["a", "b"], if_exists="skip")
    assert backend.load_batch(["a", "b"]) == [b"old", b"new"]


def test_a_batch_of_different_lengths_or_with_one_address_twice_is_refused(backend: StorageBackend) -> None:
    with pytest.raises(ValueError, match="2 payloads and 1 addresses"):
        backend.save_batch([b"1", b"2"], ["a"])
    with pytest.raises(Unsupported, match="twice"):
        backend.save_batch([b"1", b"2"], ["a", "b/../a"], if_exists="replace")
    backend.save_batch([], [])


# --- local files ---------------------------------------------------------------------------------------------


def test_a_local_file_is_stored_byte_for_byte_whatever_its_suffix(backend: StorageBackend, tmp_path: Path) -> None:
    # Given a file of several chunks whose suffix promises what it does not hold
    content = bytes(range(256)) * 5000
    source = tmp_path / "notes.bin"
    source.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    # When it is stored with its expected sha256
    size, found = backend.save_file(source, "archive/notes.bin", sha256=digest.upper())
    # Then it is all there
    assert (size, found) == (len(content), digest)
    assert (backend.size("archive/notes.bin"), backend.sha256("archive/notes.bin")) == (size, digest)


def test_a_file_with_another_sha256_is_refused_and_leaves_nothing(backend: StorageBackend, tmp_path: Path) -> None:
    source = tmp_path / "changed.bin"
    source.write_bytes(b"changed since it was submitted")
    with pytest.raises(Corrupt, match=f"expected {'0' * 64}"):
        backend.save_file(source, "new/changed.bin", sha256="0" * 64)
    assert not backend.exists("new")


def test_skipping_a_file_tells_the_size_and_sha256_of_what_is_there(backend: StorageBackend, tmp_path: Path) -> None:
    (tmp_path / "local").write_bytes(b"new content")
    backend.save(b"old", "target")
    answer = backend.save_file(tmp_path / "local", "target", if_exists="skip")
    assert answer == (3, hashlib.sha256(b"old").hexdigest())


def test_a_missing_local_file_is_named(backend: StorageBackend, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"nowhere\.tif"):
        backend.save_file(tmp_path / "nowhere.tif", "new/x.tif")
    assert not backend.exists("new")


# --- listings --------------------------------------------------------------------------------------------------


def test_listings_are_sorted_and_filtered(backend: StorageBackend) -> None:
    for name in ("b.TIF", "a.tif", "cells.roi.zip", "all.zip", "sub/deep/c.Tiff", "sub/d.tif"):
        backend.save(b"x", f"in/{name}")

    def names(**options: Any) -> list[str]:
        return [str(path) for path in backend.list_files("in", **options)]

    assert names() == ["in/a.tif", "in/all.zip", "in/b.TIF", "in/cells.roi.zip"]
    assert names(extensions={".tif"}) == ["in/a.tif", "in/b.TIF"]
    assert names(extensions=["tif"], recursive=True) == ["in/a.tif", "in/b.TIF", "in/sub/d.tif"]
    assert names(extensions={".ROI.zip"}) == ["in/cells.roi.zip"]
    assert names(extensions=".zip") == ["in/all.zip", "in/cells.roi.zip"]
    assert names(pattern="?.*", recursive=True) == ["in/a.tif", "in/b.TIF", "in/sub/d.tif", "in/sub/deep/c.Tiff"]
    assert names(pattern="[") == []
    assert backend.list_dir("in") == ["a.tif", "all.zip", "b.TIF", "cells.roi.zip", "sub"]


def test_a_listed_address_can_be_loaded_again(backend: StorageBackend) -> None:
    backend.save(b"x", "in/sub/file")
    for listed in ("in", "in/../in", ".", "in/sub/"):
        assert [backend.load(path) for path in backend.list_files(listed, recursive=True)] == [b"x"]


# --- directories, moves, copies, deletion ----------------------------------------------------------------------


def test_directories_are_made_once_and_deleted_only_when_empty(backend: StorageBackend) -> None:
    assert backend.ensure_directory("a/b") == Path("a/b")
    backend.ensure_directory("a/b")
    assert backend.list_dir("a") == ["b"]
    with pytest.raises(IsADirectory, match="not empty"):
        backend.delete("a")
    backend.delete("a/b")
    backend.save(b"x", "a/c/d")
    backend.delete_all("a")
    assert not backend.exists("a")


def test_the_root_is_never_deleted_or_moved(backend: StorageBackend) -> None:
    backend.save(b"x", "file")
    for call in (backend.delete, backend.delete_all, lambda path: backend.move(path, "elsewhere")):
        with pytest.raises(Unsupported, match="root"):
            call(".")
    assert backend.load("file") == b"x"


@pytest.mark.parametrize("how", ["move", "copy"])
def test_a_directory_goes_with_all_it_holds(backend: StorageBackend, how: str) -> None:
    backend.save(b"x", "from/sub/x")
    backend.ensure_directory("from/empty")
    getattr(backend, how)("from", "to/here")
    assert backend.load("to/here/sub/x") == b"x"
    assert backend.is_dir("to/here/empty")
    assert backend.exists("from/sub/x") == (how == "copy")


@pytest.mark.parametrize("how", ["move", "copy"])
def test_a_directory_never_takes_the_place_of_another_nor_of_a_file(backend: StorageBackend, how: str) -> None:
    backend.save(b"x", "from/x")
    backend.save(b"y", "dir/y")
    backend.save(b"z", "file")
    for target, policy, expected in [
        ("dir", "error", AlreadyExists), ("dir", "replace", Unsupported), ("file", "replace", NotADirectory),
        ("from/inside", "error", Unsupported), ("from", "error", AlreadyExists),
    ]:  # fmt: skip
        with pytest.raises(expected):
            getattr(backend, how)("from", target, if_exists=policy)
    getattr(backend, how)("from", "dir", if_exists="skip")
    assert backend.load_batch(["from/x", "dir/y", "file"]) == [b"x", b"y", b"z"]
    assert backend.list_files("dir", recursive=True) == [Path("dir/y")]


def test_putting_a_file_in_its_own_place_loses_nothing(backend: StorageBackend) -> None:
    backend.save(b"x", "file")
    backend.move("file", "file", if_exists="replace")
    backend.copy("file", "file", if_exists="replace")
    assert backend.load("file") == b"x"


def test_a_copy_shares_nothing_with_its_source(backend: StorageBackend) -> None:
    backend.save(b"x", "dir/file")
    backend.copy("dir", "twin")
    backend.save(b"y", "twin/file", if_exists="replace")
    backend.save(b"z", "twin/more")
    assert backend.load("dir/file") == b"x"
    assert backend.list_dir("dir") == ["file"]


# --- symlinks ----------------------------------------------------------------------------------------------------


def test_symlinks_lead_to_files_and_directories(backend: StorageBackend) -> None:
    backend.save(b"x", "data/file.bin")
    backend.create_symlink("data/file.bin", "links/file")
    backend.create_symlink("data", "links/dir")
    assert backend.load("links/file") == b"x"
    assert backend.load("links/dir/file.bin") == b"x"
    assert backend.is_symlink("links/file")
    assert backend.is_file("links/file")
    assert backend.is_dir("links/dir")
    assert backend.list_files("links", recursive=True) == [Path("links/file")]
    assert backend.list_files("links/dir") == [Path("links/dir/file.bin")]


def test_a_symlink_is_deleted_replaced_and_moved_itself(backend: StorageBackend) -> None:
    backend.save(b"x", "data/file")
    for name in ("deleted", "replaced", "moved"):
        backend.create_symlink("data/file", name)
    backend.create_symlink("data", "all deleted")
    backend.delete("deleted")
    backend.delete_all("all deleted")
    backend.save(b"y", "replaced", if_exists="replace")
    backend.move("moved", "else/where")
    assert backend.load("data/file") == b"x"
    assert backend.is_symlink("else/where")
    assert not backend.is_symlink("replaced")
    assert sorted(backend.list_dir(".")) == ["data", "else", "replaced"]


def test_a_symlink_takes_the_place_of_another_only_when_told_and_never_of_a_directory(
    backend: StorageBackend,
) -> None:
    backend.save(b"x", "x")
    backend.save(b"y", "dir/y")
    backend.create_symlink("dir/y", "link")
    with pytest.raises(AlreadyExists):
        backend.create_symlink("x", "link")
    backend.create_symlink("x", "link", overwrite=True)
    assert backend.load("link") == b"x"
    with pytest.raises(IsADirectory):
        backend.create_symlink("x", "dir", overwrite=True)


def test_a_broken_symlink_is_nothing_that_can_still_be_deleted(backend: StorageBackend) -> None:
    backend.save(b"x", "data")
    backend.create_symlink("data", "link")
    backend.delete("data")
    assert not backend.exists("link")
    assert backend.is_symlink("link")
    assert backend.list_files(".") == []
    with pytest.raises(NotFound):
        backend.load("link")
    backend.delete("link")
    assert not backend.is_symlink("link")


def test_symlinks_in_a_circle_are_refused_not_followed(backend: StorageBackend) -> None:
    backend.save(b"x", "a")
    backend.create_symlink("a", "b")
    backend.create_symlink("b", "a", overwrite=True)
    with pytest.raises(Unsupported, match="circle"):
        backend.load("a")
    assert not backend.exists("a")
    assert backend.list_files(".") == []


def test_stat_says_what_is_there(backend: StorageBackend) -> None:
    backend.save(b"1234", "dir/file")
    backend.create_symlink("dir/file", "link")
    assert backend.stat("dir/file") == {"path": "dir/file", "type": "file", "exists": True, "size": 4}
    assert backend.stat("dir") == {"path": "dir", "type": "directory", "exists": True}
    assert backend.stat("missing") == {"path": "missing", "type": "missing", "exists": False}
    assert backend.stat("link") == {"path": "link", "type": "symlink", "exists": True, "target": "dir/file"}
    backend.delete("dir/file")
    assert backend.stat("link")["exists"] is False


# --- life ---------------------------------------------------------------------------------------------------------


def test_both_cleanups_may_be_called_any_number_of_times(backend: StorageBackend) -> None:
    backend.save(b"x", "file")
    backend.cleanup_connections()
    backend.cleanup_connections()
    assert backend.load("file") == b"x"
    backend.cleanup()
    backend.cleanup()


def test_every_refusal_is_a_backend_error_with_a_text(backend: StorageBackend) -> None:
    with pytest.raises(BackendError) as caught:
        backend.load("missing")
    assert str(caught.value).startswith("missing: ")
