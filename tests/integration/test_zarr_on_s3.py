"""The zarr backend on a real S3 service: the same images, and what a reader may see while they are written."""

from __future__ import annotations

import hashlib
import random
import threading
import urllib.request
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from s3 import s3, s3_service
from signals import counts, image

from labrelay_worker.backends.base import (
    AlreadyExists,
    Corrupt,
    IsADirectory,
    NotFound,
    OutsideRoot,
    Unavailable,
    Unsupported,
)
from labrelay_worker.backends.ngff import object_files, object_images
from labrelay_worker.backends.ngff.bucket import Changed
from labrelay_worker.backends.zarr import ZarrBackend
from labrelay_worker.reading.signal import Well

__all__ = ["s3", "s3_service"]
pytestmark = pytest.mark.integration
PLATE = "plates/p1.ome.zarr"


@pytest.fixture
def backend(s3: dict[str, str]) -> ZarrBackend:
    return ZarrBackend(**s3)  # type: ignore[arg-type]


def group(backend: ZarrBackend, address: str) -> Any:
    return zarr.open_group(backend._images.images.place(address), mode="r")


@pytest.mark.parametrize("ngff", ["0.5", "0.4"])
def test_images_come_back_equal(s3: dict[str, Any], ngff: str) -> None:
    backend = ZarrBackend(**s3, ngff=ngff, chunk=64)  # type: ignore[arg-type]
    data = counts((3, 700, 130))
    backend.save(image(data), "s/a.ome.zarr")
    assert np.array_equal(backend.load("s/a.ome.zarr"), data)
    assert np.array_equal(backend.open_image("s/a.ome.zarr").plane(1), data[1])
    assert np.array_equal(backend.open_image("s/a.ome.zarr").data[2], data[2])
    attributes = dict(group(backend, "s/a.ome.zarr").attrs)
    import yaozarrs

    yaozarrs.validate_ome_object(attributes.get("ome", {k: v for k, v in attributes.items() if k != "labrelay"}))


def test_files_go_beside_images(backend: ZarrBackend, tmp_path: Path) -> None:
    (tmp_path / "record.xml").write_bytes(b"<x/>")
    size, digest = backend.save_file(tmp_path / "record.xml", "s/record.xml")
    backend.save_batch([{"a": 1}, counts((4, 4))], ["s/manifest.json", "s/a.ome.zarr"])
    assert (backend.size("s/record.xml"), backend.sha256("s/record.xml")) == (size, digest)
    assert backend.load("s/manifest.json") == {"a": 1}
    assert backend.list_dir("s") == ["a.ome.zarr", "manifest.json", "record.xml"]
    assert backend.list_files(".", recursive=True) == [Path("s", name) for name in backend.list_dir("s")]
    backend.move("s", "t")
    assert np.array_equal(backend.load("t/a.ome.zarr"), counts((4, 4)))
    backend.delete_all("t")
    assert not backend.exists("t")


