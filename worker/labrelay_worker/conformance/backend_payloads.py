"""What is saved comes back: bytes, arrays of every type, objects, local files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labrelay_worker.backends.base import Corrupt, NotFound, StorageBackend, Unsupported
from labrelay_worker.conformance.backend_cases import StorageCases, needs, same

_PIXELS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
_OTHERS = (
    "bool", "uint64", "int64", "float16", "complex64", "complex128", "longdouble", ">u2", ">f8", "U5", "S5",
    "datetime64[ms]", [("x", "f4"), ("y", "u2")],
)  # fmt: skip


class _NoPayload:
    def __deepcopy__(self, memo: object) -> object:
        raise RuntimeError("cannot be copied")

    def __reduce__(self) -> Any:
        raise RuntimeError("cannot be pickled")


def _numbers(shape: tuple[int, ...], dtype: Any) -> Any:
    return np.arange(300, 300 + int(np.prod(shape))).reshape(shape).astype(dtype)


class Payloads(StorageCases):
    """Round trips."""

    def test_what_was_saved_comes_back(self, backend: StorageBackend) -> None:
        # When a payload is saved below a folder that does not exist yet
        backend.save(self.payload(1), "a/b/c.bin")
        # Then it is there
        assert same(backend.load("a/b/c.bin"), self.payload(1))

    @needs("bytes")
    @pytest.mark.parametrize("content", [b"", b"\x00\xff\r\n", bytes(range(256)) * 5000], ids=["no", "few", "many"])
    @pytest.mark.parametrize("name", ["a/x.bin", "x.dm3", "no suffix"])
    def test_bytes_come_back_as_they_were(self, backend: StorageBackend, content: bytes, name: str) -> None:
        backend.save(content, name)
        assert backend.load(name) == content
        assert backend.size(name) == len(content)
        assert backend.sha256(name) == hashlib.sha256(content).hexdigest()

    @needs("bytes")
    def test_text_comes_back_as_it_was(self, backend: StorageBackend) -> None:
        backend.save("lines\r\nas they are\n é Ω 試料", "x.txt")
        assert backend.load("x.txt") == "lines\r\nas they are\n é Ω 試料"

    @needs("objects")
    @pytest.mark.parametrize("payload", [{"ü": [1, None, 2.5]}, [1, 2], {}], ids=repr)
    def test_objects_come_back_equal(self, backend: StorageBackend, payload: Any) -> None:
        backend.save(payload, "x.json")
        assert backend.load("x.json") == payload

    @needs("arrays")
    @pytest.mark.parametrize("dtype", _PIXELS)
    @pytest.mark.parametrize("shape", [(4, 5), (2, 4, 5), (2, 3, 4, 5), (3, 1)], ids=str)
    def test_arrays_keep_shape_type_and_values(
        self, backend: StorageBackend, dtype: str, shape: tuple[int, ...]
    ) -> None:
        array = _numbers(shape, dtype)
        backend.save(array, self.array_name)
        assert same(backend.load(self.array_name), array)

    @needs("arrays")
    @pytest.mark.parametrize("dtype", _OTHERS, ids=str)
    def test_an_array_of_an_unusual_type_is_kept_or_refused_never_changed(
        self, backend: StorageBackend, dtype: Any
    ) -> None:
        self._kept_or_refused(
            backend, np.zeros((4, 5), dtype) if isinstance(dtype, list) else _numbers((4, 5), dtype)
        )

    @needs("arrays")
    @pytest.mark.parametrize("shape", [(), (0,), (0, 5), (7,), (1, 1, 1, 1, 1, 2)], ids=str)
    def test_an_array_of_an_unusual_shape_is_kept_or_refused_never_changed(
        self, backend: StorageBackend, shape: tuple[int, ...]
    ) -> None:
        self._kept_or_refused(backend, _numbers(shape, "uint16"))

    def _kept_or_refused(self, backend: StorageBackend, array: Any) -> None:
        try:
            backend.save(array, self.array_name)
        except Unsupported:
            assert not backend.exists(self.array_name)
        else:
            assert same(backend.load(self.array_name), array)

    @needs("arrays")
    def test_however_an_array_lies_in_memory_its_values_are_kept(self, backend: StorageBackend) -> None:
        array = _numbers((6, 8), "uint16")
        for number, view in enumerate((array[::2, ::-1], array.T, np.asfortranarray(array), array[1:, 3:])):
            name = f"{number}/{self.array_name}"
            backend.save(view, name)
            assert np.array_equal(backend.load(name), view)

    @needs("arrays", "batches")
    def test_arrays_of_different_types_in_one_batch_keep_their_values(self, backend: StorageBackend) -> None:
        planes = [_numbers((4, 5), "uint16"), np.ones((4, 5), "uint8"), np.full((2, 3), 0.5, "float32")]
        names = [f"{number}/{self.array_name}" for number in range(3)]
        backend.save_batch(planes, names)
        assert all(same(found, plane) for found, plane in zip(backend.load_batch(names), planes, strict=True))

    @needs("arrays")
    def test_arrays_are_isolated_from_the_caller(self, backend: StorageBackend) -> None:
        # Given a saved array
        plane = _numbers((4, 5), "uint16")
        kept = plane.copy()
        backend.save(plane, self.array_name)
        # When the caller changes its own, and then what it loaded
        plane[:] = 0
        loaded = backend.load(self.array_name)
        if loaded.flags.writeable:
            loaded[:] = 7
        # Then what is stored is still what was saved
        assert same(backend.load(self.array_name), kept)

    def test_what_cannot_be_stored_is_refused_by_its_kind(self, backend: StorageBackend) -> None:
        with pytest.raises(Unsupported, match="_NoPayload"):
            backend.save(_NoPayload(), "new/x.json")
        assert not backend.exists("new/x.json")

    @needs("batches")
    def test_what_cannot_be_stored_stops_its_batch_before_anything_is_visible(self, backend: StorageBackend) -> None:
        backend.save_batch([self.payload(1), self.payload(2)], ["old/1", "old/2"])
        with pytest.raises(Unsupported, match="_NoPayload"):
            backend.save_batch([self.payload(1), _NoPayload()], ["new/1", "new/2.json"])
        assert not backend.exists("new")

    @needs("bytes")
    def test_a_local_file_is_stored_byte_for_byte(self, backend: StorageBackend, tmp_path: Path) -> None:
        # Given a file of several chunks
        content = bytes(range(256)) * 5000
        source = tmp_path / "notes.bin"
        source.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        # When it is stored with its expected sha256
        answer = backend.save_file(source, "archive/notes.bin", sha256=digest.upper())
        # Then it is all there
        assert answer == (len(content), digest)
        assert (backend.size("archive/notes.bin"), backend.sha256("archive/notes.bin")) == answer

    @needs("bytes")
    def test_a_file_with_another_sha256_leaves_nothing(self, backend: StorageBackend, tmp_path: Path) -> None:
        source = tmp_path / "changed.bin"
        source.write_bytes(b"first stored")
        backend.save_file(source, "old.bin")
        source.write_bytes(b"changed since it was submitted")
        with pytest.raises(Corrupt, match=f"expected {'0' * 64}"):
            backend.save_file(source, "new/changed.bin", sha256="0" * 64)
        assert not backend.exists("new")

    @needs("bytes")
    def test_skipping_a_file_tells_of_what_is_there(self, backend: StorageBackend, tmp_path: Path) -> None:
        (tmp_path / "local").write_bytes(b"new content")
        backend.save(b"old", "target")
        answer = backend.save_file(tmp_path / "local", "target", if_exists="skip")
        assert answer == (3, hashlib.sha256(b"old").hexdigest())

    def test_a_missing_local_file_is_named(self, backend: StorageBackend, tmp_path: Path) -> None:
        with pytest.raises(
            (NotFound, Unsupported) if "bytes" in backend.cannot else NotFound, match=r"nowhere|cannot"
        ):
            backend.save_file(tmp_path / "nowhere.tif", "new/x.tif")
        assert not backend.exists("new")
