"""What is compared: each case writes planes into an empty folder and reads them back."""

from __future__ import annotations

import json
import subprocess
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from planes import Cost, timed
from zarr.codecs import BloscCodec, ZstdCodec

from labrelay_worker.backends.disk import DiskBackend
from labrelay_worker.backends.zarr import ZarrBackend

Planes = np.ndarray[Any, Any]


@dataclass
class Case:
    """One way to store planes."""

    name: str

    def run(self, folder: Path, planes: Planes) -> tuple[Cost, Cost]:
        """Return what writing and reading took. Raises AssertionError when other planes come back."""
        found: list[Any] = []
        write = timed(lambda: self.write(folder, planes))
        read = timed(lambda: found.append(self.read(folder, len(planes))))
        assert np.array_equal(np.asarray(found[0]), planes), self.name
        return write, read

    @abstractmethod
    def write(self, folder: Path, planes: Planes) -> None: ...

    @abstractmethod
    def read(self, folder: Path, count: int) -> Any: ...


class NumpySave(Case):
    def write(self, folder: Path, planes: Planes) -> None:
        for number, plane in enumerate(planes):
            np.save(folder / f"{number}.npy", plane)

    def read(self, folder: Path, count: int) -> Any:
        return [np.load(folder / f"{number}.npy") for number in range(count)]


class Tiff(Case):
    def write(self, folder: Path, planes: Planes) -> None:
        for number, plane in enumerate(planes):
            tifffile.imwrite(folder / f"{number}.tif", plane)

    def read(self, folder: Path, count: int) -> Any:
        return [tifffile.imread(folder / f"{number}.tif") for number in range(count)]


@dataclass
class Disk(Case):
    verify: bool = True

    def write(self, folder: Path, planes: Planes) -> None:
        names = [f"{number}.npy" for number in range(len(planes))]
        DiskBackend(folder, verify=self.verify).save_batch(list(planes), names)

    def read(self, folder: Path, count: int) -> Any:
        return DiskBackend(folder).load_batch([f"{number}.npy" for number in range(count)])


@dataclass
class Zarr(Case):
    options: dict[str, Any]

    def write(self, folder: Path, planes: Planes) -> None:
        ZarrBackend(folder, **self.options).save(planes, "a.ome.zarr")

    def read(self, folder: Path, count: int) -> Any:
        return ZarrBackend(folder).load("a.ome.zarr")


@dataclass
class PlainZarr(Case):
    codec: Any
    sharded: bool

    def write(self, folder: Path, planes: Planes) -> None:
        plane = (1, *planes.shape[1:])
        chunk = (1, *(side // 2 for side in planes.shape[1:])) if self.sharded else plane
        array = zarr.create_array(
            folder / "a.zarr", shape=planes.shape, dtype=planes.dtype, chunks=chunk,
            shards=plane if self.sharded else None, compressors=self.codec,
        )  # fmt: skip
        array[:] = planes

    def read(self, folder: Path, count: int) -> Any:
        return zarr.open_array(folder / "a.zarr", mode="r")[...]


@dataclass
class Polystore(Case):
    python: Path
    source: Path
    strategy: str

    def run(self, folder: Path, planes: Planes) -> tuple[Cost, Cost]:
        script = Path(__file__).with_name("polystore_case.py")
        command = [self.python, script, folder / "plate", self.source, self.strategy]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        said = json.loads(done.stdout.splitlines()[-1])
        assert said["equal"], self.name
        return Cost(**said["write"]), Cost(**said["read"])


def all_cases(python: Path | None, source: Path) -> list[Case]:
    """Return every case; polystore's only with the interpreter of an environment that has it."""
    codecs: dict[str, Any] = {
        "default (zstd)": ZstdCodec(), "uncompressed": None,
        "blosc lz4 shuffle": BloscCodec(cname="lz4", clevel=5, shuffle="shuffle", typesize=2),
        "blosc lz4 bitshuffle": BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle", typesize=2),
        "blosc zstd-1 bitshuffle": BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle", typesize=2),
    }  # fmt: skip
    cases: list[Case] = [
        NumpySave("np.save"),
        Tiff("tifffile"),
        Disk("disk"),
        Disk("disk, verify off", verify=False),
        Zarr("zarr", {}),
        Zarr("zarr, lz4-bitshuffle", {"codec": "lz4-bitshuffle"}),
        Zarr("zarr, zstd", {"codec": "zstd"}),
        Zarr("zarr, none", {"codec": "none"}),
        Zarr("zarr, verify off", {"verify": False}),
        Zarr("zarr, verify off, one level", {"verify": False, "levels": 1}),
        Zarr("zarr, ngff 0.4", {"ngff": "0.4"}),
    ]
    for name, codec in codecs.items():
        cases.append(PlainZarr(f"plain zarr, {name}", codec, sharded=False))
        cases.append(PlainZarr(f"plain zarr, {name}, sharded", codec, sharded=True))
    if python is not None:
        cases += [Polystore(f"polystore, {name}", python, source, name) for name in ("well", "file")]
    return cases