def test_a_large_file_is_stored_in_parts(
    backend: ZarrBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a file that counts as large
    monkeypatch.setattr(object_files, "_LARGE", 2**20)
    source = tmp_path / "image.raw"
    source.write_bytes(random.Random(1).randbytes(20 * 2**20))
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    # When it is stored
    stored = backend.save_file(source, "s/image.raw", sha256=digest)
    # Then it is there, whole, put together of three parts
    assert stored == (20 * 2**20, digest) == (backend.size("s/image.raw"), backend.sha256("s/image.raw"))
    _, version = backend._files._bucket.get_version("s/image.raw")
    assert str(version).endswith('-3"')
    # And it is replaced only when that is wanted
    with pytest.raises(AlreadyExists):
        backend.save_file(source, "s/image.raw")
    with source.open("ab") as file:
        file.write(b"more")
    assert backend.save_file(source, "s/image.raw", if_exists="skip") == stored
    assert backend.save_file(source, "s/image.raw", if_exists="replace")[0] == 20 * 2**20 + 4


def test_a_large_file_that_is_another_one_leaves_nothing(
    backend: ZarrBackend, s3: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_files, "_LARGE", 2**20)
    (tmp_path / "image.raw").write_bytes(bytes(20 * 2**20))
    with pytest.raises(Corrupt, match=f"expected {'0' * 64}"):
        backend.save_file(tmp_path / "image.raw", "s/image.raw", sha256="0" * 64)
    assert not backend.exists("s")
    # And no part is left behind, to be paid for
    bucket = s3["root"].removeprefix("s3://").removesuffix("/lab")
    with urllib.request.urlopen(f"{s3['endpoint']}/{bucket}?uploads") as listed:
        assert b"<Upload>" not in listed.read()


def test_errors_are_those_of_every_backend(backend: ZarrBackend) -> None:
    backend.save(b"x", "dir/file")
    with pytest.raises(AlreadyExists):
        backend.save(b"y", "dir/file")
    backend.save(b"y", "dir/file", if_exists="skip")
    assert backend.load("dir/file") == b"x"
    with pytest.raises(IsADirectory):
        backend.load("dir")
    with pytest.raises(NotFound):
        backend.load("missing")
    with pytest.raises(OutsideRoot):
        backend.load("../other")
    with pytest.raises(Unsupported, match="cannot make symlinks"):
        backend.create_symlink("dir/file", "link")


def test_a_service_that_is_away_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tester")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2-secret")
    monkeypatch.setattr("labrelay_worker.backends.ngff.bucket._RETRY", {"max_retries": 0})
    away = ZarrBackend("s3://bucket/lab", endpoint="http://127.0.0.1:9", region="us-east-1")
    with pytest.raises(Unavailable, match="tried again later") as caught:
        away.save(b"x", "a")
    assert "hunter2-secret" not in str(caught.value)


