"""A worker that stores no images does not pay for those that do."""

from __future__ import annotations

import doctest
import subprocess
import sys

import labrelay_worker.backends

HEAVY = ("zarr", "numcodecs", "rsciio", "dask", "h5py", "obstore", "yaozarrs", "numpy")


def test_discovering_every_plugin_loads_no_array_library() -> None:
    # When a process finds out which backends and destinations there are
    code = (
        "import sys, labrelay_worker.destinations.registry as registry; "
        "found = registry.ExporterRegistry(); found.discover_plugins(); "
        "assert 'zarr' in found.backends.names, found.backends.names; "
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # Then zarr is among them, and none of the libraries behind it is loaded
    assert done.stdout.strip() == "[]"


def test_backends_are_of_use_without_the_queue() -> None:
    # When a program that knows no queue keeps something in a backend
    code = (
        "import sys; from labrelay_worker.backends import *; "
        "get_backend_instance('memory').save(b'x', 'a'); "
        "assert create_storage_registry()['memory'].load('a') == b'x'; "
        "discover_all_backends(); cleanup_backend_connections(); cleanup_all_backends(); "
        f"print([name for name in ('celery', 'kombu', 'redis', *{HEAVY!r}) if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # Then neither the queue nor an array library was loaded for it
    assert done.stdout.strip() == "[]"


def test_the_package_of_the_backends_loads_nothing_until_it_is_used() -> None:
    code = (
        "import sys, labrelay_worker.backends as backends; "
        "print(sorted(name for name in sys.modules if name.startswith('labrelay'))); "
        "print([name for name in backends.__all__ if getattr(backends, name) is None])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["['labrelay_worker', 'labrelay_worker.backends']", "[]"]


def test_the_example_of_the_package_runs_as_it_is_written() -> None:
    outcome = doctest.testmod(labrelay_worker.backends)
    assert (outcome.failed, outcome.attempted) == (0, 4)


def test_without_the_extra_the_plugin_is_unavailable_with_the_cure() -> None:
    # Given a machine on which zarr is not installed
    code = (
        "import importlib.util as util; find = util.find_spec; "
        "util.find_spec = lambda name, *a: None if name in ('zarr', 'numcodecs') else find(name, *a); "
        "from labrelay_worker.backends.registry import BackendRegistry; "
        "found = BackendRegistry(); found.discover(); "
        "print(found.names); print(*map(str, found.unavailable))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, unavailable = done.stdout.strip().splitlines()
    # Then the others work, and it says what to install
    assert names == "['disk', 'fiji_stream', 'memory', 'napari_stream']"
    assert 'pip install "labrelay[zarr]"' in unavailable
