"""Measure 1, 3 and 1 workers on hosts of their own (network namespaces; needs root): `make bench-scale`."""

from __future__ import annotations

import signal
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))

from scaling import scale

_SECONDS, _CALLS = 8.0, 8

if __name__ == "__main__":
    # Hosts and their processes go with it, however it is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    for call_seconds in (0.1,):
        # Enough for five times what one worker can do in a phase, and for what is done while the others boot.
        sessions = int(_CALLS / call_seconds * _SECONDS * 7)
        with tempfile.TemporaryDirectory() as folder:
            result = scale(Path(folder), sessions=sessions, seconds=_SECONDS, call_seconds=call_seconds, calls=_CALLS)
        print(f"\ncalls of {call_seconds * 1000:.0f} ms, {_CALLS} at once in each worker\n\n{result.table()}")
