"""What the backend suites share: how the backend is made, sample payloads, and declared capabilities."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import pytest

from labrelay_worker.backends.base import CAPABILITIES, Capability, DataSink, StorageBackend, Unsupported

Test = TypeVar("Test", bound=Callable[..., None])


#: What a test needs that runs once for each of these methods, given as its parameter `how`.
_BY_METHOD: Mapping[str, Capability] = {"move": "moves", "copy": "copies"}


def needs(*capabilities: Capability) -> Callable[[Test], Test]:
    """Mark a test of these capabilities and of its method `how`: a backend that cannot must refuse instead."""

    def mark(test: Test) -> Test:
        @functools.wraps(test)
        def run(self: Any, backend: DataSink, **fixtures: Any) -> None:
            if not backend.cannot & {*capabilities, _BY_METHOD.get(fixtures.get("how", ""))}:
                test(self, backend, **fixtures)
                return
            with pytest.raises(Unsupported) as caught:
                test(self, backend, **fixtures)
            assert str(caught.value), "a refusal says what the backend cannot do"

        return run  # type: ignore[return-value]

    return mark


def same(found: Any, expected: Any) -> bool:
    """Return whether two payloads are equal, arrays in shape, type and every value."""
    if isinstance(expected, np.ndarray):
        # In which order the bytes of a number lie in memory is the backend's own business.
        alike = isinstance(found, np.ndarray) and found.dtype.newbyteorder("=") == expected.dtype.newbyteorder("=")
        return alike and bool(np.array_equal(found, expected))
    return type(found) is type(expected) and bool(found == expected)


class SinkCases:
    """What is asked of storage and viewers alike."""

    def make(self, folder: Path) -> DataSink:
        """Return a new backend that keeps all it has in this folder, which is empty or missing."""
        raise NotImplementedError(f"{type(self).__name__} must say how to make its backend")

    def payload(self, number: int) -> Any:
        """Return a payload that this backend keeps; another one for every number."""
        return b"payload %d" % number

    @pytest.fixture
    def backend(self, tmp_path: Path) -> Iterator[DataSink]:
        """The backend under test, closed afterwards."""
        made = self.make(tmp_path / "backend")
        yield made
        made.cleanup()

    def test_it_declares_only_capabilities_that_there_are(self, backend: DataSink) -> None:
        assert backend.cannot <= frozenset(CAPABILITIES)

    @pytest.mark.parametrize("address", [None, 7, b"bytes", "with\0nul", ".being-written.partial"], ids=repr)
    def test_what_cannot_be_an_address_is_refused(self, backend: DataSink, address: Any) -> None:
        with pytest.raises(Unsupported):
            backend.save(self.payload(1), address)

    def test_a_batch_of_different_lengths_is_refused(self, backend: DataSink) -> None:
        with pytest.raises(ValueError, match="2 payloads and 1 addresses"):
            backend.save_batch([self.payload(1), self.payload(2)], ["a"])

    def test_an_unknown_policy_is_refused_even_when_nothing_is_there(self, backend: DataSink) -> None:
        with pytest.raises(Unsupported, match="error, replace, skip"):
            backend.save(self.payload(1), "new", if_exists="overwrite")  # type: ignore[arg-type]

    def test_both_cleanups_may_be_called_any_number_of_times(self, backend: DataSink) -> None:
        backend.cleanup_connections()
        backend.cleanup_connections()
        backend.cleanup()
        backend.cleanup()
        backend.cleanup_connections()


class StorageCases(SinkCases):
    """What is asked of storage."""

    #: A name under which the backend keeps an array.
    array_name: ClassVar[str] = "plane.npy"
    #: Odd names that the place behind the backend cannot hold; it then refuses them, naming the fault.
    refused_names: ClassVar[frozenset[str]] = frozenset()

    def make(self, folder: Path) -> StorageBackend:
        """Return a new backend that keeps all it has in this folder, which is empty or missing."""
        raise NotImplementedError(f"{type(self).__name__} must say how to make its backend")

    def holds(self, backend: StorageBackend, **numbers: int) -> bool:
        """Return whether the files of these names hold the payloads of these numbers."""
        return all(same(backend.load(name), self.payload(number)) for name, number in numbers.items())
