"""Compare ways to store images on this machine: MB/s, MB per CPU-second, size, and the price of one plane.

Every round runs every case once, so that a busy moment meets them all; figures are medians, ratios of one run.
The CPU time is that of all threads. ``--polystore install`` makes an environment for the polystore package beside the
results, because its requirements are its own; ``--polystore PYTHON`` uses one that has it.

    python benchmarks/storage/storage.py [--planes 8] [--side 2048] [--rounds 3] [--polystore install] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from cases import all_cases
from planes import Cost, Repeated, camera, median, timed

from labrelay_worker.backends.zarr import ZarrBackend
from labrelay_worker.reading.signal import of_array

STACK = 200
RAW, OURS = "raw read of one plane", "zarr backend, plane()"
IN_MAIN, FROM_DEVICE = ", in the main thread", ", from the device"
ONE = f"one plane of {STACK} : raw read"
POLYSTORE = "polystore==0.6.3"

Call = Callable[[int], Any]


def compare(folder: Path, planes: Any, rounds: int, python: Path | None) -> dict[str, dict[str, float]]:
    """Return write and read figures of every case."""
    source = folder / "planes.npy"
    np.save(source, planes)
    megabytes = planes.nbytes / 1e6
    costs: dict[str, list[tuple[Cost, Cost]]] = {}
    sizes: dict[str, float] = {}
    for _ in range(rounds):
        for case in all_cases(python, source):
            place = folder / "case"
            place.mkdir()
            costs.setdefault(case.name, []).append(case.run(place, planes))
            sizes[case.name] = sum(path.stat().st_size for path in place.rglob("*") if path.is_file()) / 1e6
            shutil.rmtree(place)
    result = {}
    for name, pairs in costs.items():
        write, read = median([pair[0] for pair in pairs]), median([pair[1] for pair in pairs])
        result[name] = {
            "write_per_cpu": megabytes / write.cpu, "write_per_second": megabytes / write.clock,
            "read_per_cpu": megabytes / read.cpu, "read_per_second": megabytes / read.clock, "megabytes": sizes[name],
        }  # fmt: skip
    return result


def one_plane(folder: Path, planes: Any) -> dict[str, dict[str, float]]:
    """Return what reading one plane costs, raw and out of an image of 200: from memory, then from the device.

    Every call returns a new array with the plane's pixels. Deliveries run in threads of a worker; a script of one's
    own has a main thread, where Blosc decodes with threads of its own: both are looked at.
    """
    backend = ZarrBackend(folder, verify=False, levels=1)
    backend.save(of_array(Repeated(planes, STACK)), "stack.ome.zarr")
    raw_file, (height, width) = folder / "stack.raw", planes.shape[1:]
    with raw_file.open("wb") as file:
        for number in range(STACK):
            file.write(planes[number % len(planes)])
    os.sync()  # only what is on the device can be dropped from memory

    def read_raw(number: int) -> Any:
        return np.fromfile(raw_file, planes.dtype, height * width, offset=number * height * width * planes.itemsize)

    stored = backend.open_image("stack.ome.zarr")
    data = stored.data
    both: dict[str, Call] = {RAW: read_raw, OURS: stored.plane}
    for number in (0, STACK - 1):
        assert np.array_equal(read_raw(number).reshape(height, width), stored.plane(number))
    others: dict[str, Call] = {
        "zarr backend, image opened anew": lambda number: backend.open_image("stack.ome.zarr").plane(number),
        "the same through zarr's own reader": lambda number: data[number],
    }
    files = [raw_file, *(path for path in (folder / "stack.ome.zarr").rglob("*") if path.is_file())]
    numbers = range(0, 100 * 37, 37)
    found = in_thread(lambda: costs_of(both | others, numbers))
    found |= costs_of({f"{name}{IN_MAIN}": call for name, call in both.items()}, numbers)
    from_device = {f"{name}{FROM_DEVICE}": call for name, call in both.items()}
    return found | in_thread(lambda: costs_of(from_device, numbers[:20], prepare=lambda: forget_cached(files)))


def costs_of(
    calls: dict[str, Call], numbers: Sequence[int], prepare: Callable[[], None] = lambda: None
) -> dict[str, dict[str, float]]:
    """Return median costs of reading planes, and their ratios to the first of the calls."""
    costs: dict[str, list[Cost]] = {name: [] for name in calls}
    order, shuffled = list(calls), random.Random(1)
    for number in numbers:
        shuffled.shuffle(order)  # none always meets what the same other one left in the processor's cache
        for name in order:
            call = calls[name]
            prepare()
            costs[name].append(timed(lambda call=call, number=number: call(number % STACK)))  # type: ignore[misc]
    medians = {name: median(found) for name, found in costs.items()}
    raw = next(iter(medians.values()))
    return {
        name: {
            "ms": cost.clock * 1e3, "cpu_ms": cost.cpu * 1e3, "ratio": cost.clock / raw.clock,
            "cpu_ratio": cost.cpu / raw.cpu,
        }
        for name, cost in medians.items()
    }  # fmt: skip


def in_thread(call: Callable[[], dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Return what a call returns in a thread other than the main one, as deliveries run in a worker."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(call).result()


def forget_cached(files: Iterable[Path]) -> None:
    """Drop the page cache's copies."""
    for path in files:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def targets(found: dict[str, dict[str, float]], plane: dict[str, dict[str, float]]) -> dict[str, float]:
    """Return the ratios that were promised, as this run has them."""
    ours = found["zarr"]["write_per_cpu"]
    bare = found["zarr, verify off, one level"]["write_per_cpu"]
    plain = {name: figures["write_per_cpu"] for name, figures in found.items() if name.startswith("plain zarr")}
    best = max(pace for name, pace in plain.items() if "uncompressed" not in name)
    raw = max(pace for name, pace in plain.items() if "uncompressed" in name)
    result = {
        "zarr as it comes : plain zarr's best codec, written per CPU-second (promised 1)": ours / best,
        "zarr as it comes : plain zarr uncompressed": ours / raw,
        "zarr without pyramid and reading back, which plain zarr has not : its best codec": bare / best,
        f"{ONE}, from memory, in a worker's thread, by the clock (promised at most 2)": plane[OURS]["ratio"],
        f"{ONE}, from memory, in the main thread (promised at most 2)": plane[f"{OURS}{IN_MAIN}"]["ratio"],
        f"{ONE}, from the device (promised at most 2)": plane[f"{OURS}{FROM_DEVICE}"]["ratio"],
    }
    if others := [figures["write_per_cpu"] for name, figures in found.items() if name.startswith("polystore")]:
        result["zarr : polystore, written per CPU-second (promised 8)"] = ours / max(others)
    return result


