"""Joining the locations of a record to their root, on Windows too."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath

import pytest

from labrelay.nexus_record import join_location


def test_locations_join_on_windows_too() -> None:
    # Given the root of a Windows share
    root = PureWindowsPath(r"\\microscopes\titan")
    # When a location is joined
    joined = join_location(root, "/Nexus_Test/test%201.dm3")
    # Then it lies under the root in that system's spelling
    assert joined == PureWindowsPath(r"\\microscopes\titan\Nexus_Test\test 1.dm3")


@pytest.mark.parametrize("location", ["/C:/Windows/a", "c:a", r"\\server\share\a", r"\a", r"a\..\..\b", "a/.. /b"])
def test_a_location_cannot_leave_a_windows_root(location: str) -> None:
    # Given the root on a drive, when a location leads out of it, then it is refused
    with pytest.raises(ValueError, match="leads out of its root"):
        join_location(PureWindowsPath(r"D:\data"), location)


@pytest.mark.parametrize("location", ["/", ".", "%00", "%ff", "https://example.org/a", "/.."])
def test_a_location_that_names_no_file_is_refused(location: str) -> None:
    # Given a root, when a location names nothing under it, then it is refused
    with pytest.raises(ValueError, match=r"names no file|zero byte|URL-encoded|web address|leads out"):
        join_location(PurePosixPath("/data"), location)
