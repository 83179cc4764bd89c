"""One measurement of the polystore package, run with the interpreter of its own environment by `storage.py`.

    python polystore_case.py FOLDER PLANES.npy STRATEGY     (STRATEGY: well or file)

Prints one JSON object: seconds of CPU and of the clock for writing, reading all planes and reading one.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
from polystore.config import ZarrChunkStrategy, ZarrConfig
from polystore.zarr import ZarrStorageBackend
from polystore.zarr_batch import ZarrBatchAxis, ZarrBatchLayout


def main() -> None:
    folder, source, strategy = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    planes = list(np.load(source))
    backend = ZarrStorageBackend(ZarrConfig(chunk_strategy=ZarrChunkStrategy[strategy.upper()]))
    folder.mkdir(parents=True)
    paths = [folder / f"plane{number}.tif" for number in range(len(planes))]
    axis = ZarrBatchAxis("z", tuple(map(str, range(len(planes)))))
    layout = ZarrBatchLayout((axis,), tuple((number,) for number in range(len(planes))))
    result = {}

    def timed(name: str, call: object) -> object:
        clock, cpu = time.perf_counter(), time.process_time()
        found = call()  # type: ignore[operator]
        result[name] = {"clock": time.perf_counter() - clock, "cpu": time.process_time() - cpu}
        return found

    timed("write", lambda: backend.save_batch(planes, paths, chunk_name="A01", batch_layout=layout, row="A", col="1"))
    found = timed("read", lambda: backend.load_batch(paths))
    timed("plane", lambda: backend.load(paths[len(paths) // 2]))
    result["equal"] = all(np.array_equal(a, b) for a, b in zip(found, planes, strict=True))  # type: ignore[call-overload]
    result["bytes"] = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(json.dumps(result))


if __name__ == "__main__":
    main()
