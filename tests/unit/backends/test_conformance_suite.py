"""The suite finds what a backend does wrong, and is honest about what a backend says that it cannot do."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

#: Backends that each break the contract in one way, and a test that must notice.
BROKEN = {
    "OverwritesInSilence": (
        """
        def save(self, data, identifier, *, if_exists="error"):
            super().save(data, identifier, if_exists="replace" if if_exists == "error" else if_exists)
        """,
        "test_error_and_skip_leave_the_old",
    ),
    "CastsToBytes": (
        """
        def save(self, data, identifier, *, if_exists="error"):
            data = data.astype("uint8") if hasattr(data, "astype") else data
            super().save(data, identifier, if_exists=if_exists)
        """,
        "test_arrays_keep_shape_type_and_values",
    ),
    "SharesItsArrays": (
        """
        def load(self, file_path):
            with self._lock:
                return self._tree.file(tuple(p for p in str(file_path).split("/") if p)).payload
        """,
        "test_arrays_are_isolated_from_the_caller",
    ),
    "StopsHalfWay": (
        """
        def save_batch(self, data_list, identifiers, *, if_exists="error"):
            if len(data_list) == 1 or len(data_list) != len(identifiers):
                return super().save_batch(data_list, identifiers, if_exists=if_exists)
            for data, address in zip(data_list, identifiers):
                self.save(data, address, if_exists=if_exists)
        """,
        "test_a_batch_that_fails_half_way_leaves_nothing_visible",
    ),
    "RaisesSomethingElse": (
        """
        def load(self, file_path):
            try:
                return super().load(file_path)
            except FileNotFoundError as error:
                raise ValueError(str(error)) from error
        """,
        "test_what_is_missing_is_not_found",
    ),
    "SwallowsLinks": (
        """
        def create_symlink(self, source, link, overwrite=False):
            pass
        """,
        "test_symlinks_lead_to_files_and_directories",
    ),
    "ClaimsThatItCannot": (
        """
        cannot = frozenset({"moves"})
        """,
        "test_a_file_is_moved_below_folders_that_are_made",
    ),
    "RefusesWithoutSayingSo": (
        """
        def copy(self, source, target, *, if_exists="error"):
            raise Unsupported("no")
        """,
        "test_a_copy_follows_the_policy",
    ),
    "LosesAllWithItsConnections": (
        """
        def cleanup_connections(self):
            self.cleanup()
        """,
        "test_closing_connections_keeps_the_data_and_the_next_use_connects_again",
    ),
}

HONEST = """
class Few(MemoryBackend):
    cannot = frozenset({"bytes", "objects", "symlinks", "moves", "copies", "replacing", "batches", "directories"})

    def save_batch(self, data_list, identifiers, *, if_exists="error"):
        if len(data_list) > 1 and len(data_list) == len(identifiers):
            raise refusal(self, "batches")
        for data, identifier in zip(data_list, identifiers):
            if isinstance(data, (bytes, str)):
                raise refusal(self, "bytes")
            if isinstance(data, (list, dict)):
                raise refusal(self, "objects")
            if if_exists == "replace" and self.exists(identifier):
                raise refusal(self, "replacing")
        super().save_batch(data_list, identifiers, if_exists=if_exists)

    def save_file(self, source, identifier, *, sha256=None, if_exists="error"):
        raise refusal(self, "bytes")

    def ensure_directory(self, directory):
        if self.is_file(directory):
            raise NotADirectory("a file")
        if ".." in str(directory):
            return super().ensure_directory(directory)
        raise refusal(self, "directories")

    def create_symlink(self, source, link, overwrite=False):
        raise refusal(self, "symlinks")

    def move(self, source, target, *, if_exists="error"):
        raise refusal(self, "moves")

    def copy(self, source, target, *, if_exists="error"):
        raise refusal(self, "copies")

    def sha256(self, path):
        self.load(path)
        raise refusal(self, "bytes")

class TestFew(StorageConformance):
    def make(self, folder):
        return Few()

    def payload(self, number):
        return np.full((2, 2), number, "uint16")
"""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Run the suite on all of them in one pytest of its own; outcome by `Class::test`, the worst of its cases."""
    folder = tmp_path_factory.mktemp("plugin")
    source = [
        "import numpy as np",
        "from labrelay_worker.backends.base import NotADirectory, Unsupported, refusal",
        "from labrelay_worker.backends.memory import MemoryBackend",
        "from labrelay_worker.conformance.backends import StorageConformance",
        HONEST,
    ]
    for name, (body, _) in BROKEN.items():
        source += [
            f"class {name}(MemoryBackend):{body}",
            f"class Test{name}(StorageConformance):\n    def make(self, folder):\n        return {name}()\n",
        ]
    (folder / "test_plugin.py").write_text("\n".join(source))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rA", "--tb=no", "--rootdir", folder]
    done = subprocess.run([*command, folder], capture_output=True, text=True, cwd=folder, check=False)
    found: dict[str, str] = {}
    for word, name in re.findall(r"^(PASSED|FAILED|ERROR|SKIPPED)\S* \S*::(\w+::\w+)", done.stdout, re.MULTILINE):
        if found.get(name, "PASSED") == "PASSED":
            found[name] = word
    assert found, done.stdout + done.stderr
    return found


@pytest.mark.parametrize(("name", "test"), [(name, test) for name, (_, test) in BROKEN.items()])
def test_a_backend_that_breaks_the_contract_is_found_out(outcome: dict[str, str], name: str, test: str) -> None:
    assert outcome[f"Test{name}::{test}"] == "FAILED"


def test_a_backend_that_says_what_it_cannot_do_and_refuses_it_passes(outcome: dict[str, str]) -> None:
    few = {name: word for name, word in outcome.items() if name.startswith("TestFew::")}
    assert len(few) > 50
    assert {name: word for name, word in few.items() if word != "PASSED"} == {}


def test_no_test_is_left_out(outcome: dict[str, str]) -> None:
    assert "SKIPPED" not in outcome.values()


def test_what_runs_in_a_worker_never_loads_pytest() -> None:
    code = (
        "import sys; import labrelay_worker.lifecycle, labrelay_worker.commands;"
        "from labrelay_worker.backends import registry; registry.create_storage_registry();"
        "print([name for name in ('pytest', 'labrelay_worker.conformance') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_an_author_who_forgets_to_say_how_it_is_made_is_told(tmp_path: Path) -> None:
    from labrelay_worker.conformance.backends import StorageConformance

    class TestForgetful(StorageConformance): ...

    with pytest.raises(NotImplementedError, match="TestForgetful must say how to make its backend"):
        TestForgetful().make(tmp_path)
