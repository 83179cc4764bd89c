"""A process killed at any step of a batch leaves the old content or the new for all of it, never a mixture."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labrelay_worker.backends.base import AlreadyExists
from labrelay_worker.backends.disk import DiskBackend
from labrelay_worker.backends.files import JOURNALS

pytestmark = pytest.mark.faults

NAMES = ["plate/a.bin", "plate/deep/b.bin", "c.bin", "plate/a link"]
OLD = [b"old %d" % number for number in range(len(NAMES))]
NEW = [b"new %d" % number for number in range(len(NAMES))]

#: Audit events of everything that changes a name, a file or a lock.
STEPS = frozenset({"open", "os.link", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "fcntl.flock"})


def killed_at(step: int, root: Path, act: Callable[[], object]) -> bool:
    """Run `act` in a child that is killed just before its file-system step of this number; return whether it was."""
    child = os.fork()
    if child == 0:
        steps = iter(range(step))

        def count(event: str, details: tuple[object, ...]) -> None:
            concerns_root = event == "fcntl.flock" or str(root) in str(details[0])
            if event in STEPS and concerns_root and next(steps, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)

        fsync = os.fsync
        os.fsync = lambda descriptor: (count("fcntl.flock", ()), fsync(descriptor))  # syncs are not audited
        sys.addaudithook(count)
        try:
            act()
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.waitstatus_to_exitcode(status) == 0
    return False


def every_kill(tmp_path: Path, prepare: Callable[[DiskBackend], None], act: Callable[[DiskBackend], None]):
    """Yield a fresh root for every step at which a writer can be killed, after it was."""
    for step in range(1000):
        root = tmp_path / str(step)
        prepare(DiskBackend(root))
        if not killed_at(step, root, lambda root=root: act(DiskBackend(root))):
            assert step > 20  # else the steps were not seen
            return
        yield root
    pytest.fail("the writer never came to its end")


def existing(root: Path) -> list[bytes | None]:
    disk = DiskBackend(root)
    return [disk.load(name) if disk.exists(name) else None for name in NAMES]


def unfinished(root: Path) -> Iterator[Path]:
    return (path for path in root.rglob("*") if path.name == JOURNALS)


def test_a_batch_that_replaces_is_old_or_new_after_a_kill_at_every_step(tmp_path: Path) -> None:
    seen = []
    # Given files in several folders, and a process killed somewhere while it replaces them all
    for root in every_kill(
        tmp_path,
        lambda disk: disk.save_batch(OLD, NAMES),
        lambda disk: disk.save_batch(NEW, NAMES, if_exists="replace"),
    ):
        # When somebody opens the folder
        found = existing(root)
        # Then all are old or all are new
        assert found in (OLD, NEW), root
        seen.append(found == NEW)
        # And nothing but hidden files is left, and no journal
        assert list(unfinished(root)) == []
        assert DiskBackend(root).list_files(".", recursive=True) == sorted(map(Path, NAMES))
        # And the next batch goes through
        DiskBackend(root).save_batch(NEW, NAMES, if_exists="replace")
        assert existing(root) == NEW
    # And once new, it stays new
    assert seen == sorted(seen)
    assert set(seen) == {False, True}


def test_a_batch_of_new_files_is_there_or_not_after_a_kill_at_every_step(tmp_path: Path) -> None:
    seen = set()
    for root in every_kill(
        tmp_path, lambda disk: disk.save(b"other", "plate/other"), lambda disk: disk.save_batch(NEW, NAMES)
    ):
        found = existing(root)
        assert found in ([None] * len(NAMES), NEW), root
        seen.add(found == NEW)
        assert list(unfinished(root)) == []
        assert DiskBackend(root).load("plate/other") == b"other"
        if found != NEW:
            DiskBackend(root).save_batch(NEW, NAMES)
        assert existing(root) == NEW
    assert seen == {False, True}


def test_a_batch_that_fills_up_what_is_missing_is_there_or_not_after_a_kill_at_every_step(tmp_path: Path) -> None:
    before, after = [OLD[0], None, None, None], [OLD[0], *NEW[1:]]
    for root in every_kill(
        tmp_path,
        lambda disk: disk.save(OLD[0], NAMES[0]),
        lambda disk: disk.save_batch(NEW, NAMES, if_exists="skip"),
    ):
        assert existing(root) in (before, after)


def half_published(root: Path) -> None:
    """Leave a batch of which some names are new and others old, and whose writer was killed."""
    DiskBackend(root).save_batch(OLD, NAMES)
    for step in range(1000):
        assert killed_at(step, root, lambda: DiskBackend(root).save_batch(NEW, NAMES, if_exists="replace"))
        mixture = {(root / name).read_bytes()[:3] for name in NAMES}
        if mixture == {b"old", b"new"}:
            return
        existing(root)


def test_a_kill_at_every_step_of_the_recovery_harms_nothing_either(tmp_path: Path) -> None:
    for step in range(200):
        # Given a half-published batch, and an opener that is killed while it takes it back
        root = tmp_path / str(step)
        half_published(root)
        killed = killed_at(step, root, lambda root=root: DiskBackend(root).exists("plate"))
        # Then the one after it finds all old
        assert existing(root) == OLD
        assert list(unfinished(root)) == []
        if not killed:
            assert step > 10
            return
    pytest.fail("the recovery never came to its end")


@pytest.mark.parametrize(
    "look",
    [
        lambda disk: disk.load("plate/a.bin"),
        lambda disk: disk.list_files(".", recursive=True),
        lambda disk: disk.stat("c.bin"),
        lambda disk: disk.copy("plate", "copied"),
        lambda disk: disk.save(b"x", "plate/deep/more"),
        lambda disk: disk.delete("c.bin"),
    ],
    ids=["load", "list", "stat", "copy", "save", "delete"],
)
def test_whatever_is_done_first_takes_the_batch_back(tmp_path: Path, look: Callable[[DiskBackend], object]) -> None:
    half_published(tmp_path / "root")
    look(DiskBackend(tmp_path / "root"))
    left = {(tmp_path / "root" / name).read_bytes()[:3] for name in NAMES if (tmp_path / "root" / name).exists()}
    assert left == {b"old"}


def test_a_process_that_looked_before_the_kill_sees_it_taken_back_as_well(tmp_path: Path) -> None:
    # Given a reader that knows the folder, and a batch that is half published after that
    reader = DiskBackend(tmp_path / "root")
    reader.ensure_directory("plate")
    half_published(tmp_path / "root")
    # Then it needs no new start
    assert reader.load_batch(NAMES) == OLD


def test_without_a_root_a_batch_is_taken_back_too(tmp_path: Path) -> None:
    half_published(tmp_path / "root")
    assert DiskBackend().load_batch([tmp_path / "root" / name for name in NAMES]) == OLD


def test_what_was_written_after_the_kill_stays(tmp_path: Path) -> None:
    # Given a half-published batch, of which somebody else has replaced a file since
    root = tmp_path / "root"
    half_published(root)
    (root / "by hand").write_bytes(b"newest")
    (root / "by hand").replace(root / NAMES[0])
    # Then that one stays, and the others are old again
    assert existing(root) == [b"newest", *OLD[1:]]


def test_a_batch_that_is_being_published_is_left_alone(tmp_path: Path) -> None:
    # Given a writer that is stopped between two names of its batch
    root = tmp_path / "root"
    disk = DiskBackend(root)
    disk.save_batch(OLD, NAMES)
    looked: list[bytes] = []
    replace = Path.replace

    def looking(self: Path, target: Path) -> Path:
        # When another one opens the folder at that very moment
        looked.append(DiskBackend(root).load(NAMES[0]))
        return replace(self, target)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Path, "replace", looking)
        disk.save_batch(NEW, NAMES, if_exists="replace")
    # Then it sees the batch on its way, and disturbs nothing
    assert looked == [OLD[0], NEW[0], NEW[0], NEW[0]]
    assert existing(root) == NEW


def test_a_batch_that_loses_a_race_is_taken_back_and_leaves_the_winner(tmp_path: Path) -> None:
    # Given a file that appears after the look and before the third name is taken
    root = tmp_path / "root"
    disk = DiskBackend(root)
    link = os.link

    def late(source: Path, target: Path, **options: bool) -> None:
        if Path(target).name == "c.bin":
            Path(target).write_bytes(b"faster")
        link(source, target, **options)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "link", late)
        with pytest.raises(AlreadyExists, match=r"c\.bin"):
            disk.save_batch(NEW, NAMES)
    # Then the batch is gone and the winner stays
    assert existing(root) == [None, None, b"faster", None]
    assert [path.name for path in root.iterdir()] == ["c.bin"]