def environment(given: str | None, folder: Path) -> Path | None:
    """Return the interpreter that has polystore; None: leave it out."""
    if given is None or given != "install":
        return None if given is None else Path(given)
    subprocess.run([sys.executable, "-m", "venv", folder / "polystore"], check=True)
    python = folder / "polystore/bin/python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", POLYSTORE, "pandas"], check=True
    )
    return python


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--planes", type=int, default=8)
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--polystore", help="install, or the python of an environment that has it")
    parser.add_argument("--folder", type=Path, help="where to write; default: the temporary folder")
    parser.add_argument("--json", type=Path, help="write all figures here")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        planes = camera(given.planes, given.side)
        python = environment(given.polystore, folder)
        found = in_thread(lambda: compare(folder, planes, given.rounds, python))
        plane = one_plane(folder, planes)
    print(f"{given.planes} planes of {given.side} x {given.side} uint16, {given.rounds} rounds, medians\n")
    print(
        "| case | write MB/CPU-s | write MB/s | read MB/CPU-s | read MB/s | MB on disk |\n|---|---|---|---|---|---|"
    )
    for name, row in found.items():
        print(f"| {name} | {' | '.join(f'{value:.0f}' for value in row.values())} |")
    print(f"\n| one plane of {STACK} | ms | CPU ms | : raw | CPU : raw |\n|---|---|---|---|---|")
    for name, row in plane.items():
        print(f"| {name} | {' | '.join(f'{value:.2f}' for value in row.values())} |")
    ratios = targets(found, plane)
    print()
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f}")
    if given.json:
        given.json.write_text(json.dumps({"cases": found, "plane": plane, "ratios": ratios}, indent=1))


if __name__ == "__main__":
    main()
