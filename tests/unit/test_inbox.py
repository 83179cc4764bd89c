"""When a watched record is complete, and which files are somebody's unfinished copy."""

from __future__ import annotations

from pathlib import Path

import pytest

from labrelay.inbox.looking import arriving, is_partial, records_in
from labrelay.inbox.settling import Pending, seen


@pytest.mark.parametrize(
    "name", ["a.part", "a.PARTIAL", "a.tmp", "a.crdownload", "a.filepart", "a~", ".a", "~$a.xml"]
)
def test_unfinished_names_are_known(name):
    assert is_partial(name)


@pytest.mark.parametrize("name", ["a.xml", "part.xml", "a.part.xml", "tmp"])
def test_finished_names_are_not_taken_for_unfinished(name):
    assert not is_partial(name)


def test_a_changed_record_waits_and_is_read_anew(make_context):
    # Given a record that stood still and was read
    record = Pending((10, 1), since=0.0, looks=5, contexts=(make_context(),), files={Path("a"): (1, 1)})
    assert record.is_complete(10, now=10.0)

    # When it has grown at the next look
    grown = seen(record, (11, 2), now=12.0)

    # Then everything begins anew
    assert (grown.since, grown.contexts, grown.is_worth_reading) == (12.0, None, False)
    assert seen(grown, (11, 2), now=13.0).is_worth_reading


def test_a_file_that_changes_begins_the_wait_anew_and_one_that_does_not_does_not(make_context):
    record = Pending((10, 1), since=0.0, contexts=(make_context(),), files={Path("a"): (1, 1)})
    assert record.with_files({Path("a"): (1, 1)}, now=9.0).since == 0.0
    assert record.with_files({Path("a"): (2, 1)}, now=9.0).since == 9.0
    assert record.with_files({Path("a"): None}, now=9.0).since == 9.0


def test_what_was_not_read_is_never_complete():
    assert not Pending((10, 1), since=0.0).is_complete(0, now=99.0)
    assert Pending((10, 1), since=0.0, problem=ValueError()).is_complete(0, now=99.0)


@pytest.mark.parametrize("copy", ["image.dm4.part", "image.dm4.crdownload", ".image.dm4.Xy3fQ1", "image.dm4~"])
def test_a_copy_under_way_is_found_beside_its_file(tmp_path: Path, copy: str):
    (tmp_path / copy).touch()
    (tmp_path / "other.dm4.part").touch()
    assert arriving([tmp_path / "image.dm4", tmp_path / "third.dm4"]) == [tmp_path / "image.dm4"]


def test_records_are_found_below_but_not_in_hidden_folders(tmp_path: Path):
    for name in ("a.xml", "b/c/d.json", ".git/e.xml", "f.tmp/g.xml", "h.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [name for name, _ in records_in(tmp_path, ["*.xml", "*.json"])] == ["a.xml", "b/c/d.json"]


def test_a_link_to_a_folder_above_does_not_lead_round_in_circles(tmp_path: Path):
    (tmp_path / "a.xml").touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    assert [name for name, _ in records_in(tmp_path, ["*"])] == ["a.xml"]


def test_a_link_that_cannot_be_followed_hides_no_other_record(tmp_path: Path):
    # Given a record between a link in a circle and one that leads nowhere
    (tmp_path / "b.xml").touch()
    (tmp_path / "a.xml").symlink_to(tmp_path / "a.xml")
    (tmp_path / "c.xml").symlink_to(tmp_path / "gone.xml")

    # Then the record is found
    assert [name for name, _ in records_in(tmp_path, ["*.xml"])] == ["b.xml"]
