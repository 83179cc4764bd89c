"""The manifest: what is known of the record and its files when a session is submitted."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labrelay import hashing as hashing_module
from labrelay import manifest as manifest_module
from labrelay.context import ExportContext
from labrelay.digests import digest
from labrelay.errors import InvalidInput, StillBeingWritten
from labrelay.hashing import Hashes
from labrelay.manifest import Manifest, make_manifest, map_path
from labrelay.results import ExportResult
from labrelay.settings import ProducerSettings

Build = Callable[..., ExportContext]


def look_at(context: ExportContext, **settings: Any) -> Manifest:
    return make_manifest(context, ProducerSettings(**{"settle_seconds": 0.0} | settings))


def refused(context: ExportContext, **settings: Any) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        look_at(context, **settings)
    assert "\n" not in str(caught.value)
    return caught.value


def sha256(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


# --- what is written down ------------------------------------------------------------------------------


def test_record_and_files_are_measured_and_hashed(make_session: Build) -> None:
    # Given a session of two files
    context = make_session(files=2)
    # When it is looked at
    completed = look_at(context).context
    # Then sizes and hashes are those of the files
    assert completed.xml_sha256 == sha256(context.xml_file_path)
    assert completed.xml_size == context.xml_file_path.stat().st_size
    assert [(str(a.path), a.size, a.sha256, a.mtime_ns) for a in completed.artifacts] == [
        (file, 1000, sha256(file), None) for file in context.activities[0].files
    ]


def test_a_large_file_is_fingerprinted_instead_of_hashed(make_session: Build) -> None:
    # Given a file over the limit
    context = make_session()
    # When it is looked at
    artifact = look_at(context, hash_limit=999).context.artifacts[0]
    # Then submit is not held up, and size and time stand for its content
    assert artifact.sha256 is None
    assert artifact.mtime_ns == Path(context.activities[0].files[0]).stat().st_mtime_ns


def test_the_record_is_hashed_however_large_it_is(make_session: Build) -> None:
    # Given a limit of nothing, when the record is looked at, then it is hashed: workers compare it
    assert look_at(make_session(), hash_limit=0).context.xml_sha256 is not None


def test_a_file_of_several_signals_is_counted_once(make_session: Build, tmp_path: Path) -> None:
    # Given a file that is listed once per signal, and in two activities
    file = str(tmp_path / "data" / "1" / "image 0.raw")
    context = make_session(activities=[{"files": [file, file]}, {"files": [file]}])
    # When it is looked at
    completed = look_at(context).context
    # Then there is one artifact, and the activities still list it as they did
    assert len(completed.artifacts) == 1
    assert completed.activities[0].files == (file, file)


def test_previews_are_artifacts_of_their_own(make_session: Build, tmp_path: Path) -> None:
    # Given a preview beside its file
    preview = tmp_path / "preview.png"
    preview.write_bytes(b"png")
    context = make_session(activities=[{"files": [], "previews": [None, str(preview)]}])
    # When it is looked at, then role and type say what it is
    artifact = look_at(context).context.artifacts[0]
    assert (artifact.role, artifact.media_type) == ("preview", "image/png")


def test_a_missing_preview_is_left_out_with_a_warning(make_session: Build, tmp_path: Path) -> None:
    # Given a preview that was never made
    context = make_session(activities=[{"previews": [str(tmp_path / "gone.png")]}])
    # When it is looked at
    looked_at = look_at(context)
    # Then the session is accepted, says so, and no destination stumbles over the path
    assert looked_at.warnings == (
        f"activities[0].previews[0]: preview {tmp_path}/gone.png does not exist and is left out",
    )
    assert looked_at.context.artifacts == ()
    assert looked_at.context.activities[0].previews == (None,)


def test_a_preview_that_cannot_be_looked_at_is_refused_by_name(make_session: Build, tmp_path: Path) -> None:
    # Given a preview whose name no file system takes
    context = make_session(activities=[{"previews": [str(tmp_path / ("x" * 300))]}])
    # When it is looked at, then the error names it and says why
    problem = str(refused(context))
    assert "activities[0].previews[0]" in problem
    assert "too long" in problem


def test_what_the_submitter_says_of_a_file_is_kept(make_session: Build) -> None:
    # Given an artifact that the submitter described
    context = make_session()
    path = context.activities[0].files[0]
    described = make_session(
        artifacts=[{"path": path, "role": "derived", "media_type": "image/x-raw", "backend": "zarr"}]
    )
    # When it is looked at, then only size and hash are added
    artifact = look_at(described).context.artifacts[0]
    assert (artifact.role, artifact.media_type, artifact.backend) == ("derived", "image/x-raw", "zarr")
    assert artifact.sha256 == sha256(path)


def test_a_file_that_is_not_the_one_described_is_refused(make_session: Build) -> None:
    # Given an artifact with the sha256 of something else
    path = make_session().activities[0].files[0]
    error = refused(make_session(artifacts=[{"path": path, "sha256": "0" * 64}]))
    # Then what is delivered would not be what was meant
    assert error.field == "artifacts[0].path"


# --- refusals ------------------------------------------------------------------------------------------


def test_a_missing_file_is_named_with_its_field(make_session: Build, tmp_path: Path) -> None:
    # Given a context that names a file which is not there
    context = make_session(activities=[{"files": []}, {"files": [str(tmp_path / "gone.dm3")]}])
    # When it is looked at, then field and path say which
    error = refused(context)
    assert error.field == "activities[1].files[0]"
    assert error.problem == f"no such file {tmp_path}/gone.dm3"


def test_a_missing_record_is_refused(make_context: Build, tmp_path: Path) -> None:
    # Given a record that is not there, when it is looked at, then that is said
    assert refused(make_context(xml_file_path=str(tmp_path / "gone.xml"))).field == "xml_file_path"


def test_a_folder_is_not_a_file(make_session: Build, tmp_path: Path) -> None:
    # Given a folder where a file is expected, when it is looked at, then that is said
    assert "is not a file" in refused(make_session(activities=[{"files": [str(tmp_path)]}])).problem


def test_an_unreadable_file_is_refused_with_the_reason(make_session: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a file that may not be opened
    def refuse(path: Path, *_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    context = make_session()
    monkeypatch.setattr(os, "open", refuse)
    # When it is looked at, then the cure is named
    error = refused(context)
    assert "Permission denied" in error.problem
    assert error.cure == "Make it readable"


@pytest.mark.parametrize("path", ["/data/with\0null", "/" + "x" * 5000])
def test_a_path_the_system_cannot_have_is_refused(make_session: Build, path: str) -> None:
    # Given a path that is none, when it is looked at, then it is one line like any other mistake
    assert refused(make_session(activities=[{"files": [path]}])).field == "activities[0].files[0]"


def test_a_relative_path_is_refused(make_session: Build) -> None:
    # Given a path that depends on where the pipeline runs, when it is looked at, then the cure is named
    error = refused(make_session(activities=[{"files": ["a.dm3"]}]))
    assert error.problem == "a.dm3 is not absolute"
    assert "--root" in error.cure


def test_a_file_outside_the_data_roots_is_refused(make_session: Build, tmp_path: Path) -> None:
    # Given roots that do not hold the session
    root = tmp_path / "instrument"
    root.mkdir()
    # When it is looked at, then the record is refused by name
    error = refused(make_session(), data_roots=(root,))
    assert error.field == "xml_file_path"
    assert f"outside data_roots ({root})" in error.problem


def test_a_link_out_of_the_data_roots_is_refused(make_session: Build, tmp_path: Path) -> None:
    # Given a link inside the roots that points elsewhere
    root = tmp_path / "data"
    outside = tmp_path / "secret.txt"
    outside.write_text("secret")
    context = make_session(activities=[{"files": [str(root / "link")]}])
    (root / "link").symlink_to(outside)
    # When it is looked at, then where it leads counts
    assert refused(context, data_roots=(root,)).field == "activities[0].files[0]"


def test_a_root_that_is_itself_a_link_holds_its_files(make_session: Build, tmp_path: Path) -> None:
    # Given roots named through a link, as mounts often are
    context = make_session()
    (tmp_path / "mount").symlink_to(tmp_path / "data")
    # When the session is looked at, then it lies inside
    assert look_at(context, data_roots=(tmp_path / "mount",)).context.artifacts


def test_values_that_json_cannot_hold_are_refused(make_session: Build) -> None:
    # Given metadata with an object, as a pipeline might leave in it
    # When it is looked at, then the field is named, instead of an error out of the serializer
    assert refused(make_session(metadata={"pixel": object()})).field == "metadata"


# --- still being written -------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["size", "time"])
def test_a_file_that_moves_while_it_is_looked_at_is_still_being_written(
    make_session: Build, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    # Given a fresh file to which the instrument writes on
    context = make_session()
    file = Path(context.activities[0].files[0])

    def write_on(_: float) -> None:
        if change == "size":
            with file.open("ab") as stream:
                stream.write(b"more")
        else:
            os.utime(file, ns=(1, 1))

    monkeypatch.setattr(hashing_module.time, "sleep", write_on)
    # When it is looked at twice, then it is refused for now
    error = refused(context, settle_seconds=60.0)
    assert type(error) is StillBeingWritten
    assert error.field == "activities[0].files[0]"


@pytest.mark.parametrize(("size", "hashed_by"), [(2000, "sha256"), (2 * 2**20, "file_digest")])
def test_a_file_that_changes_while_it_is_hashed_is_still_being_written(
    make_session: Build, monkeypatch: pytest.MonkeyPatch, size: int, hashed_by: str
) -> None:
    # Given a file, small or large, that is written to while it is read
    context = make_session()
    file = Path(context.activities[0].files[0])
    os.truncate(file, size)
    hash_it = getattr(hashlib, hashed_by)

    def hash_and_change(*content: Any) -> Any:
        file.write_bytes(b"other")
        return hash_it(*content)

    monkeypatch.setattr(hashing_module.hashlib, hashed_by, hash_and_change)
    # When it is looked at, then its hash is not believed
    assert type(refused(context)) is StillBeingWritten


def test_a_session_at_rest_is_not_waited_for(make_session: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given files that were last changed long ago
    context = make_session()
    for path in [context.xml_file_path, *context.activities[0].files]:
        os.utime(path, (1, 1))
    monkeypatch.setattr(hashing_module.time, "sleep", lambda _: pytest.fail("waited"))
    # When it is looked at, then at once
    look_at(context, settle_seconds=60.0)


def test_a_share_whose_clock_is_ahead_is_waited_for_once(
    make_session: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given files from the future
    context = make_session()
    os.utime(context.xml_file_path, (2**33, 2**33))
    waits: list[float] = []
    monkeypatch.setattr(hashing_module.time, "sleep", waits.append)
    # When it is looked at, then no longer than the settle time
    look_at(context, settle_seconds=0.5)
    assert waits == [0.5]


# --- paths ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "path_map", "expected"),
    [
        ("/mnt/titan/a.dm3", {"/mnt/titan": "/srv/titan"}, "/srv/titan/a.dm3"),
        ("/mnt/titan/a.dm3", {"/mnt/titan/": "/srv/titan/"}, "/srv/titan/a.dm3"),
        ("/mnt/titan2/a.dm3", {"/mnt/titan": "/srv/titan"}, "/mnt/titan2/a.dm3"),
        ("/mnt/titan/x/a.dm3", {"/mnt": "/srv", "/mnt/titan": "/fast"}, "/fast/x/a.dm3"),
        ("/a/b", {"/": "/srv"}, "/srv/a/b"),
        ("/mnt/titan", {"/mnt/titan": "/srv/titan"}, "/srv/titan"),
        (r"Z:\titan\a b.dm3", {"Z:": "/srv"}, "/srv/titan/a b.dm3"),
        (r"Z:\titan\a.dm3", {"Z:\\": "/srv"}, "/srv/titan/a.dm3"),
        (r"z:\Titan\a.dm3", {r"Z:\titan": "/srv/titan"}, "/srv/titan/a.dm3"),
        ("Z:/titan/a.dm3", {r"Z:\titan": "/srv/titan"}, "/srv/titan/a.dm3"),
        (r"Y:\titan\a.dm3", {"Z:": "/srv"}, r"Y:\titan\a.dm3"),
        (r"\\server\share\titan\a.dm3", {r"\\server\share": "/srv"}, "/srv/titan/a.dm3"),
        (r"\\server\share\titan\a.dm3", {"//server/share": "/srv"}, "/srv/titan/a.dm3"),
        (r"\\SERVER\Share\a.dm3", {r"\\server\share": "/srv"}, "/srv/a.dm3"),
        (r"\\server\share2\a.dm3", {r"\\server\share": "/srv"}, r"\\server\share2\a.dm3"),
    ],
)
def test_paths_are_mapped_by_their_longest_prefix(path: str, path_map: dict[str, str], expected: str) -> None:
    # Given what the producer sees and what the workers see, when a path is mapped, then whole parts count
    assert str(map_path(Path(path), path_map)) == expected


def test_every_path_of_the_context_is_mapped(make_session: Build, tmp_path: Path) -> None:
    # Given a session on the producer's mount
    preview = tmp_path / "data" / "preview.png"
    context = make_session()
    preview.write_bytes(b"png")
    files = context.activities[0].files
    context = make_session(activities=[{"files": list(files), "previews": [str(preview), None]}])
    # When it is looked at
    completed = look_at(context, path_map={str(tmp_path / "data"): "/srv"}).context
    # Then the workers' spelling is everywhere, and the producer opened its own
    assert str(completed.xml_file_path) == "/srv/1/record-1.xml"
    assert completed.activities[0].files == ("/srv/1/image 0.raw",)
    assert completed.activities[0].previews == (Path("/srv/preview.png"), None)
    assert [str(a.path) for a in completed.artifacts] == ["/srv/1/image 0.raw", "/srv/preview.png"]


# --- the digest ----------------------------------------------------------------------------------------


def test_the_digest_is_the_same_for_the_same_session(make_session: Build) -> None:
    # Given one session looked at twice, then it is a duplicate
    assert look_at(make_session()).digest == look_at(make_session()).digest


def test_the_digest_does_not_depend_on_earlier_results(make_context: Build) -> None:
    # Given a context with the result of a trial, then it is the same export
    context = make_context()
    before = digest(context)
    context.add_result("cdcs", ExportResult(success=True, destination_name="cdcs"))
    assert digest(context) == before


def test_the_digest_does_not_depend_on_what_a_machine_takes_files_for(
    make_session: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given two producers whose tables of file types differ
    before = look_at(make_session()).digest
    monkeypatch.setattr(manifest_module.mimetypes, "guess_type", lambda _: ("image/x-odd", None))
    # When both submit one session, then it is a duplicate
    assert look_at(make_session()).digest == before


@pytest.mark.parametrize("what", ["file", "record", "user", "path"])
def test_the_digest_changes_with_the_content(make_session: Build, what: str) -> None:
    # Given a session
    context = make_session()
    before = look_at(context).digest
    # When anything of it changes
    if what == "file":
        Path(context.activities[0].files[0]).write_bytes(b"other")
    elif what == "record":
        context.xml_file_path.write_text("<other/>")
    elif what == "user":
        context = context.model_copy(update={"user": "somebody"})
    settings = {"path_map": {"/": "/srv"}} if what == "path" else {}
    # Then it is no duplicate
    assert look_at(context, **settings).digest != before


def test_a_file_that_many_sessions_name_is_read_once(
    make_session: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given sessions that share a gain reference
    shared = tmp_path / "gain.mrc"
    shared.write_bytes(b"gain")
    sessions = [make_session(number, artifacts=[{"path": str(shared)}]) for number in (1, 2)]
    opened = list[str]()
    read = hashing_module.os.open
    monkeypatch.setattr(hashing_module.os, "open", lambda path, *more: opened.append(str(path)) or read(path, *more))
    # When they are looked at together, then it is read for the first of them
    hashes = Hashes()
    settings = ProducerSettings(settle_seconds=0)
    found = [make_manifest(session, settings, hashes).context for session in sessions]
    assert opened.count(str(shared)) == 1
    assert {artifact.sha256 for context in found for artifact in context.artifacts if artifact.path == shared} == {
        sha256(shared)
    }


def test_a_file_that_changed_between_two_sessions_is_read_for_both(make_session: Build) -> None:
    # Given a record that is written anew between two looks of one submit
    context, hashes, settings = make_session(), Hashes(), ProducerSettings(settle_seconds=0)
    before = make_manifest(context, settings, hashes).context.xml_sha256
    context.xml_file_path.write_text("<Other/>")
    # When it is looked at again, then what is there now counts
    after = make_manifest(context, settings, hashes).context.xml_sha256
    assert after == sha256(context.xml_file_path) != before
