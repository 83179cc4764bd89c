"""What other processes do to a zarr backend in the fault tests: fill, deliver, or die at a chosen step.

Run by a fork server, so each is a real process with threads of its own. A step is a change of the file system:
a file opened for writing, a piece of it written, flushed, synced or closed, a name made, changed or removed, two
folders exchanged.
"""

from __future__ import annotations

import hashlib
import io
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from signals import counts, image

from labrelay.context import ExportContext
from labrelay_worker.backends.registry import backend_registry
from labrelay_worker.backends.zarr import ZarrBackend
from labrelay_worker.destinations.backend import BackendDestination, BackendOptions
from labrelay_worker.reading.signal import Well

#: Changes of names, as Python announces them.
_NAMES = frozenset({"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.symlink"})
#: Changes of a file's content, as methods of what `open` returned.
_CONTENT = frozenset({"write", "flush", "truncate", "close"})


def write_wells(root: str, plate: str, wells: list[tuple[str, str]], rows: int, columns: int, barrier: Any) -> None:
    """Write an image into each of these wells, as soon as the other processes are ready, too."""
    backend = ZarrBackend(root)
    layout = tuple("ABCDEFGH"[:rows]), tuple(str(number + 1) for number in range(columns))
    barrier.wait()
    for row, column in wells:
        place = Well("plate", row, column, 0, *layout)
        backend.save(image(counts((16, 16)), well=place), f"{plate}/{row}/{column}/0")


def die_at(step: int, root: str, address: str, shape: tuple[int, int], seed: int) -> None:
    """Replace an image, and be killed right before the given change of the file system below the root.

    Ends with exit code 0 when there are fewer changes.
    """
    seen = 0

    def count() -> None:
        nonlocal seen
        seen += 1
        if seen == step:
            os.kill(os.getpid(), signal.SIGKILL)

    backend, new = ZarrBackend(root), image(counts(shape, seed=seed))
    _count_names(count, root)
    _count_syncs_and_exchanges(count)
    _count_content(count, root)
    backend.save(new, address, if_exists="replace")
    sys.setprofile(None)


def _count_names(count: Callable[[], None], root: str) -> None:
    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            writes = isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if writes and _is_below(arguments[0], root):
                count()
        elif event in _NAMES:
            # A folder is emptied by names relative to it.
            is_relative = event in {"os.remove", "os.rmdir"} and arguments[1] != -1
            if is_relative or _is_below(arguments[0], root):
                count()

    sys.addaudithook(watch)


def _count_content(count: Callable[[], None], root: str) -> None:
    """Count what is done to files below the root; Python announces none of it, but tells a profiler."""

    def watch(_: Any, event: str, function: Any) -> None:
        if event == "c_call" and function.__name__ in _CONTENT:
            file = getattr(function, "__self__", None)
            if isinstance(file, io.IOBase) and file.writable() and _is_below(getattr(file, "name", None), root):
                count()

    sys.setprofile(watch)


def _count_syncs_and_exchanges(count: Callable[[], None]) -> None:
    from labrelay_worker.backends.ngff import staging

    swap = staging.swap

    def counted_fsync(descriptor: int) -> None:
        # Not done: it outlives a loss of power, and what is tried here is the loss of a process.
        count()

    def counted_swap(new: Path, old: Path) -> None:
        count()
        swap(new, old)
        count()

    os.fsync, staging.swap = counted_fsync, counted_swap


def _is_below(path: object, root: str) -> bool:
    return isinstance(path, str | os.PathLike) and os.fspath(path).startswith(root)


def destination(options: dict[str, Any]) -> BackendDestination:
    """Return a zarr destination with these options of the backend."""
    name = f"zarr-{hashlib.sha256(str(options).encode()).hexdigest()[:12]}"
    backend_registry().discover()
    backend_registry().configure(name, "zarr", options)
    return BackendDestination("store", BackendOptions(backend=name))


def deliver(environment: dict[str, str], options: dict[str, Any], context: ExportContext) -> None:
    """Deliver a session as a worker does, in a process of its own."""
    os.environ.update(environment)
    warnings.simplefilter("ignore")
    if not destination(options).export(context).success:
        sys.exit(1)
