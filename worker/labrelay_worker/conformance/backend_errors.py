"""Odd names, addresses that lead nowhere, and the same exception for the same mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from labrelay.errors import LabrelayError
from labrelay_worker.backends.base import (
    BackendError,
    IsADirectory,
    NotADirectory,
    NotFound,
    OutsideRoot,
    StorageBackend,
    Unsupported,
)
from labrelay_worker.conformance.backend_cases import StorageCases, needs, same

ODD_NAMES = [
    "Probe Ω 試料 é.bin",
    "e\u0301 and \u00e9.bin",
    "x" * 196 + ".bin",
    'it\'s "quoted" & [bracketed]*.bin',
    "back\\slash.bin",
    "50% of #1?.bin",
    "  blanks around .bin ",
    "new\nline.bin",
    "-rf.bin",
    "~",
    "...",
    "C:",
    ".hidden",
    "no suffix",
]


class AddressesAndErrors(StorageCases):
    """Names and mistakes."""

    @pytest.mark.parametrize("name", ODD_NAMES)
    def test_odd_names_are_names_like_others(self, backend: StorageBackend, name: str) -> None:
        if name in self.refused_names:
            with pytest.raises(Unsupported, match="name"):
                backend.save(self.payload(1), f"folder/{name}")
            assert not backend.exists("folder")
            return
        backend.save(self.payload(1), f"folder/{name}")
        assert same(backend.load(f"folder/{name}"), self.payload(1))
        assert backend.list_files("folder") == [Path("folder") / name]
        assert backend.list_dir("folder") == [name]
        backend.delete(f"folder/{name}")
        assert not backend.exists(f"folder/{name}")

    @pytest.mark.parametrize("address", ["a//b", "./a/./b", "a/c/../b", Path("a") / "b"], ids=str)
    def test_one_place_has_one_address_however_it_is_written(self, backend: StorageBackend, address: Any) -> None:
        backend.save(self.payload(1), address)
        assert self.holds(backend, **{"a/b": 1})
        assert backend.list_files(".", recursive=True) == [Path("a/b")]

    @pytest.mark.parametrize("address", [None, 7, b"bytes", "with\0nul", ".being-written.partial"], ids=repr)
    def test_what_cannot_be_an_address_is_refused_when_read(self, backend: StorageBackend, address: Any) -> None:
        with pytest.raises(TypeError):
            backend.load(address)

    @pytest.mark.parametrize("address", ["../x", "a/../../x", "/../x/../../y"])
    def test_no_address_leads_out_of_the_root(self, backend: StorageBackend, address: str) -> None:
        with pytest.raises(OutsideRoot, match="leads out of the root"):
            backend.save(self.payload(1), address)
        for call in (backend.load, backend.exists, backend.list_files, backend.delete_all, backend.ensure_directory):
            with pytest.raises(OutsideRoot, match="leads out of the root"):
                call(address)

    def test_what_is_missing_is_not_found(self, backend: StorageBackend) -> None:
        for call in (
            backend.load, backend.delete, backend.delete_all, backend.list_files, backend.list_dir, backend.size,
            backend.sha256,
        ):  # fmt: skip
            with pytest.raises(NotFound, match="missing"):
                call("missing")
        with pytest.raises(NotFound, match="missing"):
            backend.load_batch(["missing"])

    @needs("moves")
    def test_what_is_missing_cannot_be_moved(self, backend: StorageBackend) -> None:
        with pytest.raises(NotFound, match="missing"):
            backend.move("missing", "target")
        assert not backend.exists("target")

    @needs("copies")
    def test_what_is_missing_cannot_be_copied(self, backend: StorageBackend) -> None:
        with pytest.raises(NotFound, match="missing"):
            backend.copy("missing", "target")
        assert not backend.exists("target")

    @needs("symlinks")
    def test_what_is_missing_cannot_be_linked_to(self, backend: StorageBackend) -> None:
        with pytest.raises(NotFound, match="missing"):
            backend.create_symlink("missing", "target")
        assert not backend.is_symlink("target")

    def test_a_directory_is_no_file(self, backend: StorageBackend) -> None:
        backend.save(self.payload(1), "dir/file")
        for call in (backend.load, backend.size, backend.sha256):
            with pytest.raises(IsADirectory):
                call("dir")

    def test_a_file_is_no_directory(self, backend: StorageBackend) -> None:
        backend.save(self.payload(1), "dir/file")
        for call in (backend.list_files, backend.list_dir, backend.ensure_directory):
            with pytest.raises(NotADirectory):
                call("dir/file")
        with pytest.raises(NotADirectory):
            backend.load("dir/file/below")
        with pytest.raises(NotADirectory):
            backend.save(self.payload(2), "dir/file/below")
        assert self.holds(backend, **{"dir/file": 1})

    def test_questions_are_answered_not_raised(self, backend: StorageBackend) -> None:
        backend.save(self.payload(1), "dir/file")
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

    def test_stat_says_what_is_there(self, backend: StorageBackend) -> None:
        backend.save(self.payload(1), "dir/file")
        found = backend.stat("dir/file")
        assert (found["path"], found["type"], found["exists"]) == ("dir/file", "file", True)
        assert found["size"] > 0
        assert backend.stat("dir") == {"path": "dir", "type": "directory", "exists": True}
        assert backend.stat("missing") == {"path": "missing", "type": "missing", "exists": False}

    def test_errors_are_backend_errors_the_builtin_ones_and_tell_the_address(self, backend: StorageBackend) -> None:
        with pytest.raises(BackendError) as caught:
            backend.load("missing")
        assert isinstance(caught.value, FileNotFoundError)
        assert str(caught.value).startswith("missing: ")
        backend.save(self.payload(1), "there")
        with pytest.raises(FileExistsError) as again:
            backend.save(self.payload(2), "there")
        assert isinstance(again.value, LabrelayError)
        assert not getattr(again.value, "retryable", True)

    def test_the_root_is_never_deleted_or_moved(self, backend: StorageBackend) -> None:
        backend.save(self.payload(1), "file")
        for call in (backend.delete, backend.delete_all, lambda path: backend.move(path, "elsewhere")):
            with pytest.raises(Unsupported, match=r"root|cannot"):
                call(".")
        assert self.holds(backend, file=1)