def test_a_replacement_is_the_old_image_or_the_new_one(backend: ZarrBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given an image, open at a reader's
    old, new = counts((2, 40, 40)), counts((2, 50, 50), seed=1)
    backend.save(old, "a.ome.zarr")
    reader = backend.open_image("a.ome.zarr")
    bucket = backend._images.images._bucket  # type: ignore[attr-defined]
    put, seen = type(bucket).put, []

    def watched(self: Any, key: str, *args: Any, **given: Any) -> None:
        seen.append(backend.load("a.ome.zarr").shape)
        put(self, key, *args, **given)

    # When it is replaced
    monkeypatch.setattr(type(bucket), "put", watched)
    backend.save(new, "a.ome.zarr", if_exists="replace")
    monkeypatch.undo()
    # Then before each write the old one was there, whole, and after the last the new one
    assert len(seen) > 3
    assert set(seen) == {old.shape}
    assert np.array_equal(backend.load("a.ome.zarr"), new)
    # And who has the old one open reads it to the end
    assert np.array_equal(reader.plane(1), old[1])


def test_an_image_that_was_never_finished_is_not_there(backend: ZarrBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a service that fails at the last write, and for good
    bucket = type(backend._images.images._bucket)  # type: ignore[attr-defined]
    put = bucket.put

    def failing(self: Any, key: str, *args: Any, **given: Any) -> None:
        if key == "a.ome.zarr/zarr.json":
            raise Unavailable("the network is gone")
        put(self, key, *args, **given)

    monkeypatch.setattr(bucket, "put", failing)
    monkeypatch.setattr(bucket, "delete", lambda *_: None)
    with pytest.raises(Unavailable):
        backend.save(counts((4, 4)), "a.ome.zarr")
    monkeypatch.undo()
    # Then there is no image, and a repetition makes one
    assert not backend.is_file("a.ome.zarr")
    backend.save(counts((4, 4)), "a.ome.zarr")
    assert np.array_equal(backend.load("a.ome.zarr"), counts((4, 4)))


def test_of_two_that_write_one_image_at_once_the_later_one_is_refused(
    backend: ZarrBackend, s3: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given an image, and a writer that has put its new pixels there
    first, second = counts((3, 40, 40), seed=1), counts((4, 50, 50), seed=2)
    backend.save(counts((2, 30, 30)), "a.ome.zarr")
    check = object_images.check_image

    def meanwhile(*given: Any) -> None:
        monkeypatch.setattr(object_images, "check_image", check)
        ZarrBackend(**s3).save(first, "a.ome.zarr", if_exists="replace")
        check(*given)

    # When another one replaces the image meanwhile, and so deletes what nothing names
    monkeypatch.setattr(object_images, "check_image", meanwhile)
    with pytest.raises(Unavailable, match="another worker wrote this image"):
        backend.save(second, "a.ome.zarr", if_exists="replace")
    # Then the image is that one's, whole, and a repetition replaces it
    assert np.array_equal(backend.load("a.ome.zarr"), first)
    backend.save(second, "a.ome.zarr", if_exists="replace")
    assert np.array_equal(backend.load("a.ome.zarr"), second)


@pytest.mark.parametrize("before", [None, (2, 30, 30)], ids=["first", "replacement"])
@pytest.mark.parametrize("answer", [Changed, Unavailable])
def test_a_root_whose_answer_is_lost_never_names_pixels_that_were_taken_back(
    backend: ZarrBackend, monkeypatch: pytest.MonkeyPatch, before: tuple[int, ...] | None, answer: type[Exception]
) -> None:
    if before:
        backend.save(counts(before), "a.ome.zarr")
    # Given a service whose answer to the last write is lost: a repetition is refused, or none comes through
    bucket = type(backend._images.images._bucket)  # type: ignore[attr-defined]
    put = bucket.put

    def lost(self: Any, key: str, *args: Any, **given: Any) -> None:
        put(self, key, *args, **given)
        if key == "a.ome.zarr/zarr.json":
            raise answer("lost")

    monkeypatch.setattr(bucket, "put", lost)
    # When an image is stored
    new = counts((3, 40, 40), seed=1)
    with nullcontext() if answer is Changed else pytest.raises(Unavailable):
        backend.save(new, "a.ome.zarr", if_exists="replace")
    monkeypatch.undo()
    # Then it is there, whole
    assert np.array_equal(backend.load("a.ome.zarr"), new)


@pytest.mark.parametrize("versions", [("0.4", "0.5"), ("0.5", "0.4")])
def test_an_image_can_be_replaced_by_one_of_another_version(s3: dict[str, Any], versions: tuple[Any, Any]) -> None:
    for number, ngff in enumerate(versions):
        backend, data = ZarrBackend(**s3, ngff=ngff), counts((9, 10 + number))
        backend.save(data, "a.ome.zarr", if_exists="replace")
        assert np.array_equal(backend.load("a.ome.zarr"), data)


def test_wells_written_at_the_same_time_are_all_declared(s3: dict[str, str]) -> None:
    # Given four writers with connections of their own
    failures: list[BaseException] = []

    def write(row: str) -> None:
        try:
            backend = ZarrBackend(**s3)  # type: ignore[arg-type]
            for column in "1234":
                place = Well("p1", row, column)
                backend.save(image(counts((8, 8)), well=place), f"{PLATE}/{row}/{column}/0")
        except BaseException as error:
            failures.append(error)

    # When each fills a row of one plate
    threads = [threading.Thread(target=write, args=(row,)) for row in "ABCD"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Then every well is declared, and can be read
    assert failures == []
    backend = ZarrBackend(**s3)  # type: ignore[arg-type]
    wells = dict(group(backend, PLATE).attrs)["ome"]["plate"]["wells"]
    assert [well["path"] for well in wells] == [f"{row}/{column}" for row in "ABCD" for column in "1234"]
    assert len(backend.list_files(PLATE, recursive=True)) == 16
    for well in wells:
        assert dict(group(backend, f"{PLATE}/{well['path']}").attrs)["ome"]["well"]["images"] == [{"path": "0"}]
