"""Listings, directories, moves, copies and deletion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from labrelay_worker.backends.base import AlreadyExists, IsADirectory, NotADirectory, StorageBackend, Unsupported
from labrelay_worker.conformance.backend_cases import StorageCases, needs, same


class Folders(StorageCases):
    """What is where."""

    def test_listings_are_sorted_and_filtered(self, backend: StorageBackend) -> None:
        for name in ("b.TIF", "a.tif", "cells.roi.zip", "all.zip", "sub/deep/c.Tiff", "sub/d.tif", "._a.tif"):
            backend.save(self.payload(1), f"in/{name}")

        def names(**options: Any) -> list[str]:
            return [str(path) for path in backend.list_files("in", **options)]

        assert names() == ["in/._a.tif", "in/a.tif", "in/all.zip", "in/b.TIF", "in/cells.roi.zip"]
        assert names(extensions={".tif"}, pattern="[ab]*") == ["in/a.tif", "in/b.TIF"]
        assert names(extensions=["tif"], pattern="[abd]*", recursive=True) == ["in/a.tif", "in/b.TIF", "in/sub/d.tif"]
        assert names(extensions={".ROI.zip"}) == ["in/cells.roi.zip"]
        assert names(extensions=".zip") == ["in/all.zip", "in/cells.roi.zip"]
        assert names(pattern="?.*", recursive=True) == ["in/a.tif", "in/b.TIF", "in/sub/d.tif", "in/sub/deep/c.Tiff"]
        assert names(pattern="[") == []
        assert backend.list_dir("in") == ["._a.tif", "a.tif", "all.zip", "b.TIF", "cells.roi.zip", "sub"]

    def test_a_listed_address_can_be_loaded_again(self, backend: StorageBackend) -> None:
        backend.save(self.payload(1), "in/sub/file")
        for listed in ("in", "in/../in", ".", "in/sub/"):
            found = backend.list_files(listed, recursive=True)
            assert [same(backend.load(path), self.payload(1)) for path in found] == [True]

    @needs("directories")
    def test_directories_are_made_once(self, backend: StorageBackend) -> None:
        assert backend.ensure_directory("a/b") == Path("a/b")
        backend.ensure_directory("a/b")
        assert backend.list_dir("a") == ["b"]
        assert backend.list_dir("a/b") == []
        assert backend.list_files("a/b") == []

    @needs("directories")
    def test_only_an_empty_directory_is_deleted_by_delete(self, backend: StorageBackend) -> None:
        backend.ensure_directory("a/b")
        with pytest.raises(IsADirectory, match="not empty"):
            backend.delete("a")
        backend.delete("a/b")
        backend.delete("a")
        assert not backend.exists("a")

    def test_delete_all_deletes_a_directory_with_all_it_holds_and_nothing_else(self, backend: StorageBackend) -> None:
        backend.save(self.payload(1), "a/b/c")
        backend.save(self.payload(2), "ab")
        with pytest.raises(IsADirectory, match="not empty"):
            backend.delete("a")
        backend.delete_all("a")
        assert not backend.exists("a/b/c")
        assert not backend.exists("a")
        backend.delete_all("ab")
        assert not backend.exists("ab")

    @needs("moves")
    def test_a_file_is_moved_below_folders_that_are_made(self, backend: StorageBackend) -> None:
        backend.save(self.payload(1), "file")
        backend.move("file", "new/deep/file")
        assert self.holds(backend, **{"new/deep/file": 1})
        assert not backend.exists("file")

    @needs("moves")
    def test_a_directory_is_moved_with_all_it_holds(self, backend: StorageBackend) -> None:
        backend.save(self.payload(1), "from/sub/x")
        backend.move("from", "to/here")
        assert self.holds(backend, **{"to/here/sub/x": 1})
        assert not backend.exists("from")

    @needs("copies")
    def test_a_copy_shares_nothing_with_its_source(self, backend: StorageBackend) -> None:
        backend.save(self.payload(1), "dir/file")
        backend.copy("dir", "to/twin")
        backend.copy("dir/file", "to/file")
        backend.delete("to/twin/file")
        backend.save(self.payload(2), "to/twin/more")
        assert self.holds(backend, **{"dir/file": 1, "to/file": 1})
        assert backend.list_dir("dir") == ["file"]

    @needs("copies", "directories", "moves")
    def test_empty_directories_go_along(self, backend: StorageBackend) -> None:
        backend.ensure_directory("from/empty")
        backend.copy("from", "copied")
        backend.move("from", "moved")
        assert backend.is_dir("copied/empty")
        assert backend.is_dir("moved/empty")

    @needs()
    @pytest.mark.parametrize("how", ["move", "copy"])
    def test_a_directory_never_takes_the_place_of_another_nor_of_a_file(
        self, backend: StorageBackend, how: str
    ) -> None:
        backend.save(self.payload(1), "from/x")
        backend.save(self.payload(2), "dir/y")
        backend.save(self.payload(3), "file")
        put = getattr(backend, how)
        put("from", "dir", if_exists="skip")
        for target, policy, expected in [
            ("dir", "error", AlreadyExists), ("dir", "replace", Unsupported), ("file", "replace", NotADirectory),
            ("from/inside", "error", Unsupported), ("from", "error", AlreadyExists),
        ]:  # fmt: skip
            with pytest.raises((expected, Unsupported) if "replacing" in backend.cannot else expected):
                put("from", target, if_exists=policy)
        assert self.holds(backend, **{"from/x": 1, "dir/y": 2, "file": 3})
        assert backend.list_files("dir", recursive=True) == [Path("dir/y")]

    @needs("replacing")
    @pytest.mark.parametrize("how", ["move", "copy"])
    @pytest.mark.parametrize("policy", ["replace", "skip"])
    def test_a_file_never_takes_the_place_of_a_directory(
        self, backend: StorageBackend, how: str, policy: Any
    ) -> None:
        backend.save(self.payload(1), "file")
        backend.save(self.payload(2), "file", if_exists="skip")
        backend.save(self.payload(2), "dir/y")
        backend.save(self.payload(1), "spare")
        getattr(backend, how)("spare", "other")
        backend.save(self.payload(3), "other", if_exists="replace")
        with pytest.raises(IsADirectory):
            getattr(backend, how)("file", "dir", if_exists=policy)
        assert self.holds(backend, **{"file": 1, "dir/y": 2, "other": 3})

    @needs("moves", "copies", "replacing")
    def test_putting_a_file_in_its_own_place_loses_nothing(self, backend: StorageBackend) -> None:
        backend.save(self.payload(1), "file")
        backend.move("file", "file", if_exists="replace")
        backend.copy("file", "file", if_exists="replace")
        assert self.holds(backend, file=1)
