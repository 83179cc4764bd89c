"""Symlinks: followed by reads, themselves deleted, replaced and moved."""

from __future__ import annotations

from pathlib import Path

import pytest

from labrelay_worker.backends.base import AlreadyExists, IsADirectory, NotFound, StorageBackend, Unsupported
from labrelay_worker.conformance.backend_cases import StorageCases, needs


class Links(StorageCases):
    """Names that lead to other names."""

    @needs("symlinks")
    def test_symlinks_lead_to_files_and_directories(self, backend: StorageBackend) -> None:
        backend.save(self.payload(1), "data/file.bin")
        backend.create_symlink("data/file.bin", "links/file")
        backend.create_symlink("data", "links/dir")
        assert self.holds(backend, **{"links/file": 1, "links/dir/file.bin": 1})
        assert backend.is_symlink("links/file")
        assert backend.is_file("links/file")
        assert backend.is_dir("links/dir")
        assert backend.list_files("links", recursive=True) == [Path("links/file")]
        assert backend.list_files("links/dir") == [Path("links/dir/file.bin")]

    @needs("symlinks")
    def test_a_symlink_is_deleted_itself(self, backend: StorageBackend) -> None:
        backend.save(self.payload(1), "data/file")
        for name in ("deleted", "deleted too"):
            backend.create_symlink("data/file", name)
        backend.create_symlink("data", "to a folder")
        backend.delete("deleted")
        backend.delete_all("deleted too")
        backend.delete_all("to a folder")
        assert self.holds(backend, **{"data/file": 1})
        assert backend.list_dir(".") == ["data"]

    @needs("symlinks", "replacing", "moves")
    def test_a_symlink_is_replaced_and_moved_itself(self, backend: StorageBackend) -> None:
        backend.save(self.payload(1), "data/file")
        for name in ("replaced", "moved"):
            backend.create_symlink("data/file", name)
        backend.save(self.payload(2), "replaced", if_exists="replace")
        backend.move("moved", "else/where")
        assert self.holds(backend, **{"data/file": 1, "replaced": 2, "else/where": 1})
        assert backend.is_symlink("else/where")
        assert not backend.is_symlink("replaced")
        assert sorted(backend.list_dir(".")) == ["data", "else", "replaced"]

    @needs("symlinks", "copies")
    def test_a_copy_of_a_symlink_is_a_copy_of_what_it_leads_to(self, backend: StorageBackend) -> None:
        backend.save(self.payload(1), "data/file")
        backend.create_symlink("data/file", "link")
        backend.copy("link", "copied")
        backend.delete("data/file")
        assert self.holds(backend, copied=1)
        assert not backend.is_symlink("copied")

    @needs("symlinks")
    def test_a_symlink_takes_the_place_of_another_only_when_told_and_never_of_a_directory(
        self, backend: StorageBackend
    ) -> None:
        backend.save(self.payload(1), "x")
        backend.save(self.payload(2), "dir/y")
        backend.create_symlink("dir/y", "link")
        with pytest.raises(AlreadyExists):
            backend.create_symlink("x", "link")
        backend.create_symlink("x", "link", overwrite=True)
        assert self.holds(backend, link=1)
        with pytest.raises(IsADirectory):
            backend.create_symlink("x", "dir", overwrite=True)
        assert self.holds(backend, **{"dir/y": 2})

    @needs("symlinks")
    def test_a_broken_symlink_is_nothing_that_can_still_be_deleted(self, backend: StorageBackend) -> None:
        backend.save(self.payload(1), "data")
        backend.create_symlink("data", "link")
        assert backend.stat("link") == {"path": "link", "type": "symlink", "exists": True, "target": "data"}
        backend.delete("data")
        assert not backend.exists("link")
        assert backend.is_symlink("link")
        assert backend.stat("link")["exists"] is False
        assert backend.list_files(".") == []
        with pytest.raises(NotFound):
            backend.load("link")
        backend.delete("link")
        assert not backend.is_symlink("link")

    @needs("symlinks")
    def test_symlinks_in_a_circle_are_refused_not_followed(self, backend: StorageBackend) -> None:
        backend.save(self.payload(1), "a")
        backend.create_symlink("a", "b")
        backend.create_symlink("b", "a", overwrite=True)
        with pytest.raises(Unsupported, match="circle"):
            backend.load("a")
        assert not backend.exists("a")
        assert backend.list_files(".") == []
