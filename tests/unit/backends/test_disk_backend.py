"""What the disk backend adds to the contract: atomic writes, the root, what a failing device does."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labrelay import errors
from labrelay_worker.backends import atomic, files
from labrelay_worker.backends.base import AlreadyExists, Corrupt, OutsideRoot, Unavailable, Unsupported
from labrelay_worker.backends.disk import DiskBackend


def _raise(number: int) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def _everything_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# --- a failing device ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "disk is full"), (errno.EDQUOT, "quota"), (errno.EROFS, "read-only"), (errno.EIO, "error")],
)
@pytest.mark.parametrize("step", ["sync", "hash_file", "make_folders"])
def test_a_failing_device_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str, step: str
) -> None:
    # Given a file, and a device that fails while another takes its place
    disk = DiskBackend(root=tmp_path)
    disk.save(b"old", "record.xml")
    monkeypatch.setattr(atomic, step, _raise(number))
    # When it is written to
    with pytest.raises(Unavailable, match=words) as caught:
        disk.save(b"new", "record.xml", if_exists="replace")
    # Then the error is one to try again, the old content is intact, and no temporary file is left
    assert caught.value.retryable
    assert isinstance(caught.value, errors.Unavailable)
    assert "record.xml" in str(caught.value)
    assert _everything_in(tmp_path) == ["record.xml"]
    assert disk.load("record.xml") == b"old"


@pytest.mark.parametrize("way", ["..", "link"])
@pytest.mark.parametrize("named", ["staged", "target", "backup"])
def test_a_journal_that_leads_out_of_its_folder_is_not_obeyed(tmp_path: Path, way: str, named: str) -> None:
    # Given a root with a folder that others may write to, and something of value outside
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root / "shared" / ".batches.partial", outside):
        folder.mkdir(parents=True)
    (outside / ".x.partial").write_bytes(b"precious")
    (root / "shared" / "link").symlink_to(outside)
    place = {"..": "../../outside", "link": "link"}[way]
    found = (outside / ".x.partial").stat()
    # When somebody has put a file there that reads like the journal of a batch that a kill cut short
    paths = {"staged": ".1.partial", "target": "1", "backup": ".2.partial"} | {named: f"{place}/.x.partial"}
    journal = root / "shared" / ".batches.partial" / "1.journal"
    journal.write_text(json.dumps({"changes": [[*paths.values(), found.st_dev, found.st_ino]], "folders": []}))
    # Then nothing outside is touched, and the journal is left for a person to look at
    with pytest.raises(Unavailable, match=r"1\.journal: no batch can have written this journal"):
        DiskBackend(root=root).list_files("shared")
    assert (outside / ".x.partial").read_bytes() == b"precious"
    assert journal.exists()
    # And when it is gone, all goes on
    journal.unlink()
    assert DiskBackend(root=root).list_files("shared") == []


def test_a_folder_of_journals_is_not_looked_for_behind_a_link(tmp_path: Path) -> None:
    # Given a root in which somebody has put a link with the name of the journals' folder
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root, outside):
        folder.mkdir()
    (outside / "record.xml").write_bytes(b"precious")
    (root / ".batches.partial").symlink_to(outside)
    # When the root is looked into, then what it leads to is as it was
    assert DiskBackend(root=root).list_files(".") == []
    assert _everything_in(outside) == ["record.xml"]


def test_without_hard_links_a_failure_after_the_rename_leaves_the_new_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a file on a drive without hard links, which fails when the new content has taken its place
    disk = DiskBackend(root=tmp_path)
    disk.save(b"old", "record.xml")
    monkeypatch.setattr(os, "link", _raise(errno.EOPNOTSUPP))
    monkeypatch.setattr(atomic, "sync_folder", _raise(errno.EIO))
    # When it is replaced
    with pytest.raises(Unavailable):
        disk.save(b"new", "record.xml", if_exists="replace")
    # Then one of the two is there: nothing of the old could be kept to go back to
    assert _everything_in(tmp_path) == ["record.xml"]
    assert disk.load("record.xml") == b"new"


def test_a_batch_takes_back_what_it_had_replaced(disk: DiskBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given two files, and a disk that is full when the second of three is published
    disk.save_batch([b"old 1", b"old 2"], ["1", "2"])
    replace, calls = Path.replace, []

    def fails_once(self: Path, target: Path) -> Path:
        calls.append(target.name)
        if calls == ["new", "1"]:
            raise OSError(errno.ENOSPC, "full")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fails_once)
    # When all three are saved
    with pytest.raises(Unavailable):
        disk.save_batch([b"x", b"new 1", b"new 2"], ["folder/new", "1", "2"], if_exists="replace")
    # Then all is as it was
    assert disk.load_batch(["1", "2"]) == [b"old 1", b"old 2"]
    assert disk.list_dir(".") == ["1", "2"]


def test_what_a_failing_device_does_not_let_a_batch_take_back_the_next_opener_does(
    disk: DiskBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a batch that fails half-way on a device on which nothing can be put right either
    disk.save_batch([b"old 1", b"old 2"], ["1", "2"])
    replace = Path.replace
    with monkeypatch.context() as broken:
        broken.setattr(Path, "replace", lambda self, to: _raise(errno.EIO)() if to.name == "2" else replace(self, to))
        broken.setattr(atomic, "take_back", _raise(errno.EIO))
        with pytest.raises(Unavailable):
            disk.save_batch([b"new 1", b"new 2"], ["1", "2"], if_exists="replace")
    assert (tmp_path / "root" / "1").read_bytes() == b"new 1"
    # When the device works again, then the next one who opens it finds all as it was
    assert DiskBackend(tmp_path / "root").load_batch(["1", "2"]) == [b"old 1", b"old 2"]
    assert _everything_in(tmp_path / "root") == ["1", "2"]


def test_a_batch_without_a_writable_folder_above_all_its_files_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given two folders in one that may not be written to
    mkdir = Path.mkdir
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(
        Path, "mkdir", lambda self, *args: _raise(errno.EACCES)() if self.parent == tmp_path else mkdir(self, *args)
    )
    with pytest.raises(Unsupported, match="one folder above them all"):
        DiskBackend(tmp_path).save_batch([b"1", b"2"], ["a/1", "b/2"])
    assert _everything_in(tmp_path) == ["a", "b"]


def test_a_batch_on_a_file_system_without_hard_links_is_taken_back_too(
    disk: DiskBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.save_batch([b"old 1", b"old 2"], ["1", "2"])
    monkeypatch.setattr(os, "link", _raise(errno.EPERM))
    replace, failed = Path.replace, []

    def fails_once(self: Path, to: Path) -> Path:
        if to.name == "2" and not failed:
            failed.append(to)
            _raise(errno.ENOSPC)()
        return replace(self, to)

    monkeypatch.setattr(Path, "replace", fails_once)
    with pytest.raises(Unavailable):
        disk.save_batch([b"new 1", b"new 2"], ["1", "2"], if_exists="replace")
    assert disk.load_batch(["1", "2"]) == [b"old 1", b"old 2"]
    assert _everything_in(tmp_path / "root") == ["1", "2"]


def test_a_batch_that_cannot_keep_all_the_old_content_replaces_none(
    disk: DiskBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.save_batch([b"old 1", b"old 2"], ["1", "2"])
    keep = atomic.Transaction._keep_old

    def fails_at_2(self: atomic.Transaction, target: Path, *, is_batch: bool) -> Path | None:
        if target.name == "2":
            raise OSError(errno.EIO, "broken")
        return keep(self, target, is_batch=is_batch)

    monkeypatch.setattr(atomic.Transaction, "_keep_old", fails_at_2)
    with pytest.raises(Unavailable):
        disk.save_batch([b"new 1", b"new 2"], ["1", "2"], if_exists="replace")
    assert disk.load_batch(["1", "2"]) == [b"old 1", b"old 2"]
    assert _everything_in(tmp_path / "root") == ["1", "2"]


def test_a_device_that_gives_back_something_else_is_found_out_before_anything_is_visible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = DiskBackend(root=tmp_path)
    monkeypatch.setattr(atomic, "hash_file", lambda *_, **__: hashlib.sha256(b"rot").hexdigest())
    with pytest.raises(Corrupt, match="device"):
        disk.save(b"good", "new/file")
    assert _everything_in(tmp_path) == []
    # And without verify nobody looks
    DiskBackend(root=tmp_path, verify=False).save(b"good", "new/file")
    assert disk.load("new/file") == b"good"


def test_a_source_that_breaks_off_half_way_leaves_nothing(
    tmp_path: Path, disk: DiskBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "big.raw"
    source.write_bytes(b"x" * 10)
    monkeypatch.setattr(files, "CHUNK", 4)
    open_file = Path.open

    def torn(self: Path, *args: Any, **options: Any) -> Any:
        file = open_file(self, *args, **options)
        if self == source:
            file.read(8)
            file.close()
            _raise(errno.ESTALE)()
        return file

    monkeypatch.setattr(Path, "open", torn)
    with pytest.raises(Unavailable, match=r"big\.raw"):
        disk.save_file(source, "new/big.raw")
    assert not disk.exists("new")


def test_a_file_system_without_hard_links_still_lets_one_writer_win(
    disk: DiskBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", _raise(errno.EPERM))
    disk.save(b"first", "file")
    with pytest.raises(AlreadyExists):
        disk.save(b"second", "file")
    disk.save(b"third", "file", if_exists="replace")
    disk.move("file", "moved")
    assert disk.load("moved") == b"third"
    assert disk.list_dir(".") == ["moved"]


def test_a_writer_that_was_faster_after_the_look_wins(disk: DiskBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a file that appears between the look and the rename
    stage = atomic.Transaction.stage

    def late(self: atomic.Transaction, target: Path, *args: Any, **options: Any) -> tuple[int, str]:
        result = stage(self, target, *args, **options)
        target.write_bytes(b"faster")
        return result

    monkeypatch.setattr(atomic.Transaction, "stage", late)
    # Then each policy says the same as if it had been there before
    with pytest.raises(AlreadyExists):
        disk.save(b"slower", "a")
    disk.save(b"slower", "a", if_exists="skip")
    assert disk.load("a") == b"faster"


def test_what_was_written_is_on_the_device_before_it_is_visible(
    disk: DiskBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a record of what is synced, and of the rename
    disk.ensure_directory("in")
    steps: list[str] = []
    sync, rename, folder = atomic.sync, atomic.rename_exclusive, atomic.sync_folder
    monkeypatch.setattr(atomic, "sync", lambda fd: (steps.append("file"), sync(fd)))
    monkeypatch.setattr(atomic, "rename_exclusive", lambda *a: (steps.append("rename"), rename(*a)))
    monkeypatch.setattr(atomic, "sync_folder", lambda path: (steps.append(f"folder {path.name}"), folder(path)))
    disk.save_batch([b"1", b"2"], ["in/1", "in/2"])
    assert steps == ["file", "file", "rename", "rename", "folder in"]


def test_folders_that_could_only_be_made_in_part_are_taken_back(
    disk: DiskBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.ensure_directory("in")
    mkdir = Path.mkdir
    monkeypatch.setattr(
        Path, "mkdir", lambda self, *args: _raise(errno.ENOSPC)() if self.name == "c" else mkdir(self, *args)
    )
    with pytest.raises(Unavailable, match="disk is full"):
        disk.save(b"x", "in/a/b/c/file")
    assert disk.list_dir("in") == []


# --- unfinished files -----------------------------------------------------------------------------------------


def test_unfinished_files_are_hidden_and_swept_when_a_day_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given what two killed writers left behind
    (tmp_path / "in" / ".tree.partial").mkdir(parents=True)
    (tmp_path / "in" / ".tree.partial" / "file").write_bytes(b"half")
    (tmp_path / "in" / ".abc.partial").write_bytes(b"half")
    disk = DiskBackend(root=tmp_path)
    # Then nobody sees it
    assert disk.list_files("in", recursive=True) == []
    assert disk.list_dir("in") == []
    # And a fresh one is left alone, because its writer may live
    disk.save(b"x", "in/x")
    assert (tmp_path / "in" / ".abc.partial").exists()
    # And a day later the next process removes it
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + files.STALE_AFTER + 1)
    DiskBackend(root=tmp_path).save(b"y", "in/y")
    assert _everything_in(tmp_path / "in") == ["x", "y"]


# --- the root ----------------------------------------------------------------------------------------------------


def test_a_symlink_that_leads_out_of_the_root_is_refused(tmp_path: Path) -> None:
    # Given links in the root to a file and a folder outside
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    root = tmp_path / "root"
    root.mkdir()
    (root / "file").symlink_to(outside / "secret")
    (root / "folder").symlink_to(outside)
    disk = DiskBackend(root=root)
    # Then neither is read or written through
    for call in (
        lambda: disk.load("file"), lambda: disk.load("folder/secret"), lambda: disk.save(b"x", "folder/new"),
        lambda: disk.list_files("folder"), lambda: disk.copy("file", "copy"),
        lambda: disk.delete_all("folder/secret"),
        lambda: disk.create_symlink(outside / "secret", "link"), lambda: disk.sha256("file"),
    ):  # fmt: skip
        with pytest.raises(OutsideRoot, match="root"):
            call()
    # And the links themselves can be replaced and deleted without touching what they lead to
    disk.save(b"mine", "file", if_exists="replace")
    disk.delete_all("folder")
    assert (outside / "secret").read_bytes() == b"secret"
    assert list(outside.iterdir()) == [outside / "secret"]


def test_absolute_addresses_must_lie_in_the_root(tmp_path: Path) -> None:
    disk = DiskBackend(root=tmp_path / "root")
    disk.save(b"x", tmp_path / "root" / "a")
    assert disk.load("a") == b"x"
    with pytest.raises(OutsideRoot, match=str(tmp_path / "elsewhere")):
        disk.save(b"x", tmp_path / "elsewhere")


def test_a_root_whose_name_begins_alike_is_another(tmp_path: Path) -> None:
    (tmp_path / "root-2").mkdir()
    with pytest.raises(OutsideRoot):
        DiskBackend(root=tmp_path / "root").save(b"x", "../root-2/x")


def test_a_root_that_must_be_there_is_never_made(tmp_path: Path) -> None:
    disk = DiskBackend(root=tmp_path / "mount", create_root=False)
    for call in (lambda: disk.save(b"x", "x"), lambda: disk.ensure_directory("dir")):
        with pytest.raises(Unavailable, match="mount it"):
            call()
    assert not (tmp_path / "mount").exists()


def test_without_a_root_addresses_are_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    disk = DiskBackend()
    disk.save(b"x", "relative/x")
    assert disk.load(tmp_path / "relative" / "x") == b"x"
    assert disk.list_files(tmp_path / "relative") == [tmp_path / "relative" / "x"]


# --- moves and copies ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["error", "replace"])
def test_a_move_to_another_file_system_copies_and_then_deletes(
    disk: DiskBackend, monkeypatch: pytest.MonkeyPatch, policy: Any
) -> None:
    disk.save(b"x", "from/file")
    disk.create_symlink("from/file", "link")
    from labrelay_worker.backends import disk as module

    def crosses(source: Path, target: Path) -> None:
        if not source.name.endswith(".partial"):
            _raise(errno.EXDEV)()
        files.rename_exclusive(source, target)

    replace = Path.replace
    monkeypatch.setattr(module, "rename_exclusive", crosses)
    monkeypatch.setattr(
        Path,
        "replace",
        lambda self, to: replace(self, to) if self.name.endswith(".partial") else _raise(errno.EXDEV)(),
    )
    disk.move("link", "elsewhere/link", if_exists=policy)
    disk.move("from", "elsewhere/dir")
    assert disk.load("elsewhere/dir/file") == b"x"
    assert disk.is_symlink("elsewhere/link")
    assert not disk.exists("from")
    assert not disk.is_symlink("link")


def test_a_file_saved_by_hand_keeps_the_umask(disk: DiskBackend, tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        disk.save(b"x", "file")
    finally:
        os.umask(old)
    assert (tmp_path / "root" / "file").stat().st_mode & 0o777 == 0o640


def test_a_name_too_long_for_the_file_system_is_unsupported(disk: DiskBackend) -> None:
    disk.save(b"x", "y" * 255)
    with pytest.raises(Unsupported, match="shorten"):
        disk.save(b"x", "y" * 256)
